"""The readers of files of unknown origin, as functions of bytes: for the property-based tests and the fuzzer.

A target passes where its reader returns a valid value or raises what its docstring documents; any other exception is a
finding.
"""

from __future__ import annotations

import atexit
import io
import math
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from data.test_metadata import ANY
from ffcv.reader import Reader
from PIL import Image
from safetensors.torch import save as save_safetensors

from data import test_adapters as layouts
from fra.data.datasets.adapters import webdataset
from fra.data.datasets.checks import check_names
from fra.data.datasets.ingest import ADAPTERS
from fra.data.datasets.record_table import table_of
from fra.data.datasets.records import DatasetConfig, Record
from fra.data.images import ImageError, decode, inspect, read_header
from fra.data.loader.shard_index import train_shards
from fra.data.shards.beton_reader import Beton, BetonError
from fra.data.shards.strip_metadata import without_metadata
from fra.files import write_parquet
from fra.train.checkpoint import Checkpoints
from fra.transfer.verification import read_pairs
from fra.validation import manifest, verdict
from fra.weights import convert
from fra.weights.files import read_weights
from pipelines import params
from pipelines.repo import lock as locks

FOLDER = Path(tempfile.mkdtemp(prefix="hostile-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class Target:
    """`run` reads bytes with one reader. `seeds` are sound inputs; `named`: its refusals must name the file."""

    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], object]


class UnsoundError(Exception):
    """A reader gave a value that it must not give, or a refusal that does not name the file."""


def refusing(
    read: Callable[[Path], object], name: str, *errors: type[Exception]
) -> Callable[[bytes], object]:
    """Reads a file called `name` with these bytes; a refusal, one of `errors`, must name it in one line."""
    path = FOLDER / name

    def run(content: bytes) -> object:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            return read(path)
        except (ValueError, FileNotFoundError, *errors) as error:
            if not any(part in str(error) for part in Path(name).parts):
                raise UnsoundError(f"a refusal that does not name the file: {error!r}") from error
            return None

    return run


# ---- images


def image(content: bytes) -> None:
    """Without metadata it has the same pixels, or is refused; the header gives what decoding gives."""
    try:
        stripped = without_metadata(content)
        after = decode(stripped)
    except ImageError:
        return
    if without_metadata(stripped) != stripped:
        raise UnsoundError("metadata is left")
    info = read_header(stripped)
    if info.format not in ("gif", "tiff") and info != inspect(stripped):
        raise UnsoundError(f"{info} by the header, {inspect(stripped)} decoded")
    try:
        before = decode(content)
    except ImageError:
        return
    if not np.array_equal(before, after):
        raise UnsoundError("other pixels")


# ---- annotations


def sound(records: Iterable[Record], where: Path) -> None:
    """Records can be listed, and every number in them is one."""
    found = list(records)
    check_names(found, where)
    for record in found:
        numbers = [
            *record.labels.values(),
            *record.measures.values(),
            *record.groups.values(),
            *(record.landmarks or ()),
            *(record.box or ()),
        ]
        if not all(math.isfinite(number) for number in numbers):
            raise UnsoundError(f"not finite: {record}")
        if any(label < 0 for label in (*record.labels.values(), *record.groups.values())):
            raise UnsoundError(f"a negative label: {record}")
    table_of(found, [None] * len(found))


def annotation(adapter: str, layout: Callable[[Path], None], name: str) -> Target:
    """The file `name` of a published layout in miniature."""
    root = FOLDER / f"{adapter}-{name.replace('/', '-')}"

    @cache
    def seed() -> bytes:
        layout(root)
        return (root / name).read_bytes()

    config = DatasetConfig("mine", adapter, str(root))
    check = refusing(lambda path: sound(ADAPTERS[adapter](root, config), root), f"{root.name}/{name}")

    def run(content: bytes) -> object:
        seed()
        return check(content)

    return Target(lambda: [seed()], run)


def tar() -> list[bytes]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a/1.jpg", "a/1.json", "é" * 120 + ".png", "b.webp"):
            member = tarfile.TarInfo(name)
            member.size = 30
            archive.addfile(member, io.BytesIO(b"x" * 30))
    plain = stream.getvalue()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    return [plain[:6144], stream.getvalue()]


def urls(content: bytes) -> None:
    """`dataset.urls` as someone may type it: no tar is there."""
    try:
        text = content.decode("utf-8", "replace")
        config = DatasetConfig("mine", "webdataset", urls=str(FOLDER / "urls") + "/" + text)
        for place, _ in enumerate(webdataset.records(FOLDER, config)):
            if place > 3:
                break
    except (ValueError, FileNotFoundError):
        return


# ---- what the pipeline makes, changed by someone


def listing() -> bytes:
    rows = pd.DataFrame(
        {name: ["a", "b"] if kind is str else [1, 2] for name, kind in manifest.REQUIRED.items()}
    )
    rows["landmarks"] = [[1.0, 2.0], None]
    rows["label.Smiling"] = pd.array([0, None], dtype="Int64")
    write_parquet(rows, FOLDER / "seed.parquet")
    return (FOLDER / "seed.parquet").read_bytes()


@cache
def beton_seeds() -> tuple[bytes, ...]:
    """Small betons as the pipeline writes them, pixels raw and as JPEG."""
    from data.conftest import prepare

    root = FOLDER / "faces"
    for number in range(4):
        path = root / f"s{number}" / "1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12 + number, 10), 40).convert("RGB").save(path)
    prepare(root, FOLDER / "prepared")
    return tuple(packed(path) for path in sorted((FOLDER / "prepared/beton").glob("*.beton")))


def packed(path: Path) -> bytes:
    """A beton without the empty room in FFCV's pages of eight megabytes."""
    reader, content = Reader(str(path)), path.read_bytes()
    header, rows, table = reader.header.copy(), reader.metadata.copy(), reader.alloc_table.copy()
    images, moved, data = rows[rows.dtype.names[reader.field_names.index("image")]], {}, b""
    place = header.nbytes + reader.field_descriptors.nbytes + rows.nbytes
    for entry in table:
        old, size = int(entry["ptr"]), int(entry["size"])
        moved[old] = entry["ptr"] = place + len(data)
        data += content[old : old + size]
    images["data_ptr"] = [moved[int(old)] for old in images["data_ptr"]]
    header["alloc_table_ptr"] = place + len(data)
    return b"".join(
        [header.tobytes(), reader.field_descriptors.tobytes(), rows.tobytes(), data, table.tobytes()]
    )


def beton(path: Path) -> None:
    opened = Beton(path)
    for place in range(min(len(opened), 20)):
        try:
            pixels = opened.pixels(place)
        except BetonError:
            continue
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UnsoundError(f"pixels of shape {pixels.shape}")


def weights() -> list[bytes]:
    from fra.weights.released import find

    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    return [save_safetensors(tensors, {"fra": '{"contents": "backbone"}'}), find("demo").read_bytes()[:4096]]


def checkpoint() -> list[bytes]:
    found = []
    for new in (True, False):
        stream = io.BytesIO()
        torch.save(
            {"state_dict": {"a": torch.zeros(2)}, "step": 3}, stream, _use_new_zipfile_serialization=new
        )
        found.append(stream.getvalue())
    return [*found, pickle.dumps({"a": [1, 2.5, "x"]})]


def resumed(path: Path) -> None:
    """A checkpoint that cannot be read is set aside."""
    kept = Checkpoints(FOLDER / "run")
    kept.folder.mkdir(exist_ok=True)
    shutil.copy(path, kept.folder / "step-000000001.pt")
    state = kept.load()
    if state is not None and not isinstance(state, dict):
        raise UnsoundError(f"a state of type {type(state)}")


def lock() -> list[bytes]:
    stage = {
        "cmd": "python",
        "deps": [{"path": "a", "md5": "0"}],
        "outs": [],
        "params": {"params.yaml": {"a": 1}},
    }
    return [yaml.safe_dump({"schema": "2.0", "stages": {"shard": stage}}).encode()]


PROJECT = Path(__file__).parents[2]
TARGETS: dict[str, Target] = {
    "image": Target(lambda: list(ANY), image),
    "rafdb": annotation("rafdb", layouts.rafdb, "basic/EmoLabel/list_patition_label.txt"),
    "affectnet": annotation("affectnet", layouts.affectnet, "Manually_Annotated_file_lists/training.csv"),
    "affectnet expressions": annotation(
        "affectnet", layouts.affectnet_arrays, "train_set/annotations/7_exp.npy"
    ),
    "affectnet arrays": annotation("affectnet", layouts.affectnet_arrays, "train_set/annotations/7_lnd.npy"),
    "fer2013": annotation("fer2013", layouts.fer2013, "fer2013.csv"),
    "ferplus": annotation("ferplus", layouts.ferplus, "fer2013new.csv"),
    "celeba attributes": annotation("celeba", layouts.celeba, "list_attr_celeba.txt"),
    "celeba splits": annotation("celeba", layouts.celeba, "list_eval_partition.txt"),
    "celeba people": annotation("celeba", layouts.celeba, "identity_CelebA.txt"),
    "celeba landmarks": annotation("celeba", layouts.celeba, "list_landmarks_align_celeba.txt"),
    "celeba csv": annotation("celeba", layouts.celeba_kaggle, "list_attr_celeba.csv"),
    "w300": annotation("w300", layouts.w300, "afw/image_0 1.pts"),
    "wflw": annotation(
        "wflw", layouts.wflw, "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
    ),
    "disfa": annotation("disfa", layouts.disfa, "ActionUnit_Labels/SN001/SN001_au1.txt"),
    "bp4d": annotation("bp4d", layouts.bp4d, "AUCoding/AU_OCC/F001_T1.csv"),
    "mpiifacegaze": annotation("mpiifacegaze", layouts.mpiifacegaze, "p00/p00.txt"),
    "table": annotation("table", layouts.table, "labels.csv"),
    "tar": Target(
        tar,
        refusing(
            lambda path: sound(webdataset.members(str(path), DatasetConfig("mine", "webdataset")), path),
            "faces.tar",
        ),
    ),
    "urls": Target(lambda: [b"faces-{000000..000041}.tar", b"{a,b{c,d}}-{1..3..2}.tar"], urls),
    "pairs": Target(
        lambda: [b"1\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\n"], refusing(lambda path: read_pairs(path), "pairs.txt")
    ),
    "manifest": Target(lambda: [listing()], refusing(manifest.read, "manifest.parquet")),
    "verdict": Target(
        lambda: [b'{"success": true, "digest": "0"}'],
        refusing(verdict.read, "verdict.json", verdict.ValidationFailed),
    ),
    "quarantine": Target(
        lambda: [b"key,split,index,source,reason\na,train,1,a.png,broken\n"],
        refusing(verdict.read_quarantine, "quarantine.csv", verdict.ValidationFailed),
    ),
    "index": Target(
        lambda: [b'{"splits": {"train": {"shards": [{"name": "train-000000.tar", "images": 3}]}}}'],
        refusing(lambda path: train_shards(path.parent), "shards/index.json"),
    ),
    "beton": Target(lambda: list(beton_seeds()), refusing(beton, "train.beton", BetonError)),
    "weights": Target(weights, refusing(read_weights, "weights.safetensors")),
    "foreign weights": Target(checkpoint, refusing(convert.read_tensors, "theirs.pt")),
    "checkpoint": Target(checkpoint, refusing(resumed, "step.pt")),
    "params": Target(lambda: [(PROJECT / "params.yaml").read_bytes()], refusing(params.read, "params.yaml")),
    "lock": Target(lock, refusing(lambda path: locks.parse(path.read_bytes()), "dvc.lock")),
}
