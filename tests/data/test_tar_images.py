"""Which members of WebDataset tars become images: one per sample, and everything else is counted."""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.images import decode
from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.inference.image_files import find


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), level).save(stream, "PNG")
    return stream.getvalue()


def archive(path: Path, *members: tuple[str, bytes | None, str]) -> str:
    """A tar of (name, content, link target): links have no content; a target that begins with `=` is a hard link."""
    with tarfile.open(path, "w") as tar:
        for name, content, target in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.LNKTYPE if target.startswith("=") else tarfile.SYMTYPE
                info.linkname = target.removeprefix("=")
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(path)


def levels(urls: str, tmp_path: Path, **options: str) -> dict[str, int]:
    """The grey level of each image of the shards that are made of these tars, by key."""
    config = DatasetConfig("web", "webdataset", urls=urls, **options)  # type: ignore[arg-type]
    records = ingest(config, tmp_path / "raw")
    out = tmp_path / "out"
    manifest = write(
        records, tmp_path, out, tmp_path / "m.parquet", ShardConfig(workers=1), tmp_path / "state"
    )
    assert manifest["error"].isna().all()
    with tarfile.open(out / "train-000000.tar") as tar:
        names = [name for name in tar.getnames() if not name.endswith(".json")]
        return {
            name.rpartition(".")[0]: int(decode(tar.extractfile(name).read())[0, 0, 0])  # type: ignore[union-attr]
            for name in names
        }


def test_a_sample_has_one_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The member without a further dot; a mask is no face."""
    caplog.set_level(logging.INFO)
    urls = archive(
        tmp_path / "faces.tar",
        *[
            (f"a/{n}.{kind}", png(10 * n + extra), "")
            for n in (1, 2)
            for extra, kind in enumerate(("seg.png", "jpg"))
        ],
        ("a/1.json", b"{}", ""),
        ("a/1.cls", b"3", ""),
    )
    assert levels(urls, tmp_path) == {"faces/a/1": 11, "faces/a/2": 21}
    assert "skipped 2 further images of a sample (.seg.png), 1 .json, 1 .cls" in caplog.text


MEMBERS = (("x.left.jpg", png(1), ""), ("x.right.jpg", png(2), ""), ("x.seg.png", png(3), ""))


def test_the_image_of_a_sample_is_a_parameter(tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", *MEMBERS)
    assert levels(urls, tmp_path, member="right.jpg") == {"faces/x": 2}
    with pytest.raises(
        ValueError, match=r"'x' has 3 images \(left\.jpg, right\.jpg, seg\.png\): set dataset\.member"
    ):
        levels(urls, tmp_path)


def test_a_sample_is_in_one_split_whichever_member_is_used(tmp_path: Path) -> None:
    members = [(name.replace("x", str(n)), content, "") for n in range(40) for name, content, _ in MEMBERS]
    urls = archive(tmp_path / "faces.tar", *members)
    splits = []
    for member in ("left.jpg", "seg.png"):
        config = DatasetConfig("web", "webdataset", urls=urls, member=member, val=0.3, test=0.3)
        records = ingest(config, tmp_path / member)
        splits.append(dict(zip(records["key"], records["split"], strict=True)))
    assert splits[0] == splits[1]
    assert set(splits[0].values()) == {"train", "val", "test"}


def test_links_inside_a_tar_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """GNU tar stores a second name of the same file as a hard link, without its bytes."""
    urls = archive(
        tmp_path / "faces.tar",
        ("a/1.png", png(7), ""),
        ("b/hard.png", None, "=a/1.png"),
        ("b/soft.png", None, "../a/1.png"),
        ("b/chain.png", None, "hard.png"),
        ("b/loop.png", None, "loop.png"),
        ("b/out.png", None, "=/etc/passwd"),
    )
    assert levels(urls, tmp_path) == {f"faces/{name}": 7 for name in ("a/1", "b/hard", "b/soft", "b/chain")}
    assert "skipped 2 links to nothing in the tar" in caplog.text


def test_hidden_files_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    urls = archive(
        tmp_path / "faces.tar",
        ("./1.png", png(7), ""),
        ("./._1.png", b"\0\5\x16\7 resource fork", ""),
        ("__MACOSX/._1.png", b"\0\5\x16\7 resource fork", ""),
        (".cache/2.png", png(8), ""),
    )
    assert levels(urls, tmp_path) == {"faces/1": 7}
    assert "skipped 3 hidden (such as ._* of macOS)" in caplog.text


def test_a_later_file_replaces_an_earlier_one_of_the_same_name(tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", ("1.png", png(1), ""), ("1.png", png(2), ""))
    assert levels(urls, tmp_path) == {"faces/1": 2}


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/etc/out.png", "../notes.txt"])
def test_names_that_lead_out_are_refused_at_every_entrance(name: str, tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", ("1.png", png(1), ""), (name, png(2), ""))
    with pytest.raises(ValueError, match=r"faces\.tar: '.*(out\.png|notes\.txt)' leads out of the set"):
        ingest(DatasetConfig("web", "webdataset", urls=urls), tmp_path / "raw")
    with pytest.raises(ValueError, match="leads out of the set"):
        list(find([urls]))


def test_all_images_of_a_tar_can_be_embedded(tmp_path: Path) -> None:
    urls = archive(tmp_path / "faces.tar", *MEMBERS, ("y.png", None, "=x.seg.png"), ("._z.png", b"x", ""))
    found = {file.name.removeprefix(f"{urls}/"): decode(file.read())[0, 0, 0] for file in find([urls])}
    assert found == {"x.left.jpg": 1, "x.right.jpg": 2, "x.seg.png": 3, "y.png": 3}


def test_names_with_dots_are_explained(tmp_path: Path) -> None:
    """Such as `J. Doe_1.jpg` and `J. Roe_1.jpg`: for WebDataset they are one sample `J`."""
    tar = archive(tmp_path / "a.tar", *((f"J. {name}oe_1.png", png(1), "") for name in "DR"))
    with pytest.raises(ValueError, match=r"'J' has 2 images \( Doe_1.png,  Roe_1.png\): .* rename them"):
        levels(tar, tmp_path)


@pytest.mark.parametrize("members", [3, 2])
def test_a_tar_without_its_end_is_reported(
    members: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a writer leaves it that was killed, or a copy that stopped between two members."""
    path = Path(archive(tmp_path / "a.tar", *((f"{name}.png", png(name), "") for name in range(3))))
    levels(str(path), tmp_path)
    assert "end mark" not in caplog.text
    with tarfile.open(path) as tar:
        members_of = list(tar)
        end = members_of[members].offset if members < 3 else tar.offset
    path.write_bytes(path.read_bytes()[:end])
    assert len(levels(str(path), tmp_path)) == members
    assert f"a.tar: has no end mark after {members} files" in caplog.text
