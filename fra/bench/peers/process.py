"""The process of a peer: its environment, and rounds of its work."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import fra
from fra.bench.measure import Measurement

METADATA = re.compile(r"^# /// script$\n(?P<lines>(?:^#.*$\n)+?)^# ///$", re.MULTILINE)
"""The block in a script that names what it needs (PEP 723)."""
SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""How long a waiting OpenMP thread of a peer stays busy: libgomp's default, which `import fra` changes."""


class Round(Protocol):
    """One round of a peer's work."""

    def __call__(self) -> Measurement:
        """Runs the round and returns what it took."""


class Peer(NamedTuple):
    """A peer and where its environment is.

    Attributes:
        name: Of its module in `fra.bench.peers`.
        environments: Folder of the environments.
    """

    name: str
    environments: Path


def requirements(name: str) -> list[str]:
    """Returns the packages that a peer needs besides those of this project."""
    found = METADATA.search(Path(__file__).with_name(f"{name}.py").read_text())
    if found is None:
        return []
    block = "\n".join(line.removeprefix("#").removeprefix(" ") for line in found["lines"].splitlines())
    return [str(requirement) for requirement in tomllib.loads(block)["dependencies"]]


def python_of(peer: Peer) -> str:
    """Returns the Python of a peer's environment, which is made where it is missing or of other requirements.

    The environment also finds the packages of the running one, so that both sides use the same PyTorch. A peer without
    requirements runs in the running environment.

    Raises:
        RuntimeError: The packages cannot be installed.
    """
    needed = requirements(peer.name)
    if not needed:
        return sys.executable
    folder = peer.environments / peer.name
    python, ready = folder / "bin" / "python", folder / "requirements.txt"
    content = "\n".join(needed)
    if ready.is_file() and ready.read_text() == content:
        return str(python)
    print(f"installing {', '.join(needed)} into {folder}", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    [packages] = folder.glob("lib/python*/site-packages")
    outer = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages / "outer.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in outer)
    )
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needed]
    done = subprocess.run(install, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"cannot install {', '.join(needed)} into {folder}: {done.stderr.strip()}")
    ready.write_text(content)
    return str(python)


@contextmanager
def running(peer: Peer, settings: Mapping[str, Any]) -> Iterator[Round]:
    """Starts a peer, and yields its rounds; the peer waits while it runs none.

    Args:
        peer: The peer.
        settings: Arguments of the peer's `prepare`; numbers, strings, lists and dictionaries.

    Raises:
        RuntimeError: The peer cannot be installed, or fails.
    """
    command = [python_of(peer), "-m", f"fra.bench.peers.{peer.name}", json.dumps(settings)]
    path = os.pathsep.join(
        [str(Path(fra.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **SPINNING, "PYTHONPATH": path},
    ) as process:
        sent, received = process.stdin, process.stdout
        assert sent is not None
        assert received is not None

        def answer() -> Any:
            line = received.readline()
            if not line:
                raise RuntimeError(f"the peer {peer.name} failed with exit code {process.wait()}; see above")
            return json.loads(line)

        def run() -> Measurement:
            sent.write("round\n")
            sent.flush()
            return Measurement(*answer())

        answer()  # it is ready
        yield run
