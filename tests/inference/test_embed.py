from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import fra
from fra.bench.embedding import embedding
from fra.inference.embed import embed, read, search
from fra.inference.image_files import Unread, batches, find


def names(*places: str) -> list[str]:
    return [file.name for file in find(places)]


def test_images_are_found_wherever_they_lie(faces: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(faces / "a/00.png", "x/00.png")
        tar.add(faces / "a/00.png", "x/00.json")
    assert len(names(str(faces))) == 20
    assert names(str(faces / "a/00.png"), f"{faces}/b/*.jpg")[0] == str(faces / "a/00.png")
    assert len(names(f"{faces}/b/*.jpg")) == len(names(f"{faces}/**/*.jpg")) == 10
    assert names(str(tmp_path / "shard.tar")) == [f"{tmp_path}/shard.tar/x/00.png"]
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        names(str(faces / "nobody"))


def test_batches_keep_order_and_name_what_is_no_image(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("no image")
    unread = Unread()
    found = list(batches([str(faces / "a"), str(tmp_path)], 32, 4, unread))
    assert [len(batch.names) for batch in found] == [4, 4, 2]
    assert [name for batch in found for name in batch.names] == sorted(names(str(faces / "a")))
    assert list(unread.reasons) == [str(tmp_path / "words.jpg")]


def test_a_pipe_is_never_read(faces: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    unread = Unread()
    assert len(list(batches([str(tmp_path / "pipe.jpg"), str(faces / "a")], 32, 64, unread))) == 1
    assert "not a plain file" in unread.reasons[str(tmp_path / "pipe.jpg")]


def test_released_weights_go_by_their_name(faces: Path, tmp_path: Path) -> None:
    embed([str(faces)], Path("demo"), tmp_path / "out.parquet")
    assert read(tmp_path / "out.parquet").embeddings_ND.shape == (20, 128)
    assert len(search(faces / "a/00.png", tmp_path / "out.parquet", Path("demo"))) == 5


def test_weights_that_are_not_there_are_one_clear_error(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nobody: no such weights file.* released weights .*\(demo\)"
    ):
        embed([str(faces)], Path("nobody"), tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_file_of_embeddings_is_what_the_encoder_says(
    suffix: str, faces: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"faces{suffix}"
    assert embed([str(faces)], model, out, batch_size=7).reasons == {}
    gallery = read(out)
    expected = fra.load(model).embed([Path(name) for name in gallery.names])
    assert len(gallery.names) == 20
    torch.testing.assert_close(torch.from_numpy(np.array(gallery.embeddings_ND)), expected)


def test_a_face_is_nearest_to_itself(faces: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces.parquet"
    embed([str(faces)], model, out)
    near = search(faces / "a/04.png", out, model, count=3)
    assert len(near) == 3
    assert near[0].name == str(faces / "a/04.png")
    assert near[0].cosine == pytest.approx(1, abs=1e-5)
    assert near[0].cosine > near[1].cosine >= near[2].cosine


def test_embeddings_of_other_weights_are_refused(faces: Path, model: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "faces.npz", tmp_path / "other.safetensors"
    embed([str(faces)], model, out)
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(ValueError, match="was made with other weights"):
        search(faces / "a/04.png", out, other)
    with pytest.raises(ValueError, match="holds no embeddings"):
        read(other)
    with pytest.raises(ValueError, match="ends in"):
        embed([str(faces)], model, tmp_path / "faces.csv")


def test_the_command_writes_the_rest_and_names_what_is_no_image(
    faces: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-m", "pipelines.cli", "embed", str(faces), str(tmp_path / "empty.png")]
    done = subprocess.run(
        [*command, "-o", str(out), "-w", str(model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"not an image: {tmp_path}/empty.png: the file is empty (0 bytes)" in done.stderr
    assert len(read(out).names) == 20


def test_the_benchmark_says_what_it_promises() -> None:
    found = embedding(None, "mini", 48, images=20, batch_size=8, rounds=1)
    assert (found["backbone"], found["image_size"], found["images"]) == ("mini", 48, 20)
    assert found["of_bare"] == pytest.approx(
        found["embed_images_per_second"] / found["bare_images_per_second"]
    )
