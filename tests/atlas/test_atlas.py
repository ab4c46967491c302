"""The atlas: its table, its folder, its server, and what a browser without a network shows of it."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.parts import parts_written
from typer.testing import CliRunner

from fra.atlas import viewer
from fra.atlas.annotations import Dataset, of_dataset, read_labels
from fra.atlas.layout import arrange
from fra.atlas.server import server
from fra.atlas.write import make
from fra.data.datasets.key_lists import read_keys
from fra.files import locked_folder
from fra.inference.detection import Detection
from pipelines.cli.main import app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHOUT_WEBGPU = {"Could not request WebGPU adapter", "Could not get WebGPU device"}
"""What the viewer logs before it draws with WebGL 2 instead."""


@pytest.fixture(scope="module")
def labels(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = sorted(path.name for path in faces.rglob("*.*"))
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    pd.DataFrame({"image": names, "mood": ["glad", "sad"] * 10}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def atlas(faces: Path, model: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas") / "map"
    some = [
        str(path) for path in sorted(faces.rglob("*.*"))[:4]
    ]  # too few for UMAP, which compiles for ten seconds
    written = make(some, model, out, labels=labels, clusters=3)
    assert (written.faces, written.unreadable, written.notes) == (4, {}, [])
    return out


@pytest.fixture
def address(atlas: Path) -> Iterator[str]:
    with server(atlas, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()


def test_table_has_a_row_per_face(atlas: Path, faces: Path) -> None:
    table = pq.read_table(atlas / viewer.DATASET)
    assert {"key", "thumbnail", "cluster", "mood", "brightness", "sharpness", "face_score"} <= set(
        table.column_names
    )
    shares = np.stack([table[f"mask_{mask}"].to_numpy() for mask in range(4)])
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    for row in table.to_pylist():
        grey = np.asarray(Image.open(row["key"]).convert("L"), float)
        assert row["brightness"] == pytest.approx(grey.mean(), abs=0.5)
        assert row["mood"] == ("glad", "sad")[int(Path(row["key"]).stem) % 2]
        neighbours = row["__neighbours"]
        assert row["__row"] not in neighbours["ids"]
        assert neighbours["distances"] == sorted(neighbours["distances"])
        assert row["thumbnail"]["bytes"].startswith(b"\xff\xd8")


@pytest.mark.slow
def test_same_embeddings_give_the_same_map() -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed: make test installs it")
    embeddings_ND = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    embeddings_ND[20:] += 3
    first, second = (arrange(embeddings_ND, clusters=2) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert len(set(first.cluster_N[:20])) == len(set(first.cluster_N[20:])) == 1
    assert first.cluster_N[0] != first.cluster_N[20]
    one = arrange(embeddings_ND[:1])
    assert one.position_N2.shape == (1, 2)


def test_manifest_gives_keys_and_reasons(tmp_path: Path) -> None:
    root, manifest, quarantine = tmp_path / "root", tmp_path / "faces.parquet", tmp_path / "quarantine.csv"
    rows = {
        "key": ["a/1", "a/2"],
        "source": ["a/1.jpg", "a/2.jpg"],
        "split": ["train", "test"],
        "person": ["a", "a"],
    }
    pd.DataFrame(rows | {"label.Smiling": [1, None]}).to_parquet(manifest)
    pd.DataFrame(
        {"key": ["a/2"], "split": ["test"], "index": [0], "source": ["a/2.jpg"], "reason": ["too dark"]}
    ).to_csv(quarantine, index=False)
    dataset = Dataset(manifest, quarantine, tmp_path / "shards", root)
    names = [f"{tmp_path}/shards/train-000000.tar/a/1.jpg", f"{root}/a/2.jpg", "/elsewhere/3.jpg"]
    found = of_dataset(names, dataset)
    assert found is not None
    assert found["key"].tolist() == ["a/1", "a/2", "/elsewhere/3.jpg"]
    assert found["quarantined"].fillna("unknown").tolist() == ["no", "too dark", "unknown"]
    assert found["label_Smiling"].fillna(-1).tolist() == [1, -1, -1]
    assert of_dataset(names[2:], dataset) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("picture,mood\na.jpg,1\n", "it needs `image`"),
        ("image,mood\na.jpg,1\na.jpg,2\n", "several lines"),
        ("image,mood\nb.jpg,1\n", "lists none of the images"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_labels(path, ["/faces/a.jpg"], ["/faces/a.jpg"])


def test_what_is_missing_is_found_before_the_work(
    model: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "labels.csv"
    wrong.write_text("picture,mood\na.jpg,1\n")
    with pytest.raises(ValueError, match="it needs `image`"):
        make([str(faces)], model, tmp_path / "map", labels=wrong)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install umap-learn"):
        make([str(faces)], model, tmp_path / "map")
    assert list(tmp_path.iterdir()) == [wrong]


def test_labels_name_images_below_the_folder_of_all(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,mood\nb/1.jpg,glad\na/1.jpg,sad\n")
    names = [f"/faces/{name}" for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg")]
    assert read_labels(path, names, names)["mood"].fillna("").tolist() == ["sad", "", "glad"]
    path.write_text("image,mood\n1.jpg,glad\n")
    with pytest.raises(ValueError, match="file names are not unique here"):
        read_labels(path, names, names)


def test_other_folders_are_not_replaced(model: Path, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        make([str(faces)], model, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_killed_run_keeps_its_embeddings(
    model: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs are interrupted before their second part of the embeddings; the first run's one is not made again."""
    monkeypatch.setattr("fra.gallery.embed.PART", 5)
    for numbers in (["000000"], ["000001"]):
        with monkeypatch.context() as patch:
            written = parts_written(patch, 1)
            with pytest.raises(KeyboardInterrupt):
                make([str(faces)], model, tmp_path / "map")
        assert [part.stem for part in written] == numbers
    assert [path.name for path in tmp_path.iterdir()] == ["..map.parquet.parts"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "labels.csv"), "--labels has no effect: "),
        (("--device", "cpu"), "--device has no effect: "),
        (("--no-serve",), "--no-serve leaves nothing to do: "),
    ],
)
def test_options_without_effect_are_refused(atlas: Path, options: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["atlas", str(atlas), *options], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert message in done.output
    assert "is an atlas, which is shown as it is" in done.output


def test_a_second_process_leaves_the_first_one_alone(model: Path, faces: Path, tmp_path: Path) -> None:
    partial = tmp_path / ".map.partial"
    partial.mkdir()
    with locked_folder(partial), pytest.raises(ValueError, match="another process is writing"):
        make([str(faces)], model, tmp_path / "map")
    assert partial.is_dir()


def test_faces_are_not_searched_for_in_embeddings(model: Path, tmp_path: Path) -> None:
    (tmp_path / "gallery.parquet").touch()
    with pytest.raises(ValueError, match="holds embeddings, which are used as they are"):
        make([str(tmp_path / "gallery.parquet")], model, tmp_path / "map", detection=Detection())


def test_server_refuses_other_names_of_this_machine(address: str) -> None:
    with urllib.request.urlopen(f"{address}data/metadata.json") as answer:
        assert json.load(answer)["isStatic"]
    request = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium")
def test_browser_shows_points_and_pictures_and_saves_a_selection(
    address: str, atlas: Path, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    problems, elsewhere = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                elsewhere.append(request.url)
                if not request.url.startswith((address, "data:", "blob:"))
                else None
            ),
        )
        page.goto(address)
        page.get_by_text("4 points").first.wait_for(timeout=120_000)
        page.wait_for_function(
            "[...document.images].filter((i) => i.naturalWidth).length >= 4", timeout=60_000
        )
        page.get_by_title("Export Selection", exact=True).click()
        with page.expect_download() as download:
            page.get_by_title("Export the selected points").click()
        download.value.save_as(tmp_path / "selection.parquet")
        refused = page.evaluate("fetch('http://127.0.0.2:9/').then(() => 'sent', (error) => 'refused')")
        browser.close()
    table = pq.read_table(atlas / viewer.DATASET, columns=["key"])
    selected = read_keys(tmp_path / "selection.parquet")  # as dataset.exclude reads it
    assert sorted(selected) == sorted(table["key"].to_pylist())
    assert len(selected) == 4
    assert elsewhere in ([], ["http://127.0.0.2:9/"])
    assert refused == "refused"
    assert [
        text for text in problems if text not in WITHOUT_WEBGPU and "Content Security Policy" not in text
    ] == []
