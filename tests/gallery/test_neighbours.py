"""Neighbours and the index file: compared with all pairs in double precision."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from fra.data.images import resize
from fra.faces.detect import Face
from fra.gallery import neighbours, pixels
from fra.gallery.embed import embed
from fra.gallery.exact import by_comparison
from fra.gallery.files import Match, read, table_of, write, write_tables
from fra.gallery.neighbours import (
    RECALL,
    among,
    build,
    by_index,
    describe,
    index_path,
    mean_of,
    open_index,
    take,
    unit,
    write_index,
)
from fra.gallery.search import Result, nearest, search_entries, search_images
from fra.gallery.sheet import EMPTY, MARGIN, SIDE, TEXT, draw_sheet
from fra.inference.image_files import Source, members
from pipelines.cli.main import app


def clustered(rows: int, size: int) -> NDArray[np.float32]:
    """Persons with six images each, in a spectrum that decays as that of embeddings."""
    generator = np.random.default_rng(0)
    scale_D = np.arange(1, size + 1) ** -0.5
    persons = generator.normal(size=(rows // 6, size)) * scale_D
    images = persons[generator.integers(0, len(persons), rows)]
    found: NDArray[np.float32] = (images + 0.5 * scale_D * generator.normal(size=(rows, size))).astype(
        np.float32
    )
    return found


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery in several parts, as `fra embed` writes it, with its index."""
    rows_ND = clustered(3000, 128)
    path = tmp_path_factory.mktemp("gallery") / "faces.arrow"
    sources = [Source(f"{number}.png") for number in range(len(rows_ND))]
    parts = (table_of(sources[at : at + 700], rows_ND[at : at + 700], False) for at in range(0, 3000, 700))
    write_tables(parts, len(rows_ND), {"weights": "0"}, path)
    write_index(path)
    return path


def test_neighbours_are_those_of_all_pairs_and_the_index_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    unit_ND = unit(clustered(1500, 32))
    cosine_NN = unit_ND.astype(np.float64) @ unit_ND.T.astype(np.float64)
    np.fill_diagonal(cosine_NN, -np.inf)
    expected = np.argsort(-cosine_NN, axis=1)[:, :5]
    exact = among(unit_ND, 5)
    assert (exact.row_QK == expected).mean() > 0.999
    assert exact.cosine_QK == pytest.approx(np.take_along_axis(cosine_NN, exact.row_QK, 1), abs=1e-6)
    monkeypatch.setattr(neighbours, "EXACT", 100)
    monkeypatch.setattr(neighbours, "RECALL_AMONG", 0.99)
    near = among(unit_ND, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(near.row_QK, expected, strict=True)]) > 0.97
    assert near.cosine_QK == pytest.approx(np.take_along_axis(cosine_NN, near.row_QK, 1), abs=1e-6)
    assert among(unit_ND[:1], 5).row_QK.shape == (1, 0)


def test_search_by_index_gives_the_exact_result(gallery: Path) -> None:
    """All lists are searched: what is left are codes and the exact cosines of the candidates."""
    known, opened = read(gallery), open_index(gallery)
    assert opened is not None
    opened.lists.nprobe = opened.lists.nlist
    np.testing.assert_array_equal(opened.mean_D, mean_of(known))
    query = np.random.default_rng(1).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    exact = nearest([query, query[::-1]], known, Path("demo"), 4)
    found = nearest([query, query[::-1]], known, Path("demo"), 4, opened)
    assert [[one.name for one in row] for row in found] == [[one.name for one in row] for row in exact]
    assert found[0][0].cosine == pytest.approx(exact[0][0].cosine, abs=1e-6)


def test_the_index_searches_as_many_lists_as_its_recall_needs(gallery: Path) -> None:
    """The recall that it states holds for queries that it has not seen, too."""
    known, opened, about = read(gallery), open_index(gallery), describe(index_path(gallery))
    assert opened is not None
    assert about is not None
    assert about.recall >= RECALL
    assert opened.lists.nprobe < opened.lists.nlist
    rows_ND = known.embeddings_ND
    noise_QD = 0.1 * np.random.default_rng(2).normal(size=(200, 128)) * np.arange(1, 129) ** -0.5
    query_QD = unit((rows_ND[:200] + noise_QD).astype(np.float32) - opened.mean_D)
    expected = np.argsort(-query_QD @ unit(rows_ND - opened.mean_D).T, axis=1)[:, :10]
    found = by_index(opened, known, query_QD, 10)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(found.row_QK, expected, strict=True)]
    assert np.mean(shared) > 0.93
    np.testing.assert_array_equal(take(known, np.array([2999, 0, 700, 1])), rows_ND[[2999, 0, 700, 1]])


def test_enough_proposals_are_not_compared_with_all_rows(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One list has fewer rows than the candidates that are asked for, but more than the results."""
    known, opened = read(gallery), open_index(gallery)
    assert opened is not None
    opened.lists.nprobe = 1
    query_QD = unit(known.embeddings_ND[:3] - opened.mean_D)
    monkeypatch.setattr("fra.gallery.neighbours.by_comparison", None)
    assert by_index(opened, known, query_QD, 5).row_QK[:, 0].tolist() == [0, 1, 2]


def test_more_results_than_the_searched_lists_have_rows(gallery: Path) -> None:
    """Lists of the index have about fifty rows: queries for more are compared with all rows."""
    known, opened = read(gallery), open_index(gallery)
    assert opened is not None
    opened.lists.nprobe = 1
    query_QD = unit(known.embeddings_ND[:3] - opened.mean_D)
    found = by_index(opened, known, query_QD, 300)
    exact = by_comparison(known, query_QD, 300, opened.mean_D)
    np.testing.assert_array_equal(found.row_QK, exact.row_QK)
    assert found.cosine_QK == pytest.approx(exact.cosine_QK, abs=1e-6)
    unit_ND = unit(known.embeddings_ND[:300] - opened.mean_D)
    small, _ = build(lambda: iter([unit_ND]), len(unit_ND))
    small.nprobe = 1
    np.testing.assert_array_equal(among(unit_ND, 250, small).row_QK, among(unit_ND, 250).row_QK)


def test_entries_of_the_gallery_are_queries(tmp_path: Path) -> None:
    """Equal to cosines in double precision; all faces of an image are queries; an unknown name is one clear error."""
    rows_ND, path = clustered(60, 16), tmp_path / "faces.npz"
    sources = [
        Source(f"{row // 2}.png", row % 2, Face((row, 2, 3, 4), np.zeros((5, 2)), 0.9)) for row in range(60)
    ]
    write(sources, rows_ND, {"weights": "0", "faces": {"crop": "box"}}, path)
    unit_ND = unit(rows_ND.astype(np.float64) - rows_ND.mean(0))
    found = search_entries(["7.png", "3.png"], path, 4)
    rows = [14, 15, 6, 7]
    assert [result.box for result in found] == [[row, 2, 3, 4] for row in rows]
    for row, result in zip(rows, found, strict=True):
        expected = np.argsort(-unit_ND @ unit_ND[row])[:4]
        assert [int(one.name[:-4]) * 2 + (one.face or 0) for one in result.matches] == expected.tolist()
        assert [one.cosine for one in result.matches] == pytest.approx(
            unit_ND[expected] @ unit_ND[row], abs=1e-6
        )
        assert result.matches[0].cosine == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match=r"faces.npz has no image 99.png: its names are like 0.png"):
        search_entries(["7.png", "99.png"], path)


def test_options_without_effect_are_refused(gallery: Path) -> None:
    done = CliRunner().invoke(app, ["search", "--in", str(gallery), "--like", "1.png", "--device", "cpu"])
    assert done.exit_code == 2
    assert "--device has no effect: --like uses no network" in done.output


def test_an_index_of_another_content_is_not_used(
    gallery: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / gallery.name
    copy.write_bytes(gallery.read_bytes())
    index_path(copy).write_bytes(index_path(gallery).read_bytes())
    assert open_index(copy) is not None  # the same bytes at another time
    write([Source("a.png"), Source("b.png")], clustered(12, 128)[:2], {"weights": "0"}, copy)
    assert open_index(copy) is None
    assert "made of another content of faces.arrow" in caplog.text


def test_a_damaged_index_is_not_used(gallery: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy, whole = tmp_path / gallery.name, index_path(gallery).read_bytes()
    shutil.copy(gallery, copy)
    for damaged in (whole[:-5], whole[:-25] + b"?" + whole[-24:], b"none" + whole[4:]):
        index_path(copy).write_bytes(damaged)
        caplog.clear()
        assert open_index(copy) is None
        assert "damaged" in caplog.text


def test_a_sheet_shows_each_query_and_its_results(faces: Path, tmp_path: Path) -> None:
    """One row per query; a picture that was removed since is grey."""
    copy = tmp_path / "faces"
    shutil.copytree(faces, copy)
    embed([str(copy)], Path("demo"), tmp_path / "g.parquet")
    queries = [copy / "a/00.png", copy / "b/01.jpg"]
    found = search_images(queries, tmp_path / "g.parquet", Path("demo"), 3)
    assert [result.matches[0].name for result in found] == list(map(str, queries))
    entries = search_entries(list(map(str, queries)), tmp_path / "g.parquet", 3)
    assert [[one.name for one in result.matches] for result in entries] == [
        [one.name for one in result.matches] for result in found
    ]
    (copy / "b/01.jpg").unlink()
    draw_sheet(entries[:1], tmp_path / "entry.png")
    draw_sheet(found, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        drawn = np.asarray(sheet)
    step = SIDE + TEXT + MARGIN
    left = 4 * MARGIN + SIDE
    first, second = (drawn[MARGIN + row * step :, left:][:SIDE, :SIDE] for row in (0, 1))
    query = drawn[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE]
    np.testing.assert_array_equal(first, query)
    assert (second == EMPTY).all()
    with Image.open(tmp_path / "entry.png") as sheet:
        np.testing.assert_array_equal(np.asarray(sheet)[: SIDE + MARGIN], drawn[: SIDE + MARGIN])
    with pytest.raises(ValueError, match=r"must end in \.png or \.jpg"):
        draw_sheet(found, tmp_path / "sheet.gif")


def test_pictures_of_a_sheet_are_the_crops_of_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the margin of crops; a tar is opened once for all of them, and a missing picture is grey."""
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name in "ab":
            tar.add(tmp_path / "photo.png", f"x/{name}.png")
    opened: list[Path] = []
    monkeypatch.setattr(pixels, "members", lambda path: opened.append(path) or members(path))
    matches = [Match(f"{shard}/x/{name}.png", 1.0, 0, [20, 10, 30, 30]) for name in "abc"]
    draw_sheet([Result(Path("query.png"), photo, None, matches)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        row = np.asarray(sheet)[MARGIN : MARGIN + SIDE]
    starts = [3 * MARGIN + column * (SIDE + MARGIN) for column in (1, 2, 3)]
    first, second, missing = (row[:, start : start + SIDE] for start in starts)
    np.testing.assert_array_equal(first, resize(pixels.crop_box(photo, (20, 10, 30, 30)), SIDE))
    np.testing.assert_array_equal(second, first)
    assert (missing == EMPTY).all()
    assert opened == [shard]
