from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fra.report import headline
from fra.report.artifacts import TaskResult, trained_label


def task(name: str, **metrics: Any) -> TaskResult:
    return TaskResult(name, metrics | {"test": {"images": 1200, "people": 10}}, None, Path())


def compared(name: str, metric: str, low: float, high: float) -> headline.Row:
    entry = {metric: {"mean": 0.5, "std": 0.01}}
    difference = {metric: {"mean": (low + high) / 2, "low": low, "high": high}}
    result = task(name, **{"random": entry, "pretrained": entry, "pretrained - random": difference})
    return headline.table(result).primary


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.01, 0.05, "better", "worse"),
        (-0.05, -0.01, "worse", "better"),
        (-0.01, 0.05, "unclear", "unclear"),
        (0.0, 0.05, "unclear", "unclear"),
    ],
)
def test_a_difference_is_clear_if_its_interval_excludes_zero(
    low: float, high: float, higher: str, lower: str
) -> None:
    assert compared("verification", "roc_auc", low, high).differences[0].conclusion == higher
    assert compared("alignment", "nme", low, high).differences[0].conclusion == lower


def test_differences_have_signs_and_metrics_have_units() -> None:
    row = compared("alignment", "nme", -0.05, 0.01)
    assert (row.unit, row.lower_is_better) == ("%", True)
    assert row.values["pretrained"] == ("50.0", "1.0")
    assert row.differences[0].value == "−2.0"
    assert row.differences[0].interval == "−5.0 to +1.0"


def test_values_that_round_to_zero_have_no_minus() -> None:
    assert headline.metric_of("nme").text(-0.0001, signed=True) == "+0.0"
    assert headline.metric_of("roc_auc").text(-0.0001) == "0.000"


def test_reference_model_is_first_then_others_by_name() -> None:
    entry = {"roc_auc": {"mean": 0.5, "std": 0.0}}
    names = {"random": entry, "zeta": entry, "released": entry, "released - random": entry}
    assert task("verification", **names).models == ["released", "random", "zeta"]


def test_unknown_metrics_are_displayed_by_their_own_name() -> None:
    result = task("wrinkles", pretrained={"wrinkle_depth": {"mean": 0.5, "std": 0.1}})
    table = headline.table(result)
    assert (table.title, table.primary.label) == ("Wrinkles", "Wrinkle depth")
    assert table.about == "1,200 test images, 10 test people"


def test_a_task_without_metrics_is_an_error() -> None:
    with pytest.raises(ValueError, match="expression are empty"):
        headline.table(task("expression"))


def test_the_trained_model_has_the_name_of_its_objective() -> None:
    image_level = {"region_weight": 0.0, "relation_weight": 0.0}
    params = [
        {},
        {"train": {"init": None}, "objective": image_level},
        {"objective": image_level | {"region_weight": 1}},
    ]
    assert [trained_label(values) for values in params] == ["FRA", "Image level", "FRA"]
    assert trained_label({"train": {"init": "demo"}, "objective": image_level}) == "Adapted"
    assert headline.model_label("pretrained", "Image level") == "Image level"


def test_a_sentence_compares_all_tasks_with_each_other_model() -> None:
    def result(
        name: str, metric: str, against_random: tuple[float, float], against_released: tuple[float, float]
    ) -> TaskResult:
        entry = {metric: {"mean": 0.5, "std": 0.01}}
        metrics = {"pretrained": entry, "random": entry, "released": entry}
        for other, (low, high) in (("random", against_random), ("released", against_released)):
            metrics[f"pretrained - {other}"] = {metric: {"mean": (low + high) / 2, "low": low, "high": high}}
        return TaskResult(name, metrics, None, Path(), "Adapted")

    tables = [
        headline.table(result("verification", "roc_auc", (0.01, 0.05), (-0.03, 0.01))),
        headline.table(result("alignment", "nme", (-0.05, 0.01), (-0.03, 0.01))),
        headline.table(result("expression", "balanced_accuracy", (-0.05, -0.01), (-0.03, 0.01))),
    ]
    assert headline.comparisons(tables) == [
        "Adapted compared with random weights: better on average in 2 of 3 tasks, better beyond chance in 1 "
        "(verification), worse beyond chance in 1 (expression).",
        "Adapted compared with released weights: better on average in 1 of 3 tasks, no difference beyond chance.",
    ]
