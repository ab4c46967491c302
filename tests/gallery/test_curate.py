"""Rules of curation on planted faults, and the list that they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from fra.bench.curate import copy_of
from fra.data.images import to_jpeg
from fra.gallery.curation.balance import balanced, evenly
from fra.gallery.curation.suggest import curate
from fra.gallery.files import write
from fra.inference.image_files import Source


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four persons with 30 images each; then five copies, four outliers; three labels are wrong."""
    generator = np.random.default_rng(0)
    persons = 8 + np.repeat(3 * generator.normal(size=(4, 32)), 30, axis=0)
    images = persons + generator.normal(size=persons.shape)
    copies = images[:5] + 0.01 * generator.normal(size=(5, 32))
    strange = 8 * generator.normal(size=(4, 32))
    names = [f"faces/p{row // 30}/{row:03d}.png" for row in range(120)]
    names += [f"faces/copy/{row}.png" for row in range(5)] + [f"faces/strange/{row}.png" for row in range(4)]
    folder = tmp_path_factory.mktemp("planted")
    rows = np.concatenate([images, copies, strange]).astype(np.float32)
    write([Source(name) for name in names], rows, {"weights": "0"}, folder / "g.arrow")
    wrong = {0: 2, 40: 3, 80: 3}
    lines = [f"p{row // 30}/{row:03d},label{wrong.get(row, row // 30)}" for row in range(120)]
    (folder / "labels.csv").write_text("\n".join(["key,label", *lines]) + "\n")
    return folder


def suggested(folder: Path, rule: str, **options: object) -> set[str]:
    curate(folder / "g.arrow", rule, **options).write(folder / "list.txt")  # type: ignore[arg-type]
    comments, keys = list[str](), set[str]()
    for line in (folder / "list.txt").read_text().splitlines():
        if line.startswith("#"):
            comments.append(line)
        else:
            keys.add(line)
    assert comments[0].startswith(f"# fra curate --rule {rule} gallery=g.arrow sha256=")
    return keys


def test_rules_find_what_was_planted(planted: Path) -> None:
    assert suggested(planted, "duplicates", threshold=0.99, pixels=False) == {
        f"copy/{row}" for row in range(5)
    }
    assert suggested(planted, "outliers", threshold=3.0, pixels=False) == {
        f"strange/{row}" for row in range(4)
    }
    assert suggested(planted, "labels", labels=planted / "labels.csv") == {"p0/000", "p1/040", "p2/080"}
    (planted / "table.csv").write_text(
        "image,person,mood\n"
        + (planted / "labels.csv").read_text().partition("\n")[2].replace(",", ".png,nan,")
    )
    assert suggested(planted, "labels", labels=planted / "table.csv", label="mood") == {
        "p0/000",
        "p1/040",
        "p2/080",
    }


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of six shifted photographs of one face with different light, two copies, and a texture."""
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    face_HW3 = skimage.data.astronaut()[0:220, 120:340]
    images = []
    for number in range(6):
        light_HW1 = np.linspace(0.4 + 0.1 * number, 1.0, 220)[:, None, None]
        images.append((np.roll(face_HW3, 3 * number, axis=1) * light_HW1).astype(np.uint8))
        spots = generator.integers(20, 200, (8, 2))
        for top, left in spots:  # as little as hair and clothes change between photographs
            images[-1][top : top + 12, left : left + 12] //= 2
    images += [copy_of(images[0], "all four", generator), copy_of(images[1], "cropped", generator)]
    images.append(np.repeat(skimage.data.brick()[:200, :200, None], 3, axis=2))
    names = [f"{folder}/p/{number}.jpg" for number in range(len(images))]
    (folder / "p").mkdir()
    for name, image in zip(names, images, strict=True):
        Path(name).write_bytes(to_jpeg(image))
    rows = 1 + 0.1 * generator.normal(size=(len(names), 32))
    rows[6:8] = rows[0:2] + 0.01
    write([Source(name) for name in names], rows.astype(np.float32), {"weights": "0"}, folder / "g.arrow")
    return folder


def test_pixels_tell_copies_from_other_photographs_and_faces_from_textures(photographs: Path) -> None:
    assert suggested(photographs, "duplicates") == {"6", "7"}
    assert suggested(photographs, "outliers") == {"8"}


def test_an_image_that_is_gone_is_one_clear_error(photographs: Path) -> None:
    content = (photographs / "p/6.jpg").read_bytes()
    (photographs / "p/6.jpg").unlink()
    try:
        with pytest.raises(
            ValueError, match=r"p/6\.jpg: cannot be read .*without pixels, embeddings alone are used"
        ):
            curate(photographs / "g.arrow", "outliers")
    finally:
        (photographs / "p/6.jpg").write_bytes(content)


def test_a_balanced_subset_has_each_person_equally_often() -> None:
    generator = np.random.default_rng(0)
    sizes = (300, 60, 30, 30)
    person_N = np.repeat(np.arange(4), sizes)
    rows_ND = (5 * np.eye(8)[person_N] + 0.1 * generator.normal(size=(len(person_N), 8))).astype(np.float32)
    chosen = balanced(rows_ND, 80)["suggested"]
    shares = np.bincount(person_N[chosen])
    assert shares.sum() == 80
    assert shares[0] / shares.sum() < 0.5 < sizes[0] / sum(sizes)


def test_shares_are_even_and_bounded_by_sizes() -> None:
    assert evenly(np.array([10, 2, 10]), 12).tolist() == [5, 2, 5]
    assert evenly(np.array([1, 1]), 5).tolist() == [1, 1]
    assert evenly(np.array([3, 3, 3]), 2).tolist() == [1, 1, 0]


def test_a_missing_value_is_one_clear_error(planted: Path) -> None:
    with pytest.raises(ValueError, match="the rule balanced needs a count, from 1 to 128"):
        curate(planted / "g.arrow", "balanced")
    (planted / "other.csv").write_text("key,label\nnobody,1\n")
    with pytest.raises(
        ValueError, match=r"lists none of the images; it has key 'nobody', wanted is 'p0/000'"
    ):
        curate(planted / "g.arrow", "labels", labels=planted / "other.csv")
    with pytest.raises(ValueError, match=r"columns are key, label; .* name their column with --label"):
        curate(planted / "g.arrow", "labels", labels=planted / "labels.csv", label="mood")
