"""Tars and annotation files that refer to files outside of the set, or hold invalid values."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from data.test_adapters import affectnet, celeba, fer2013, rafdb, table, wflw
from PIL import Image

from fra.data.datasets import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write
from fra.data.shards.config import ShardConfig

stream = io.BytesIO()
Image.effect_noise((20, 20), 60).save(stream, "PNG")
PNG = stream.getvalue()


def archive(path: Path, *names: str, **fields: object) -> str:
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(PNG) if member.isfile() else None)
    return str(path)


def ingested(tmp_path: Path, **options: str) -> list[str]:
    config = DatasetConfig("set", **options)  # type: ignore[arg-type]
    return ingest.ingest(config, tmp_path / "raw")["key"].tolist()


@pytest.mark.parametrize("name", ["../../out.png", "/etc/cron.d/out.png", "a/../../out.png"])
def test_members_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", "a.png", name)
    with pytest.raises(ValueError, match=r"faces\.tar: '.*out\.png' leads out of the set"):
        ingested(tmp_path, adapter="webdataset", urls=urls)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_not_images(kind: bytes, tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", "a.png", type=kind, linkname="/etc/passwd")
    with pytest.raises(ValueError, match="lists no image"):
        ingested(tmp_path, adapter="webdataset", urls=urls)


def test_a_compressed_tar_is_refused_unread(tmp_path: Path) -> None:
    """It would have to be unpacked for each image; and a small one can hold terabytes."""
    (tmp_path / "faces.tar").write_bytes(
        gzip.compress(Path(archive(tmp_path / "plain", "a.png")).read_bytes())
    )
    with pytest.raises(ValueError, match=r"faces\.tar: not a tar file, or a compressed one"):
        ingested(tmp_path, adapter="webdataset", urls=str(tmp_path / "faces.tar"))


@pytest.mark.parametrize(
    "urls", ["/a-{0..9999999999}.tar", "/{0..9999}{0..9999}.tar", "/" + "{a,b}" * 40, "/" + "{a..z}" * 9]
)
def test_braces_cannot_name_millions(urls: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names more than 1,000,000 tars"):
        ingested(tmp_path, adapter="webdataset", urls=urls)


def test_many_tars_are_accepted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"faces-000000\.tar: no such shard"):
        ingested(tmp_path, adapter="webdataset", urls=f"{tmp_path}/faces-{{000000..099999}}.tar")


def test_a_password_in_a_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="urls has a password in it: put it into the environment") as error:
        DatasetConfig("set", "webdataset", urls="https://ann:swordfish@example.org/faces.tar")
    assert "swordfish" not in str(error.value)


def test_the_manifest_holds_only_the_names_of_tars(tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", "a.png")
    records = ingest.ingest(DatasetConfig("set", "webdataset", urls=urls), tmp_path / "raw")
    out = tmp_path / "out"
    made = write.write(
        records, tmp_path, out, tmp_path / "m.parquet", ShardConfig(workers=1), tmp_path / "state"
    )
    assert made["source"].tolist() == ["faces.tar"]
    assert made["error"].isna().all()


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


POINTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
CASES = {
    "a path out of the set": (table, "table", "labels.csv", "a/1.png", "../../1.png", r"'\.\./\.\./1\.png' leads out"),
    "an absolute path": (table, "table", "labels.csv", "a/1.png", "/etc/passwd.png", "'/etc/passwd.png' leads out"),
    "a folder for an image": (table, "table", "labels.csv", "a/1.png", "a", "a: not a plain file"),
    "NaN as a landmark": (table, "table", "labels.csv", "5,6,7,8", "5,nan,7,8", r"labels\.csv: line 4: .*nan"),
    "an infinite angle": (table, "table", "labels.csv", "-12.5", "1e999", r"labels\.csv: line 2: .*1e999"),
    "a class beyond all": (table, "table", "labels.csv", "anna,1", "anna,99999999999999999999", r"labels\.csv: line 2"),
    "NaN in a list of points": (wflw, "wflw", POINTS, "101.250000", "nan", r"list_98pt_rect_attr_test\.txt: line 1"),
    "a negative class": (fer2013, "fer2013", "fer2013.csv", "\n1,", "\n-1,", "line 3: expected an emotion of 0 to 6"),
    "two classes in one": (
        rafdb, "rafdb", "basic/EmoLabel/list_patition_label.txt", "jpg 5", "jpg 12", "line 1: expected"
    ),
    "a million columns": (
        celeba, "celeba", "list_attr_celeba.txt", "Attribute_3 ", "x " * 1_000_000, "line 2: expected 40 names"
    ),
    "a pixel of 300": (fer2013, "fer2013", "fer2013.csv", " 255 ", " 300 ", "line 2: expected emotion, pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_invalid_annotation_is_refused(name: str, tmp_path: Path) -> None:
    layout, adapter, file, old, new, message = CASES[name]
    layout(tmp_path / "set")
    (tmp_path / "set" / "a").mkdir(exist_ok=True)
    changed(tmp_path / "set" / file, old, new)
    with pytest.raises(ValueError, match=message) as error:
        ingested(tmp_path, adapter=adapter, root=str(tmp_path / "set"))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image\n" + b"x" * 200_000 + b"\n", "not a table of comma-separated values"),
        (b"image\n\xff\xfe\n", "not UTF-8 text"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"labels\.csv: {message}"):
        ingested(tmp_path, adapter="table", root=str(tmp_path))


def test_a_list_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(ValueError, match=r"labels\.csv: neither file nor folder"):
        ingested(tmp_path, adapter="table", root=str(tmp_path))


def test_a_negative_box_is_kept_inside_the_image(tmp_path: Path) -> None:
    affectnet(tmp_path / "set")
    changed(tmp_path / "set/Manually_Annotated_file_lists/training.csv", "1,1,18,18", "-5,-9,-1,-1")
    assert len(ingested(tmp_path, adapter="affectnet", root=str(tmp_path / "set"))) == 3
