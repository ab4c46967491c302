"""Measures the shards, images and betons of a data set.

Each shard is read once, shards in parallel threads (decoding and hashing release Python's global lock). Bytes, pixels,
annotations and the copy in the beton are compared on the way; only numbers are kept, about 200 bytes per image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from fra.data import images
from fra.data.executors import worker_count
from fra.data.images import ImageError, decode
from fra.data.shards.beton_reader import Beton, BetonError
from fra.data.shards.tar import SUFFIX, annotation_json
from fra.files import sha256_each
from fra.parallel import opencv_in_one_thread
from fra.validation import image_stats
from fra.validation.face_stats import FaceFinder, FaceStats
from fra.validation.image_stats import HASH_WORDS
from fra.validation.manifest import Manifest

FACES = tuple(column.name for column in fields(FaceStats))
NUMBERS = ("brightness", "contrast", "sharpness", "clipped", "flat", "beton_deviation", *FACES)
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
"""The measurements of a row. A flag is 1 or 0, or NaN where it does not apply, as for a row in no shard."""


@dataclass
class Columns:
    """The measurements of N rows: `numbers` (N,) by name, perceptual `hashes` (N, 4), file `formats` (N,)."""

    numbers: dict[str, NDArray[np.float32]]
    hashes: NDArray[np.uint64]
    formats: NDArray[np.str_]

    @staticmethod
    def blank(count: int) -> Columns:
        """Returns columns of `count` rows without measurements."""
        numbers = {name: np.full(count, np.nan, np.float32) for name in (*NUMBERS, *FLAGS)}
        return Columns(numbers, np.zeros((count, HASH_WORDS), np.uint64), np.full(count, "", dtype="<U8"))

    def put(self, rows: NDArray[np.int64], part: Columns) -> None:
        """Stores the measurements `part` at `rows`."""
        for name, values in part.numbers.items():
            self.numbers[name][rows] = values
        self.hashes[rows] = part.hashes
        self.formats[rows] = part.formats


@dataclass
class ShardFacts:
    """One shard as a file: its number of images, keys missing in the manifest, why it cannot be read."""

    images: int = 0
    unlisted: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class Measures:
    """The measurements of a data set.

    Attributes:
        images: One row per row of the manifest.
        hashes: Perceptual hashes (N, 4).
        files: One row per shard and beton.
        digests: The SHA-256 of each of these files, by path.
    """

    images: pd.DataFrame
    hashes: NDArray[np.uint64]
    files: pd.DataFrame
    digests: dict[str, str]


def measure(
    manifest: Manifest,
    shards: Path,
    betons: list[Path],
    workers: int = 0,
    finder: FaceFinder | None = None,
) -> Measures:
    """Measures all shards and betons of a manifest. Missing and damaged files are measured as such, without an error.

    Args:
        manifest: The manifest.
        shards: The folder of the shards.
        betons: The beton files.
        workers: Number of threads; 0 for one per core.
        finder: Finds the faces in the images; None where they are not searched.
    """
    opened = {path.stem: open_beton(path) for path in betons}
    readable = {split: beton for split, beton in opened.items() if isinstance(beton, Beton)}
    columns = Columns.blank(len(manifest.table))
    columns.numbers["found"][manifest.table["shard"].notna().to_numpy()] = 0
    present = {name: rows for name, rows in manifest.by_shard().items() if (shards / name).is_file()}
    found: dict[str, ShardFacts] = {}

    def work(name: str) -> tuple[Columns, ShardFacts]:
        return measure_shard(shards / name, manifest.rows_of(present[name]), readable, finder)

    total = sum(map(len, present.values()))
    with (
        opencv_in_one_thread(),  # the shards are the parallel part
        ThreadPoolExecutor(worker_count(workers)) as pool,
        tqdm(total=total, unit="image", desc="measure", mininterval=1) as bar,
    ):
        for name, (part, facts) in zip(present, pool.map(work, present), strict=True):
            columns.put(present[name], part)
            found[name] = facts
            bar.update(len(present[name]))
    table = pd.DataFrame({**columns.numbers, "format": pd.array(columns.formats, dtype="str")})
    paths = sorted(shards.glob("*.tar")) + betons
    digests = {path.as_posix(): digest for path, digest in sha256_each(filter(Path.is_file, paths)).items()}
    files = [*shard_files(manifest, shards, found, digests), *beton_files(manifest, betons, opened)]
    names = ("source", "kind", "present", "listed", "problem", "sha256", "sha256_listed", "images")
    more = ("images_listed", "images_indexed", "unlisted")
    return Measures(table, columns.hashes, pd.DataFrame(files, columns=[*names, *more]), digests)


def open_beton(path: Path) -> Beton | BetonError:
    """Returns the beton, or the error that prevents reading it."""
    try:
        return Beton(path)
    except BetonError as error:
        return error


# ---- the images of one shard


def members(shard: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Yields (key, image, annotation), the latter two as bytes, of each record of a tar shard.

    Raises:
        tarfile.TarError: The shard is truncated or no tar file.
        EOFError: The shard is truncated.
    """
    key, content, note = "", b"", b""
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name, _, ending = member.name.rpartition(".")
            stream = tar.extractfile(member)
            if stream is None:
                continue
            if name != key and key:
                yield key, content, note
                content, note = b"", b""
            key = name
            if ending == "json":
                note = stream.read()
            else:
                content = stream.read()
        if key:
            yield key, content, note


def measure_shard(
    path: Path, listed: pd.DataFrame, betons: Mapping[str, Beton], finder: FaceFinder | None
) -> tuple[Columns, ShardFacts]:
    """Measures one shard and compares it with its rows of the manifest, `listed`, in their order."""
    columns, facts = Columns.blank(len(listed)), ShardFacts()
    flags = columns.numbers
    flags["found"][:] = 0
    records: list[dict[Any, Any]] = listed.to_dict("records")
    expected = annotation_json(listed)
    places = {record["key"]: place for place, record in enumerate(records)}
    try:
        for position, (key, content, note) in enumerate(members(path)):
            facts.images += 1
            place = places.get(key)
            if place is None:
                facts.unlisted.append(key)
                continue
            row = records[place]
            flags["found"][place] = 1
            flags["order_fits"][place] = position == place
            flags["bytes_fit"][place] = hashlib.sha256(content).hexdigest() == row["sha256"]
            flags["annotation_fits"][place] = agrees(note, expected[place])
            pixels = measure_image(content, row, place, columns)
            if pixels is not None and finder is not None:
                put(asdict(finder.find(pixels).stats), place, flags)
            beton = betons.get(str(row["split"]))
            if pixels is not None and beton is not None:
                compare_with_beton(pixels, int(row["index"]), beton, place, flags)
    except (tarfile.TarError, EOFError, OSError) as error:
        facts.problem = f"not a whole tar file: {error}"
    return columns, facts


def agrees(found: bytes, expected: bytes) -> bool:
    """Whether the annotation in a shard equals that of the manifest; landmarks up to a hundredth of a pixel."""
    if found == expected:
        return True
    try:
        note, row = json.loads(found), json.loads(expected)
        given, wanted = note.pop("landmarks", []), row.pop("landmarks", [])
        near = len(given) == len(wanted) and np.allclose(given, wanted, rtol=0, atol=0.01, equal_nan=True)
    except (ValueError, AttributeError, TypeError):  # no JSON, or of another structure
        return False
    return bool(near and note == row)


def measure_image(
    content: bytes, row: dict[Any, Any], place: int, columns: Columns
) -> NDArray[np.uint8] | None:
    """Decodes an image and stores its measurements at `place`; returns its pixels, None if it cannot be decoded."""
    flags = columns.numbers
    try:
        pixels = decode(content)
    except ImageError:
        flags["readable"][place] = 0
        return None
    with Image.open(io.BytesIO(content)) as header:
        kind = (header.format or "").lower()
        flags["mode_fits"][place] = header.mode == row["mode"]
    columns.formats[place] = SUFFIX.get(kind, kind)
    flags["readable"][place] = 1
    flags["size_fits"][place] = pixels.shape[:2] == (row["height"], row["width"])
    put(asdict(image_stats.measure(pixels)), place, flags)
    columns.hashes[place] = image_stats.perceptual_hash(pixels)
    return pixels


def put(values: Mapping[str, float], place: int, columns: dict[str, NDArray[np.float32]]) -> None:
    """Stores the measurements of one image at `place`."""
    for name, value in values.items():
        columns[name][place] = value


def compare_with_beton(
    pixels: NDArray[np.uint8], index: int, beton: Beton, place: int, flags: dict[str, NDArray[np.float32]]
) -> None:
    """Stores how far an image differs from its copy in the beton; a missing copy counts as 255."""
    flags["beton_deviation"][place] = 255
    if 0 <= index < len(beton):
        flags["beton_order_fits"][place] = beton.index[index] == index
        try:
            flags["beton_deviation"][place] = image_stats.deviation(pixels, beton.pixels(index))
        except BetonError:
            return


def hash_images(
    table: pd.DataFrame, shards: Path, workers: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Returns perceptual hashes (N, 4) of a manifest's rows, and which of them (N,) could be read from the shards."""
    rows = table.assign(place=range(len(table)))[["key", "shard", "place"]]
    places = {
        str(shard): dict(zip(part["key"], part["place"], strict=True))
        for shard, part in rows.groupby("shard")
    }
    hashes, readable = np.zeros((len(table), HASH_WORDS), np.uint64), np.zeros(len(table), bool)

    def work(shard: str) -> None:
        try:
            for key, content in images.members(shards / shard, set(places[shard])):
                with suppress(ImageError):
                    hashes[places[shard][key]] = image_stats.perceptual_hash(decode(content))
                    readable[places[shard][key]] = True
        except (tarfile.TarError, EOFError, OSError):
            return  # the rest of a damaged shard

    with opencv_in_one_thread(), ThreadPoolExecutor(worker_count(workers)) as pool:
        list(pool.map(work, places))
    return hashes, readable


# ---- shards and betons as files


def shard_files(
    manifest: Manifest, shards: Path, found: dict[str, ShardFacts], digests: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yields one row per shard that is on disk, in the manifest or in index.json: its listed and actual contents."""
    listed, entries = manifest.by_shard(), indexed(shards / "index.json")
    on_disk = {path.name for path in shards.glob("*.tar")}
    for name in sorted({*listed, *entries, *on_disk}):
        path, entry, seen = (shards / name).as_posix(), entries.get(name, {}), found.get(name)
        yield {
            "source": path,
            "kind": "shard",
            "present": name in on_disk,
            "listed": name in listed,
            "problem": seen.problem if seen else None,
            "sha256": digests.get(path),
            "sha256_listed": entry.get("sha256"),
            "images": seen.images if seen else None,
            "images_listed": len(listed.get(name, ())),
            "images_indexed": entry.get("images"),
            "unlisted": ", ".join(seen.unlisted[:3]) if seen and seen.unlisted else None,
        }


def indexed(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the entry of each shard in index.json; empty where the file is missing or no index."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"].values()
        return {str(entry["name"]): entry for split in splits for entry in split["shards"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def beton_files(
    manifest: Manifest, betons: list[Path], opened: Mapping[str, Beton | BetonError]
) -> Iterator[dict[str, Any]]:
    """Yields one row per beton that is present or, where any is present, expected."""
    if not betons:
        return
    table = manifest.table
    expected = table.loc[table["shard"].notna(), "split"].value_counts().to_dict()
    for split in sorted({*opened, *expected}, key=str):
        beton = opened.get(str(split))
        yield {
            "source": betons[0].with_name(f"{split}.beton").as_posix(),
            "kind": "beton",
            "present": beton is not None,
            "listed": split in expected,
            "problem": str(beton) if isinstance(beton, BetonError) else None,
            "images": len(beton) if isinstance(beton, Beton) else None,
            "images_listed": int(expected.get(split, 0)),
        }
