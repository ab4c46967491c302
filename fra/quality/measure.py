"""Measures what a manifest names, so that expectations can be put on it: shards, their images, betons.

One pass over each shard, shards in parallel threads (decoding and hashing run outside Python's lock): bytes, pixels,
annotations and the beton's copy are compared there, and only numbers leave it, some 150 bytes an image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from fra.data.files import sha256
from fra.data.images import ImageError, decode
from fra.data.inspect_beton import Beton, BetonError
from fra.data.spread import processes
from fra.data.tar import SUFFIX, beside
from fra.quality import picture
from fra.quality.manifest import Manifest
from fra.quality.picture import HASH_WORDS

NUMBERS = ("brightness", "contrast", "sharpness", "clipped", "flat", "beton_deviation")
FLAGS = (
    "found",
    "readable",
    "bytes_fit",
    "size_fits",
    "mode_fits",
    "annotation_fits",
    "order_fits",
    "beton_order_fits",
)
"""What is measured of a row. A flag is NaN where it does not apply: nothing is known of a row in no shard."""


@dataclass
class Measured:
    """What one shard says: `rows` (positions in the manifest) and their columns; facts of the file itself."""

    name: str
    rows: NDArray[np.int64]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    hashes: NDArray[np.uint64] | None = None
    formats: list[str] = field(default_factory=list)
    images: int = 0
    strange: list[str] = field(default_factory=list)
    problem: str | None = None


def members(shard: Path) -> Iterator[tuple[str, str, bytes, bytes]]:
    """(key, suffix, image, annotation) of each record of a tar shard, the last two as bytes.

    Raises:
        tarfile.TarError, EOFError: the shard is broken off or no tar file.
    """
    key, suffix, content, note = "", "", b"", b""
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name, _, ending = member.name.rpartition(".")
            stream = tar.extractfile(member)
            if stream is None:
                continue
            if name != key and suffix:
                yield key, suffix, content, note
                suffix, content, note = "", b"", b""
            key = name
            if ending == "json":
                note = stream.read()
            else:
                suffix, content = ending, stream.read()
        if suffix:
            yield key, suffix, content, note


def measure_shard(path: Path, listed: pa.Table, rows: NDArray[np.int64], betons: dict[str, Path]) -> Measured:
    """Compares one shard with the manifest's rows `listed` (at the positions `rows`, in their order)."""
    count = len(rows)
    done = Measured(path.name, rows, hashes=np.zeros((count, HASH_WORDS), np.uint64), formats=[""] * count)
    columns = {name: np.full(count, np.nan, np.float32) for name in (*NUMBERS, *FLAGS)}
    columns["found"][:] = 0
    done.columns = columns
    frame = listed.to_pandas()
    records, expected = frame.to_dict("records"), beside(frame)
    places = {record["key"]: place for place, record in enumerate(records)}
    opened: dict[str, Beton | None] = {}
    position = -1
    try:
        for key, suffix, content, note in members(path):
            done.images += 1
            position += 1
            place = places.get(key)
            if place is None:
                done.strange.append(key)
                continue
            row = records[place]
            columns["found"][place] = 1
            columns["order_fits"][place] = position == place
            columns["bytes_fit"][place] = hashlib.sha256(content).hexdigest() == row["sha256"]
            columns["annotation_fits"][place] = agrees(note, expected[place])
            assert done.hashes is not None
            pixels = look(content, row, place, columns, done.hashes, done.formats)
            if pixels is not None:
                compare(pixels, row, place, columns, opened, betons)
    except (tarfile.TarError, EOFError, OSError) as error:
        done.problem = f"not a whole tar file: {error}"
    return done


def agrees(found: bytes, expected: bytes) -> bool:
    """Whether what a shard has beside an image says what the manifest says; landmarks to a hundredth of a pixel."""
    if found == expected:
        return True
    try:
        note, row = json.loads(found), json.loads(expected)
        given, wanted = note.get("landmarks"), row.get("landmarks")
    except (ValueError, AttributeError):  # no JSON, or no object
        return False
    if (given is None) != (wanted is None) or (given is not None and len(given) != len(wanted)):
        return False
    return {**note, "landmarks": None} == {**row, "landmarks": None} and (
        given is None or bool(np.allclose(given, wanted, rtol=0, atol=0.01, equal_nan=True))
    )


def look(
    content: bytes,
    row: dict[str, Any],
    place: int,
    columns: dict[str, NDArray[Any]],
    hashes: NDArray[np.uint64],
    formats: list[str],
) -> NDArray[np.uint8] | None:
    """Decodes an image and fills in what its pixels say; None where it cannot be decoded."""
    try:
        pixels = decode(content)
    except ImageError:
        columns["readable"][place] = 0
        return None
    with Image.open(io.BytesIO(content)) as header:
        kind = (header.format or "").lower()
        columns["mode_fits"][place] = header.mode == row["mode"]
    formats[place] = SUFFIX.get(kind, kind)
    columns["readable"][place] = 1
    columns["size_fits"][place] = pixels.shape[:2] == (row["height"], row["width"])
    for name, value in asdict(picture.measure(pixels)).items():
        columns[name][place] = value
    hashes[place] = picture.perceptual_hash(pixels)
    return pixels


def compare(
    pixels: NDArray[np.uint8],
    row: dict[str, Any],
    place: int,
    columns: dict[str, NDArray[Any]],
    opened: dict[str, Beton | None],
    betons: dict[str, Path],
) -> None:
    """Fills in how far an image's copy in its split's beton is from it; a copy that is not there counts as 255."""
    split, index = str(row["split"]), int(row["index"])
    if split not in betons:
        return
    if split not in opened:
        try:
            opened[split] = Beton(betons[split])
        except BetonError:
            opened[split] = None  # reported as a file
    beton = opened[split]
    if beton is None:
        return
    columns["beton_deviation"][place] = 255
    if 0 <= index < len(beton):
        columns["beton_order_fits"][place] = beton.index[index] == index
        try:
            columns["beton_deviation"][place] = picture.deviation(pixels, beton.pixels(index))
        except BetonError:
            return


@dataclass(frozen=True)
class Measures:
    """`images`: one row a row of the manifest; `hashes` (N, 4) perceptual; `files`: one row a shard or beton."""

    images: pd.DataFrame
    hashes: NDArray[np.uint64]
    files: pd.DataFrame
    digests: dict[str, str]


def measure(manifest: Manifest, shards: Path, betons: list[Path], workers: int = 0) -> Measures:
    """One pass over all shards on all cores. What is missing or broken is measured as such: nothing raises."""
    cv2.setNumThreads(1)  # the shards are the parallel part
    by_split = {path.stem: path for path in betons}
    tasks = [
        (shards / name, manifest.rows_of(rows), rows)
        for name, rows in manifest.by_shard().items()
        if (shards / name).is_file()
    ]
    count = len(manifest.table)
    columns = {name: np.full(count, np.nan, np.float32) for name in (*NUMBERS, *FLAGS)}
    columns["found"][manifest.table["shard"].notna().to_numpy()] = 0
    hashes = np.zeros((count, HASH_WORDS), np.uint64)
    formats = np.full(count, "", dtype="<U8")
    found: dict[str, Measured] = {}
    with (
        ThreadPoolExecutor(max_workers=max(1, min(processes(workers), len(tasks)))) as pool,
        tqdm(total=sum(len(rows) for *_, rows in tasks), unit="image", desc="measure", mininterval=1) as bar,
    ):
        for done in (
            pool.map(measure_shard, *zip(*tasks, strict=True), [by_split] * len(tasks)) if tasks else ()
        ):
            for name, values in done.columns.items():
                columns[name][done.rows] = values
            hashes[done.rows] = done.hashes
            formats[done.rows] = done.formats
            found[done.name] = done
            bar.update(len(done.rows))
    files, digests = judge_files(manifest, shards, betons, found)
    images = pd.DataFrame({**columns, "format": pd.array(formats, dtype="str")})
    return Measures(images, hashes, files, digests)


def judge_files(
    manifest: Manifest, shards: Path, betons: list[Path], found: dict[str, Measured]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row a shard or beton: what it should hold, what it holds; and the SHA-256 of every file that is there."""
    listed = manifest.by_shard()
    try:
        index = json.loads((shards / "index.json").read_text(encoding="utf-8"))
        entries = {
            str(entry["name"]): entry for split in index["splits"].values() for entry in split["shards"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        entries = {}
    on_disk = {path.name for path in shards.glob("*.tar")}
    digests = {(shards / name).as_posix(): sha256(shards / name) for name in sorted(on_disk)}
    rows: list[dict[str, Any]] = []
    for name in sorted({*listed, *entries, *on_disk}):
        path, entry, seen = shards / name, entries.get(name, {}), found.get(name)
        rows.append(
            {
                "source": path.as_posix(),
                "kind": "shard",
                "there": name in on_disk,
                "listed": name in listed,
                "problem": seen.problem if seen else None,
                "sha256": digests.get(path.as_posix()),
                "sha256_listed": entry.get("sha256"),
                "images": seen.images if seen else None,
                "images_listed": len(listed.get(name, ())),
                "images_indexed": entry.get("images"),
                "strange": ", ".join(seen.strange[:3]) if seen and seen.strange else None,
            }
        )
    sharded = manifest.table["shard"].notna()
    expected = manifest.table.loc[sharded, "split"].value_counts().to_dict()
    by_split = {path.stem: path for path in betons}
    for split in sorted({*by_split, *(expected if betons else ())}, key=str):
        beton_path = by_split.get(str(split))
        problem, count = None, None
        if beton_path is not None:
            digests[beton_path.as_posix()] = sha256(beton_path)
            try:
                count = len(Beton(beton_path))
            except BetonError as error:
                problem = str(error)
        rows.append(
            {
                "source": (beton_path or betons[0].with_name(f"{split}.beton")).as_posix(),
                "kind": "beton",
                "there": beton_path is not None,
                "listed": split in expected,
                "problem": problem,
                "images": count,
                "images_listed": int(expected.get(split, 0)),
            }
        )
    columns = ["source", "kind", "there", "listed", "problem", "sha256", "sha256_listed", "images"]
    files = pd.DataFrame(rows, columns=[*columns, "images_listed", "images_indexed", "strange"])
    return files, digests
