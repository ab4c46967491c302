"""The stage `ingest`: lists a data set (and fetches an embedded one) as data/raw/<name>/records.parquet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from fra.data.datasets import ingest as datasets
from fra.data.datasets.frames import FrameStore
from fra.data.datasets.records import DatasetConfig, root_of
from fra.data.shards.config import ShardConfig
from fra.faces.config import FacesConfig
from fra.wording import counted
from pipelines import params
from pipelines.project import paths, permissions
from pipelines.project.dataset import selected_dataset, withdrawn_people
from pipelines.project.executor import executor_of
from pipelines.project.mirror import mirror
from pipelines.repo.code_deps import module_hash
from pipelines.sections import ParamsError, check_lists, key_lists
from pipelines.stage import logger, main

PLACE = {"source", "photo.seconds"}
"""Columns that tell photographs, or frames of videos, apart."""


def face_search(name: str) -> datasets.FaceSearch:
    """Returns how the photographs of a data set are searched.

    What was found is kept in a folder named by the detector and its code; folders of others are deleted, so that no
    withdrawn person stays in one.
    """
    config = params.section("faces", FacesConfig)
    cache = paths.WORK / "faces" / name / f"{config.detector}-{module_hash('fra.data.datasets.photos')[:16]}"
    for other in set(cache.parent.glob("*")) - {cache}:
        shutil.rmtree(other)
    return datasets.FaceSearch(config, cache, executor_of(params.section("shard", ShardConfig)))


def frame_store(name: str) -> FrameStore:
    """Returns where the frames of a data set's videos are kept between runs, and published in its raw folder."""

    def publish(tars: Path) -> Path:
        mirror(tars, paths.raw(name) / "videos")
        return paths.raw(name) / "videos"

    folder, executor = paths.frames(name), executor_of(params.section("shard", ShardConfig))
    return FrameStore(folder, module_hash("fra.data.datasets.frames")[:16], publish, executor)


def places(records: pd.DataFrame) -> str:
    """Returns in words how many photographs, and frames of videos, the records of faces are from."""
    different = records.drop_duplicates(sorted(PLACE & set(records.columns)))
    if "photo.seconds" not in different:
        return counted(len(different), "photograph")
    frames = different.loc[different["photo.seconds"].notna(), "photo.video"]
    photographs = len(different) - len(frames)
    words = [counted(photographs, "photograph")] if photographs else []
    from_videos = f"{counted(len(frames), 'frame')} of {counted(frames.nunique(), 'video')}"
    return " and ".join([*words, from_videos])


def check_key_lists() -> None:
    """Raises ParamsError where a list of keys is missing, or dvc.yaml depends on others than the parameters name."""
    values = params.read()
    check_lists(values["dataset"], values["benchmarks"])
    expected = key_lists(values["dataset"], values["benchmarks"])
    if values["key_lists"] != expected:
        raise ParamsError(f"params.yaml: key_lists must be {expected}, to fit dataset and benchmarks")


def check_measured(config: DatasetConfig, records: pd.DataFrame) -> None:
    """Raises ValueError where lists of keys leave no image of the split that pre-training measures."""
    beton = paths.beton(config.name)
    split = Path(params.read()["measured"]).stem
    if (beton / f"{split}.beton").as_posix() == params.read()["measured"] and split not in set(
        records["split"]
    ):
        raise ValueError(
            f"{config.name}: no image of the split {split} is left, on which pre-training is measured: keep some, or "
            f"measure on training images with held_out.ffcv={beton}/train.beton"
        )


def ingest() -> None:
    """Writes the records of the selected data set, without people who withdrew their consent.

    Images of an embedded set are kept between runs, so that only new ones are made.
    """
    config = selected_dataset()
    check_key_lists()
    withdrawn = withdrawn_people(config.name)
    raw, state = paths.raw(config.name), paths.WORK / "raw" / config.name
    embedded = datasets.is_embedded(config)
    if embedded:
        datasets.EMBEDDED[config.adapter](state, config)
        mirror(state, raw)
    trains = config.name == params.section("dataset", DatasetConfig).name
    search = face_search(config.name) if config.faces == "detect" else None
    frames = frame_store(config.name) if config.frames_per_second else None
    if frames is None:
        shutil.rmtree(paths.frames(config.name), ignore_errors=True)
    records = datasets.ingest(config, raw, withdrawn, trains=trains, search=search, frames=frames)
    if trains and (config.only or config.exclude):
        check_measured(config, records)
    if embedded:
        mirror(raw, state)  # without the people who were withdrawn
    else:
        permissions.restrict(root_of(config, raw), records)
    known = records["person"].nunique()
    people = counted(known, "person") if known else "unknown people"
    logger.info("%s: %s of %s", config.name, counted(len(records), "image"), people)
    if search:
        without = int(records["photo.problem"].notna().sum())
        logger.info(
            "%s: %s in %s; no face to crop in %s of these, or they cannot be decoded",
            config.name,
            counted(len(records) - without, "face"),
            places(records),
            f"{without:,}",
        )
    if withdrawn:
        logger.info("%s: %s left out", config.name, counted(len(withdrawn), "withdrawn person"))


if __name__ == "__main__":
    main(ingest, takes="SET")
