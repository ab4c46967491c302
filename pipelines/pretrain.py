"""The stage `pretrain`: trains a backbone and the whole model on validated betons or shards, with their history."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fra.data.loader import sample
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.loader.shard_index import train_shards
from fra.data.views.config import ViewsConfig
from fra.files import sha256
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.train.config import ProbeConfig, TrainConfig
from fra.validation import verdict
from pipelines import params
from pipelines.lineage import record
from pipelines.project import paths
from pipelines.repo.code_deps import code_hash
from pipelines.sections import ParamsError, init_file
from pipelines.stage import logger, main

# What imports PyTorch is imported by the functions: not before the parameters are checked.
if TYPE_CHECKING:
    from fra.data.views.views import Views
    from fra.train.monitoring.measure import Measures
    from fra.train.probe import Probe

SECTIONS = ["data", "views", "model", "objective", "train", "probe"]


def inputs(dataset: str, data: DataConfig) -> tuple[Path, list[Path]]:
    """Returns the path that the loader opens, and every file that it reads."""
    if data.loader == "ffcv":
        source = paths.beton(dataset) / "train.beton"
        return source, [source]
    source = paths.shards(dataset)
    return source, [source / "index.json", *(shard.path for shard in train_shards(source))]


def measures_of(source: Path, config: TrainConfig, size: int, views: Views) -> Measures | None:
    """Returns the label-free measures on images of the source `measured`; None if they are off."""
    if not config.measure_every:
        return None
    from fra.train.monitoring.measure import IMAGES, Measures

    split = sample.split_of(source)
    quarantine = verdict.read_quarantine(paths.VALIDATION / "quarantine.csv")
    exclude = verdict.quarantined_indices(quarantine, split)
    return Measures(partial(sample.read_sample, source, exclude, IMAGES), views, size, split)


def labelled_faces(
    config: ProbeConfig, image_size: int, views: ViewsConfig
) -> tuple[Probe | None, dict[str, str]]:
    """Returns the kNN probe (None if it is off) and the SHA-256 of each file that it reads, as validated."""
    if not config.every:
        return None, {}
    from fra import dist
    from fra.train.probe import load_probe

    manifest, shards, validation = Path(config.manifest), Path(config.shards), Path(config.validation)
    files = [manifest, shards / "index.json", *sorted(shards.glob("*.tar"))]
    validated = verdict.check(
        validation / "verdict.json", files, hashed=dist.is_local_rank_zero()
    ).validated_files
    quarantined = verdict.read_quarantined_keys(validation / "quarantine.csv")
    return load_probe(config, image_size, views, quarantined), {
        file.as_posix(): validated[file.as_posix()] for file in files
    }


def check_sources(source: Path, data: DataConfig, config: TrainConfig) -> None:
    """Raises ParamsError where params.yaml names other files than those that are read, on which dvc.yaml depends."""
    values, start = params.read(), init_file(config.init, source.as_posix())
    if values["source"] != source.as_posix():
        raise ParamsError(f"params.yaml: source must be {source} where data.loader is {data.loader}")
    if values["init_file"] != start:
        raise ParamsError(f"params.yaml: init_file must be {start} where train.init is {config.init}")


def checkpoint_folder(values: dict[str, Any], files: dict[str, str]) -> Path:
    """Returns the folder of a run's checkpoints, named by the hash of parameters, files and code."""
    identity = {"params": values, "inputs": files, "code": code_hash("pretrain")}
    run = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return paths.WORK / "checkpoints" / run


def pretrain() -> None:
    """Pre-trains on the validated files of the data set in params.yaml, or resumes a run with the same inputs."""
    dataset = str(params.read()["dataset"]["name"])
    data, views = params.section("data", DataConfig), params.section("views", ViewsConfig)
    model, objective = params.section("model", ModelConfig), params.section("objective", ObjectiveConfig)
    config = params.section("train", TrainConfig)
    source, files = inputs(dataset, data)
    check_sources(source, data, config)
    from fra import dist
    from fra.data.views.views import Views
    from fra.train.pretrain import check_training
    from fra.train.pretrain import pretrain as train

    measured = Path(params.subsection("measured", params.read()))
    files = list(dict.fromkeys([*files, *sample.files_of(measured)]))
    # One rank per machine compares the hashes; if it fails, torchrun ends the others.
    validation = verdict.check(paths.VALIDATION / "verdict.json", files, hashed=dist.is_local_rank_zero())
    exclude = verdict.quarantined_indices(
        verdict.read_quarantine(paths.VALIDATION / "quarantine.csv"), "train"
    )
    read = {file.as_posix(): validation.validated_files[file.as_posix()] for file in files}
    read[(paths.VALIDATION / "quarantine.csv").as_posix()] = validation.written["quarantine.csv"]
    values = params.read()
    chosen = {"dataset": {"name": dataset}, **{name: values[name] for name in SECTIONS}}
    origin = record.provenance(chosen, read)
    probe, probe_files = labelled_faces(params.section("probe", ProbeConfig), data.image_size, views)
    start = init_file(config.init, source.as_posix())
    init = {} if config.init is None else {start: sha256(Path(start))}
    checkpoints = checkpoint_folder(origin["params"], {**read, **probe_files, **init})
    with dist.process_group(config.device):
        check_training(objective, config)
        both_views = Views(views, config.seed)
        batches = build_loader(
            data,
            views,
            source=source,
            exclude=exclude,
            batch_size=config.batch_size // dist.world_size(),
            seed=config.seed,
            rank=dist.rank(),
            world_size=dist.world_size(),
        )
        metrics = train(
            model,
            objective,
            config,
            batches,
            both_views,
            paths.PRETRAIN,
            checkpoints,
            origin,
            probe=probe,
            measures=measures_of(measured, config, data.image_size, both_views),
        )
    logger.info("pre-trained: loss %.4f, %.0f images/s", metrics["total"], metrics["images_per_second"])


if __name__ == "__main__":
    main(pretrain, limit="gpu")
