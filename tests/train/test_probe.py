"""The kNN probe: its score, the images it reads, and training that does not depend on it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from support.toy_training import SIZE, run

from fra.data.views.config import ViewsConfig
from fra.method import backbone as backbones
from fra.method.config import ModelConfig
from fra.train.config import ProbeConfig
from fra.train.probe import Probe, knn_accuracy, load_probe
from fra.weights.files import read_weights


def loaded(config: ProbeConfig, quarantined: frozenset[str] = frozenset()) -> Probe:
    return load_probe(config, SIZE, ViewsConfig(), quarantined)


def test_accuracy_equals_scikit_learns_for_equal_weights() -> None:
    """With classes of one size and nearly equal distances the vote is that of scikit-learn."""
    generator = np.random.default_rng(0)
    class_N, person_N = np.arange(120) % 3, np.arange(120) // 6
    x_ND = np.eye(3)[class_N] * 0.6 + generator.normal(0, 0.4, (120, 3)) + [30, 0, 0]
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    predicted = cross_val_predict(
        KNeighborsClassifier(9), unit_ND, class_N, groups=person_N, cv=LeaveOneGroupOut()
    )
    ours = knn_accuracy(*(torch.from_numpy(values) for values in (unit_ND, class_N, person_N)), neighbours=9)
    expected = balanced_accuracy_score(class_N, predicted)
    assert 0.4 < expected < 0.9
    assert ours.item() == pytest.approx(expected, abs=0.02)


def test_images_of_the_same_person_do_not_vote_and_rare_classes_count_as_much() -> None:
    unit_ND = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    class_N = torch.tensor([0, 0, 1, 1])
    assert knn_accuracy(unit_ND, class_N, torch.arange(4), 1).item() == 1
    assert knn_accuracy(unit_ND, class_N, torch.tensor([0, 0, 1, 1]), 1).item() == 0
    # Of all 11 others, a rare face sees 2 rare at cosine 1 and 9 common at 0.95: counted by heads, common would win.
    rare = torch.tensor([[1.0, 0.0]] * 3 + [[0.95, 0.3122499]] * 9)
    assert knn_accuracy(rare, torch.tensor([0] * 3 + [1] * 9), torch.arange(12), 12).item() == 1


def test_it_reads_the_training_and_validation_splits_only(faces: ProbeConfig) -> None:
    probe = loaded(faces)
    assert probe.pixels_NHW3.shape == (32, SIZE, SIZE, 3)
    assert (probe.class_NL[:, 0] == -1).sum() == 1
    assert len(np.unique(probe.person_N)) == 8
    assert len(loaded(faces, frozenset({"p1_0", "p9_0"})).pixels_NHW3) == 31
    few = dataclasses.replace(faces, images=10)
    assert len(loaded(few).pixels_NHW3) == 10
    assert np.array_equal(loaded(few).pixels_NHW3, loaded(few).pixels_NHW3)


def test_a_score_changes_neither_backbone_nor_random_state(faces: ProbeConfig) -> None:
    torch.manual_seed(0)
    backbone = backbones.build("mini").train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    random_state = torch.get_rng_state()
    assert (
        loaded(faces)(backbone, torch.device("cpu")) > 0.9
    )  # even random convolutions tell bright from dark
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_weights_are_the_same_with_and_without(faces: ProbeConfig, tmp_path: Path) -> None:
    metrics = run(tmp_path / "with", probe=loaded(faces))
    run(tmp_path / "without")
    assert metrics["knn"] == float(history(tmp_path / "with")[-1]["knn"])
    assert_scored_but_the_same(tmp_path)


def assert_scored_but_the_same(folder: Path) -> None:
    """`folder` / "with" has scores; all else of it is what `folder` / "without" has, to the last bit."""
    with_probe, without = folder / "with", folder / "without"
    ours, theirs = (read_weights(run / "out" / "model.safetensors")[0] for run in (with_probe, without))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    scored = history(with_probe)
    assert [{**row, "knn": ""} for row in scored] == history(without)
    assert all(0 <= float(row["knn"]) <= 1 for row in scored)


def unread() -> NDArray[np.uint8]:
    raise AssertionError("only the first rank looks at the probe's faces")


def on_two_ranks(rank: int, folder: Path, faces: ProbeConfig) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        probe = loaded(faces)
        if rank == 1:
            probe = dataclasses.replace(probe, read_pixels=unread)
        metrics = run(folder / "with", probe=probe, epochs=1)
        assert metrics["knn"] == float(history(folder / "with")[-1]["knn"])
        run(folder / "without", epochs=1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_one_of_two_ranks_scores_for_both(faces: ProbeConfig, tmp_path: Path) -> None:
    multiprocessing.spawn(on_two_ranks, (tmp_path, faces), nprocs=2)
    assert_scored_but_the_same(tmp_path)


@pytest.mark.slow
def test_its_scores_survive_an_interruption(faces: ProbeConfig, tmp_path: Path) -> None:
    """Broken off between the probe of an epoch's end (step 8) and the next row."""

    def stop(reading: dict[str, Any]) -> None:
        if reading["step"] == 10:
            raise KeyboardInterrupt

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    every_other = dataclasses.replace(faces, every=2)
    run(whole, probe=loaded(every_other))
    with pytest.raises(KeyboardInterrupt):
        run(broken, probe=loaded(every_other), observe=stop)
    run(broken, probe=loaded(every_other))
    assert history(broken) == history(whole)
    assert len({row["knn"] for row in history(whole)[:3]}) == 1  # before step 8, that of the random weights


def test_a_backbone_of_another_image_size_is_named_before_the_first_score(
    faces: ProbeConfig, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"model\.backbone timm:resmlp_12_224 does not accept images of 32×32"
    ):
        run(tmp_path, probe=loaded(faces), model=ModelConfig("timm:resmlp_12_224", 3, 16, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": ("Smiling",)},
            r"faces.parquet: has no label 'Smiling' \(probe.labels\); it has: Alike, Bright",
        ),
        ({"labels": ("Alike",)}, "label 'Alike' has 1 class"),
        ({"manifest": "nowhere.parquet"}, "nowhere.parquet: no such manifest"),
    ],
)
def test_unusable_labelled_sets_are_named(faces: ProbeConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        loaded(dataclasses.replace(faces, **change))


@pytest.mark.parametrize("wrong", [{"every": -1}, {"neighbours": 0}, {"images": 0}, {"labels": ()}])
def test_impossible_probes_are_refused(faces: ProbeConfig, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(faces, **wrong)
