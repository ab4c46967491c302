from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.workspace import run_fra

import fra
from fra.bench.embedding import compare_embedding
from fra.gallery.embed import embed
from fra.gallery.files import read, write
from fra.gallery.search import nearest, search_images
from fra.inference.image_files import Skipped, Source, batches, expand, find
from fra.weights import released


def names(*places: str) -> list[str]:
    return [file.name for file in find(places)]


def test_images_are_found_in_files_folders_patterns_and_shards(faces: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(faces / "a/00.png", "x/00.png")
        tar.add(faces / "a/00.png", "x/00.json")
    assert len(names(str(faces))) == 20
    assert names(str(faces / "a/00.png"), f"{faces}/b/*.jpg")[0] == str(faces / "a/00.png")
    assert len(names(f"{faces}/b/*.jpg")) == len(names(f"{faces}/**/*.jpg")) == 10
    assert names(str(tmp_path / "shard.tar")) == [f"{tmp_path}/shard.tar/x/00.png"]
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        names(str(faces / "nobody"))


def test_batches_keep_order_and_report_unreadable_files(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("no image")
    skipped = Skipped()
    found = list(batches([str(faces / "a"), str(tmp_path)], 32, 4, skipped))
    assert [len(batch.sources) for batch in found] == [4, 4, 2]
    assert [source.name for batch in found for source in batch.sources] == sorted(names(str(faces / "a")))
    assert list(skipped.unreadable) == [str(tmp_path / "words.jpg")]


def test_a_pipe_is_never_read(faces: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    skipped = Skipped()
    assert len(list(batches([str(tmp_path / "pipe.jpg"), str(faces / "a")], 32, 64, skipped))) == 1
    assert "not a plain file" in skipped.unreadable[str(tmp_path / "pipe.jpg")]


def test_released_weights_are_used_by_name(faces: Path, tmp_path: Path) -> None:
    embed([str(faces)], Path("demo"), tmp_path / "out.parquet")
    assert read(tmp_path / "out.parquet").embeddings_ND.shape == (20, 128)
    (found,) = search_images([faces / "a/00.png"], tmp_path / "out.parquet", Path("demo"))
    assert len(found.matches) == 5


def test_missing_weights_are_one_clear_error(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nobody: no such weights file.* released weights .*\(demo\b"
    ):
        embed([str(faces)], Path("nobody"), tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".npz"])
def test_file_of_embeddings_equals_the_encoder(suffix: str, faces: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / f"faces{suffix}"
    assert embed([str(faces)], model, out, batch_size=7).unreadable == {}
    gallery = read(out)
    expected = fra.load(model).embed([Path(name) for name in gallery.names])
    assert len(gallery.names) == 20
    torch.testing.assert_close(torch.from_numpy(np.array(gallery.embeddings_ND)), expected)


def test_weights_that_were_replaced_are_read_again(faces: Path, model: Path, tmp_path: Path) -> None:
    image, weights, out = faces / "a/00.png", tmp_path / "model.safetensors", tmp_path / "out.npz"
    for source in (model, released.find("demo")):
        shutil.copy(source, weights)
        embed([str(image)], weights, out)
        found, expected = read(out).embeddings_ND, fra.load(source).embed([image])
        torch.testing.assert_close(torch.from_numpy(np.array(found)), expected)


def test_a_face_is_nearest_to_itself(faces: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces.parquet"
    embed([str(faces)], model, out)
    near = search_images([faces / "a/04.png"], out, model, count=3)[0].matches
    assert len(near) == 3
    assert near[0].name == str(faces / "a/04.png")
    assert near[0].cosine == pytest.approx(1, abs=1e-5)
    assert near[0].cosine > near[1].cosine >= near[2].cosine


def test_search_is_exact_in_every_format_and_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines after subtraction of the mean; equal ones in the order of the rows."""
    monkeypatch.setattr("fra.gallery.files.ROWS", 7)
    rows_ND = np.random.default_rng(0).normal(1, 1, (50, 128)).astype(np.float32)
    rows_ND[30] = rows_ND[10]
    sources = [Source(f"{number}.png") for number in range(50)]
    query = np.random.default_rng(1).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    centred_ND = (rows_ND - rows_ND.mean(0)).astype(np.float64)
    value_D = fra.load("demo").embed([query])[0].numpy() - rows_ND.mean(0)
    cosine_N = (
        centred_ND @ value_D / np.linalg.norm(centred_ND, axis=1) / np.linalg.norm(value_D.astype(np.float64))
    )
    for suffix in (".parquet", ".arrow", ".npz"):
        write(sources, rows_ND, {"weights": "0"}, tmp_path / f"rows{suffix}")
        near = nearest([query], read(tmp_path / f"rows{suffix}"), Path("demo"), 50)[0]
        assert [one.name for one in near] == [
            f"{row}.png" for row in np.argsort(-cosine_N.astype(np.float32), kind="stable")
        ]
        assert [one.cosine for one in near] == pytest.approx(np.sort(cosine_N)[::-1].tolist(), abs=1e-6)
        few = nearest([query], read(tmp_path / f"rows{suffix}"), Path("demo"), 3)[0]
        assert few == near[:3]


def test_embeddings_of_other_weights_are_refused(faces: Path, model: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "faces.npz", tmp_path / "other.safetensors"
    embed([str(faces)], model, out)
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(ValueError, match="was made with other weights"):
        search_images([faces / "a/04.png"], out, other)
    with pytest.raises(ValueError, match="not a file of embeddings"):
        read(other)
    with pytest.raises(ValueError, match="must end in"):
        embed([str(faces)], model, tmp_path / "faces.csv")


def test_command_writes_the_others_and_reports_unreadable_files(
    faces: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    out = tmp_path / "out.parquet"
    images = (str(faces), str(tmp_path / "empty.png"))
    done = run_fra(tmp_path, "embed", *images, "-o", str(out), "-w", str(model))
    assert done.returncode == 1
    assert f"not an image: {tmp_path}/empty.png: the file is empty (0 bytes)" in done.stdout
    assert len(read(out).names) == 20


def test_wrong_paths_are_refused_before_the_model_is_loaded(faces: Path, tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.safetensors", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        ValueError, match=r"faces\.csv: the output file must end in \.parquet or \.arrow or \.npz"
    ):
        embed([str(faces)], missing, tmp_path / "faces.csv")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        embed([str(faces)], missing, faces / "a/00.png" / "out.npz")
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        embed([str(tmp_path / "nothing")], missing, tmp_path / "out.npz")
    with pytest.raises(
        FileNotFoundError, match=r"empty: no image in this folder .*give a folder of images"
    ) as error:
        embed([str(empty)], missing, tmp_path / "out.npz")
    assert "dataset.root" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_search_refuses_an_unreadable_query_before_the_model_is_loaded(
    faces: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.npz"
    embed([str(faces)], model, out)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(FileNotFoundError, match=r"absent\.png: no such image file"):
        search_images([tmp_path / "absent.png"], out, model)
    with pytest.raises(ValueError, match=r"text\.jpg: not an image"):
        search_images([tmp_path / "text.jpg"], out, model)


def test_benchmark_reports_its_settings_and_ratio() -> None:
    found = compare_embedding(None, "mini", 48, images=20, batch_size=8, rounds=1)
    assert (found["backbone"], found["image_size"], found["images"]) == ("mini", 48, 20)
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])


def test_a_pattern_may_go_through_folders_with_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "faces [2024] *"
    folder.mkdir()
    (folder / "a.png").touch()
    (folder / "notes.txt").write_text("no image")
    assert list(map(str, expand(f"{folder}/*.png"))) == [str(folder / "a.png")]
    with pytest.raises(FileNotFoundError, match="no file matches it"):
        expand(f"{folder}/*.jpg")
