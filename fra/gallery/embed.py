"""Embeddings of many images in one file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from fra.files import atomic, check_output, locked_folder, sha256, write_json
from fra.gallery.files import SUFFIXES, table_of, write_tables
from fra.inference.detection import Detection
from fra.inference.image_files import Batch, File, Skipped, Source, batches, check_names, find, resolve
from fra.parallel import map_batches
from fra.weights import released

if TYPE_CHECKING:
    from fra.inference.encoder import FaceEncoder

PART = 2048
"""Files whose embeddings are stored as one part until all are finished: what a killed run computes again at most."""


def write_part(
    encoder: FaceEncoder, files: Sequence[File], out: Path, batch_size: int, detection: Detection | None
) -> None:
    """Writes the embeddings of some files to `out`, an .arrow file.

    Its metadata `skipped` lists the files that gave no row.
    """
    skipped = Skipped()
    sources: list[Source] = []
    parts = [np.zeros((0, encoder.feature_dim), np.float32)]
    found = batches(files, encoder.image_size, batch_size, skipped, detection)
    for batch_sources, part in map_batches(partial(_embed, encoder), found, encoder.device):
        sources += batch_sources
        parts.append(part)
    table = table_of(sources, np.concatenate(parts), detection is not None)
    table = table.replace_schema_metadata({"skipped": json.dumps(asdict(skipped))})
    with atomic(out) as file, pa.ipc.new_file(file, table.schema) as stream:
        stream.write_table(table)


def _embed(encoder: FaceEncoder, batch: Batch) -> tuple[list[Source], NDArray[np.float32]]:
    return batch.sources, encoder.embed(batch.pixels_N3HW, len(batch.sources)).cpu().numpy()


def embed(
    patterns: Sequence[str],
    weights: Path,
    out: Path,
    *,
    batch_size: int = 64,
    device: str = "auto",
    detection: Detection | None = None,
) -> Skipped:
    """Write the embeddings of images, or of the faces in them, to `out`: one row per image or face.

    Embeddings go to disk, `PART` files at a time. A run that was killed continues where it stopped, with the same bytes
    at the end, if files, weights and options are the same.

    Args:
        patterns: Files, folders, glob patterns or tar shards, which may be remote (`s3://bucket/faces-{00..41}.tar`).
        weights: Weights file, or the name of released weights.
        out: .parquet or .arrow (columns `image`, `embedding`; metadata `fra` names the weights), or .npz (arrays
            `images`, `embeddings`, `weights`). `read` maps an .arrow file into memory, the fastest for `search`. With
            `detection` also `face` (number in the image, the largest first), `box` (left, top, width and height in
            pixels of the upright image) and `score` (.npz: `faces`, `boxes`, `scores` and `crop`).
        batch_size: Images per batch.
        device: "cpu", "cuda" or "auto".
        detection: How faces are found and cropped; None: each image is one face.

    Returns:
        The files that cannot be decoded, and those in which no face was found.

    Raises:
        ValueError: `out` has another suffix, a name is not UTF-8, no image could be decoded, or no face was found.
        FileNotFoundError: A path or pattern matches nothing, or the weights are missing.
        OSError: `out` cannot be written.
    """
    check_output(out, SUFFIXES)
    paths = resolve(patterns)
    if out.suffix == ".parquet":
        check_names(paths)
    file = released.find(weights)
    from fra.dist import choose_device
    from fra.inference.encoder import load  # imports PyTorch: not before the files are found

    encoder = load(file).to(choose_device(device))
    origin = {"weights": sha256(file), **description(encoder)}
    if detection is not None:
        origin["faces"] = detection.description()
    plan = {"origin": origin, "batch_size": batch_size, "part": PART, "files": fingerprint(paths)}
    folder = out.with_name(f".{out.name}.parts")
    with resumable(folder, plan):
        parts = {folder / f"{number:06d}.arrow": files for number, files in enumerate(in_parts(find(paths)))}
        missing = [part for part in parts if not part.is_file()]
        total, left = sum(map(len, parts.values())), sum(len(parts[part]) for part in missing)
        with tqdm(total=total, initial=total - left, desc="embed", unit="image", mininterval=1) as bar:
            for part in missing:
                write_part(encoder, parts[part], part, batch_size, detection)
                bar.update(len(parts[part]))
        skipped = Skipped()
        for part in parts:
            for kind, names in _part_skipped(part).items():
                getattr(skipped, kind).update(names)
        rows = sum(_open_part(part).read_all().num_rows for part in parts)
        if rows == 0:
            shutil.rmtree(folder)
            raise skipped.nothing_left()
        write_tables((_open_part(part).read_all() for part in parts), rows, origin, out)
        shutil.rmtree(folder)
    return skipped


def fingerprint(paths: Sequence[str]) -> str:
    """A hash of the names, sizes and modification times of files; of remote ones the names."""
    digest = hashlib.sha256()
    for path in paths:
        status = None if "://" in path else Path(path).stat()
        digest.update(
            repr((path, status and (status.st_size, status.st_mtime_ns))).encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def in_parts(files: Iterator[File]) -> Iterator[list[File]]:
    """The files, `PART` at a time."""
    while part := list(islice(files, PART)):
        yield part


@contextmanager
def resumable(folder: Path, plan: dict[str, Any]) -> Iterator[None]:
    """Holds the folder of finished parts, which is emptied if it was made by another plan.

    If the block fails, a folder with finished parts is kept for the next run, an empty one is removed.

    Raises:
        ValueError: Another process writes to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder):
        try:
            path = folder / "plan.json"
            if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != plan:
                for other in folder.iterdir():  # the folder itself stays: it is what is locked
                    other.unlink()
                write_json(plan, path)
            yield
        finally:
            if folder.is_dir() and not any(folder.glob("[0-9]*.arrow")):
                shutil.rmtree(folder)


def _open_part(path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _part_skipped(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(_open_part(path).schema.metadata[b"skipped"])
    return found


def description(encoder: FaceEncoder) -> dict[str, object]:
    """Return the architecture and image size of an encoder, stored with its embeddings."""
    return {"backbone": encoder.metadata["backbone"], "image_size": encoder.image_size}
