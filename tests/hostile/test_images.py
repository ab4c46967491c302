"""A folder of hostile image files: each bad one is left out with a reason, the others are used."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.data import images
from fra.data.datasets import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.images import ImageError, decode, read_file
from fra.data.shards import beton, write
from fra.data.shards.config import ShardConfig

PICTURE = Image.effect_noise((40, 40), 60).convert("RGB")


def saved(form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """One directory of (tag, type, count, value), and where the next one is said to be."""
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", following)


def resized(content: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame claims another size."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


JPEG, PNG = saved("JPEG"), saved("PNG")
HOSTILE = {
    "bomb.png": (png(60_000, 60_000), "pixels"),
    "deep_bomb.png": (png(7_000, 7_000, rows=bytes(10_000)), "cannot be decoded"),
    "text_bomb.png": (
        png(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))), rows=bytes(60)),
        "large",
    ),
    "bomb.jpg": (resized(JPEG, 65_500, 65_500), "pixels"),
    "flat.jpg": (resized(JPEG, 0, 40), "cannot be decoded|not an image"),
    "bomb.webp": (
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<IBI", 10, 0x2F, 0x0FFFFFFF) + bytes(5),
        "cannot be decoded|not an image|pixels",
    ),
    "bomb.tif": (
        tiff((256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (273, 4, 1, 8)),
        "pixels|cannot be",
    ),
    "loop.tif": (
        tiff((256, 4, 1, 4), (257, 4, 1, 4), (330, 4, 1, 8), following=8),
        "cannot be decoded|not an image",
    ),
    "bomb.bmp": (
        b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 50_000, -50_000, 1, 24) + bytes(24),
        "pixels",
    ),
    "bomb.pgm": (b"P5 99999999 99999999 255\n" + bytes(20), "pixels"),
    "row.bmp": (b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 9_000_000, 1, 1, 24) + bytes(24), "side"),
    "comments.ppm": (b"P6\n" + b"#" * 3_000_000, "cannot be decoded|not an image"),
    "cut.jpg": (JPEG[:200], "cannot be decoded"),
    "cut.webp": (saved("WEBP")[:100], "cannot be decoded|not an image"),
    "swapped.png": (PNG[:33] + PNG[60:] + PNG[33:60], "cannot be decoded|not an image"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n", "not an image"),
    "vector.png": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "not an image",
    ),
    "pickle.jpg": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "not an image"),
}
"""File name → its bytes, and a pattern of the error."""
POLYGLOT = {
    "zip.jpg": JPEG + b"PK\3\4 an archive",
    "html.png": PNG[:-12] + chunk(b"tEXt", b"a\0<script>alert(1)</script>") + PNG[-12:],
    "long_exif.jpg": JPEG[:2]
    + b"".join(b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527) for _ in range(200))
    + JPEG[2:],
    "looping_exif.jpg": saved(
        "JPEG", exif=b"Exif\0\0" + tiff((0x8769, 4, 1, 8), (0x112, 3, 1, 1), following=8)
    ),
    "pointing_exif.jpg": saved("JPEG", exif=b"Exif\0\0" + tiff((0x112, 5, 0xFFFFFFFF, 0xFFFFFF00))),
}
"""Files that are images and something else: the image is kept, the rest is removed."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The manifest of all of them."""
    folder = tmp_path_factory.mktemp("hostile")
    root = folder / "set"
    root.mkdir()
    for name, content in {**POLYGLOT, **{name: content for name, (content, _) in HOSTILE.items()}}.items():
        (root / name).write_bytes(content)
    os.mkfifo(root / "pipe.jpg")
    (root / "broken.jpg").symlink_to("nowhere.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    with (root / "huge.jpg").open("wb") as sparse:
        sparse.truncate(images.MAX_BYTES + 1)
    records = ingest.ingest(DatasetConfig("set", "folder", str(root)), folder / "raw")
    config = ShardConfig(workers=1)
    places = (root, folder / "shards", folder / "m.parquet", config, folder / "state")
    manifest = write.write(records, *places)
    broken = beton.write(manifest, folder / "shards", folder / "beton", config)
    assert set(broken) == {"deep_bomb"}, "decoding finds what the header does not show"
    manifest = write.write(records, *places, broken=broken)
    contents = (folder / "shards/train-000000.tar").read_bytes()
    assert b"script" not in contents
    assert b"PK\3\4" not in contents
    return manifest.set_index("source")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_left_out_with_a_reason(name: str, table: pd.DataFrame) -> None:
    assert pd.isna(table.loc[name, "shard"])
    assert re.search(HOSTILE[name][1], table.loc[name, "error"]), table.loc[name, "error"]


@pytest.mark.parametrize("name", POLYGLOT)
def test_an_image_that_is_also_another_file_is_read(name: str, table: pd.DataFrame) -> None:
    assert table.loc[name, "shard"] == "train-000000.tar"
    assert table.loc[name, ["width", "height"]].tolist() == [40, 40]
    assert table.loc[name, "bytes"] < 10_000


def test_pipes_and_broken_links_are_not_listed(table: pd.DataFrame) -> None:
    assert not {"pipe.jpg", "broken.jpg", "loop.jpg"} & set(table.index)
    assert "bytes are more than" in table.loc["huge.jpg", "error"]


def test_a_bomb_does_not_take_memory() -> None:
    """Every bomb is refused within half a gigabyte on top of Python and its libraries."""
    program = (
        "import resource\nfrom hostile.test_images import HOSTILE\nfrom fra.data.images import ImageError, decode\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 2**29, now + 2**29))\n"
        "for name, (content, _) in HOSTILE.items():\n"
        "    try:\n        decode(content)\n    except ImageError:\n        print(name)\n"
    )
    root = Path(__file__).parents[2]
    paths = {"PYTHONPATH": f"{root}:{root / 'tests'}", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == list(HOSTILE), done.stderr[-2000:]


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_devices_are_not_read(name: str) -> None:
    with pytest.raises(ImageError, match="not a plain file"):
        read_file(name)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a plain file"):
        read_file(tmp_path / "pipe.jpg")


def test_programs_are_never_run_for_an_image() -> None:
    """Pillow would start Ghostscript for PostScript."""
    assert "EPS" not in images.FORMATS
    with pytest.raises(ImageError, match="not an image"):
        decode(HOSTILE["script.jpg"][0])


def ingested(root: Path, **options: bool) -> list[str]:
    listed = ingest.ingest(DatasetConfig("set", "folder", str(root), **options), root.parent / "raw")  # type: ignore[arg-type]
    return listed["source"].tolist()


def test_links_out_of_the_set_are_refused_by_default(tmp_path: Path) -> None:
    root, secret = tmp_path / "set", tmp_path / "private.png"
    root.mkdir()
    secret.write_bytes(PNG)
    (root / "inside.png").write_bytes(PNG)
    (root / "again.png").symlink_to("inside.png")
    assert ingested(root) == ["again.png", "inside.png"]
    (root / "out.png").symlink_to(secret)
    with pytest.raises(ValueError, match=r"out\.png: a link that leads out .* dataset.follow_links=true"):
        ingested(root)
    assert "out.png" in ingested(root, follow_links=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"new\nline.png", r"'new\\nline.png' has a control character in it: rename it"),
        (b"\x1b[2Jclear.png", r"has a control character in it"),
        (b"caf\xe9.png", r"'caf\\udce9.png' is not UTF-8: rename it"),
    ],
)
def test_names_that_are_not_text_are_refused(name: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (Path(os.fsencode(tmp_path / "set").decode()) / os.fsdecode(name)).write_bytes(PNG)
    with pytest.raises(ValueError, match=message) as error:
        ingested(tmp_path / "set")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name", ["ü,'\"&<b>.png", "50% off; rm -rf ~.png", "-rf.png", "$(id).png", "con\u202ftrol.png"]
)
def test_unusual_names_are_accepted(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(PNG)
    assert ingested(tmp_path / "set") == [name]


def test_a_decoded_image_is_the_same_with_and_without_its_hostile_part() -> None:
    assert all(
        np.array_equal(decode(content), decode(PNG if name.endswith("png") else JPEG))
        for name, content in POLYGLOT.items()
    )
