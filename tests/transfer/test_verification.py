"""Drawn pairs are balanced, distinct and correctly labelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.labelled_set import Set, draw
from support.labelled_set import run as run_task

from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.transfer import verification
from fra.transfer.verification import Copies
from fra.validation.config import ValidateConfig
from fra.validation.image_stats import NEAR_COPY_BITS


def distinct(count: int) -> Copies:
    """Images without copies."""
    hashes = np.random.default_rng(0).integers(2**63, size=(count, 4), dtype=np.uint64)
    return Copies(np.arange(count), hashes)


def test_pairs_are_balanced_distinct_and_correctly_labelled() -> None:
    person = np.repeat(np.array(["a", "b", "c"]), 6)
    first, second, same = verification.draw_pairs(person, limit=100, seed=0, copies=distinct(18))
    assert same.sum() == 45  # all of 3 · 15
    assert (~same).sum() == 45
    assert ((person[first] == person[second]) == same).all()
    assert len({frozenset(pair) for pair in zip(first, second, strict=True)}) == 90
    assert len(verification.draw_pairs(person, limit=10, seed=0, copies=distinct(18))[0]) == 20


def test_pairs_need_people_with_several_images() -> None:
    with pytest.raises(ValueError, match="several images"):
        verification.draw_pairs(np.array(["a", "b", "c"]), 10, 0, distinct(3))
    with pytest.raises(ValueError, match="at least two people"):
        verification.draw_pairs(np.array(["a", "a"]), 10, 0, distinct(2))


def test_copies_are_no_pair() -> None:
    """Rows 0 and 1 are the same file, 2 is a near copy of them, 6 (another person) is one of 7."""
    person = np.array(list("aaaabbbccc"))
    copies = distinct(10)
    copies.file_N[1] = copies.file_N[0]
    copies.hash_N4[1] = copies.hash_N4[0]
    copies.hash_N4[2] = copies.hash_N4[0] ^ np.array([2**NEAR_COPY_BITS - 1, 0, 0, 0], np.uint64)
    copies.hash_N4[7] = copies.hash_N4[6] ^ np.array([1, 1, 1, 1], np.uint64)
    copies.hash_N4[3] = copies.hash_N4[0] ^ np.array([2 ** (NEAR_COPY_BITS + 1) - 1, 0, 0, 0], np.uint64)
    for seed in range(20):
        first, second, same = verification.draw_pairs(person, 100, seed, copies)
        drawn = {frozenset((int(a), int(b))) for a, b in zip(first, second, strict=True)}
        assert not drawn & {frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2), (2, 3), (6, 7))}
        assert frozenset((0, 3)) in drawn  # one bit more than a near copy
        assert same.sum() == (~same).sum() == 8  # of 12 pairs of one person


def test_only_copies_leave_no_pair() -> None:
    same = Copies(np.zeros(4, np.intp), np.zeros((4, 4), np.uint64))
    with pytest.raises(ValueError, match="2 pairs are copies"):
        verification.draw_pairs(np.array(list("aabb")), 10, 0, same)


def test_near_copies_are_those_of_validation() -> None:
    assert ValidateConfig().near_duplicate_bits == NEAR_COPY_BITS


def test_copied_photographs_of_a_test_person_do_not_raise_the_accuracy(
    faces: Set, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From files to predictions: an exact copy and a recompressed one of the same photograph."""
    records = []
    for person in range(9):
        for number in range(4):
            source = f"p{person}_{number}.png"
            image = draw(person, number % 2, number // 2, np.array([3.0 * number, 2.0 * person])).resize(
                (80, 96)
            )
            if person >= 6 and number == 1:
                source = source.replace("png", "jpg")
                image = Image.open(tmp_path / f"p{person}_0.png")
            image.save(tmp_path / source, **({"quality": 90} if source.endswith("jpg") else {}))
            if person >= 6 and number == 2:
                (tmp_path / source).write_bytes((tmp_path / f"p{person}_0.png").read_bytes())
            split = "train" if person < 3 else "val" if person < 6 else "test"
            records.append({"key": source[:-4], "source": source, "split": split, "person": f"p{person}"})
    frame = pd.DataFrame(records).assign(bytes=None, modified=None, landmarks=None)
    shards, manifest = tmp_path / "shards", tmp_path / "manifest.parquet"
    write(frame, tmp_path, shards, manifest, ShardConfig(workers=1), tmp_path / "state")
    run_task("verification", Set(manifest, shards, faces.backbone), tmp_path / "out", seeds=1)
    found = pd.read_parquet(tmp_path / "out/predictions.parquet").query("model == 'random'")
    pairs = {frozenset(pair) for pair in zip(found["key"], found["other"], strict=True)}
    for person in (6, 7, 8):
        copies = [f"p{person}_{number}" for number in (0, 1, 2)]
        assert not any(frozenset((a, b)) in pairs for a in copies for b in copies if a != b)
        assert frozenset((f"p{person}_0", f"p{person}_3")) in pairs
    assert "9 of 18 pairs of one person are copies of one image and are left out" in caplog.text
