"""Attests a backbone: writes the statement about it, where its lineage verifies."""

from __future__ import annotations

from pathlib import Path

from pipelines.lineage import in_toto
from pipelines.lineage.verify import verify
from pipelines.repo.lock import LineageError


def attest(backbone: Path, out: Path, key: Path | None = None, root: Path = Path()) -> bool:
    """Writes the statement about a backbone and returns whether it is signed.

    Args:
        backbone: the weights; a copy elsewhere is found by its content.
        out: the statement's file.
        key: an Ed25519 private key (PEM); by default the one that `FRA_SIGNING_KEY` names.
        root: the project.

    Raises:
        LineageError: the lineage of the backbone does not verify, or dvc.lock does not have it.
        FileNotFoundError, ValueError: the key is missing or cannot be used.
    """
    _, artifact = in_toto.made_by(backbone, root)
    found = verify(root, artifact, statements=False).problems
    if found:
        raise LineageError(
            f"{backbone}: not attested, as its lineage does not verify: {found[0]}"
            + f" and {len(found) - 1} more" * (len(found) > 1)
            + f"; `fra lineage verify {artifact}` lists all"
        )
    return in_toto.write(backbone, out, key, root)
