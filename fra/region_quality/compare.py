"""Region quality of a model compared with that of baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch

from fra.files import write_json
from fra.inference import encoder as inference
from fra.inference.encoder import FaceEncoder
from fra.region_quality import clusters
from fra.region_quality.evaluate import Heatmaps, NotMeasurable, evaluate, read_test_images
from fra.weights import released

CPU = torch.device("cpu")
RANDOM_NETWORKS = 3
"""Number of untrained networks whose mean region quality is the baseline."""


def measure_regions(
    model: Path,
    manifest: Path,
    quarantined: Set[str],
    shards: Path,
    out: Path,
    others: Sequence[Path] = (),
    device: torch.device = CPU,
) -> Mapping[str, Any]:
    """Compute the region quality of a model and of baselines, and write it to a JSON file.

    The baselines are untrained networks, and k-means of colours and of features, with as many clusters as masks. The
    row "start" has the released weights that the training of the model started from, if it did.

    Args:
        model: The model with its region branch (model.safetensors).
        manifest: Manifest of a labelled set with 68 or 98 landmarks.
        quarantined: Keys of images that are left out.
        shards: Folder with the shards of the labelled set.
        out: The JSON file.
        others: Further weights files, whose features are clustered as baselines.
        device: Where the networks run.

    Returns:
        Metrics by row, as `fra.region_quality.evaluate.evaluate` returns them.

    Raises:
        NotMeasurable: The model was trained without regions, no test image has 68 or 98 landmarks, or they show fewer
            than two people.
        ValueError: A file is damaged, or some test images have 68 landmarks and others 98.
    """

    def load(path: Path, seed: int | None = None) -> FaceEncoder:
        return inference.load(path, seed).to(device)

    encoder = load(model)
    if encoder.neck is None:
        raise NotMeasurable(f"{model}: trained without regions, so it has no heatmaps to evaluate")
    size, count = encoder.image_size, int(encoder.metadata["num_masks"])
    test = read_test_images(manifest, quarantined, shards, size)
    untrained = [load(model, seed) for seed in range(RANDOM_NETWORKS)]
    rows: dict[str, list[Heatmaps]] = {"pretrained": [encoder], "random": [*untrained]}
    start = encoder.metadata.get("provenance", {}).get("init", {}).get("source")
    if start in released.names() and (before := load(Path(start))).neck is not None:
        rows["start"] = [before]
    rows["colours"] = [clusters.fit_colours(test.whole, size, count)]
    rows["features"] = [clusters.fit_features(encoder, test.whole, count)]
    for path in others:
        rows[f"features of {path}"] = [clusters.fit_features(load(path), test.whole, count)]
    metrics = evaluate(rows, test)
    write_json(metrics, out)
    return metrics
