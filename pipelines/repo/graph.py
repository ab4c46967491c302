"""The graph of stages and which of them are not up to date, both as DVC itself computes them from dvc.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.repo import lock


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml: `needs` are the stages that make its inputs; `stale` says that DVC would run it."""

    name: str
    needs: tuple[str, ...]
    stale: bool


@dataclass(frozen=True)
class Plan:
    """What a run does: stages, each after those it needs; and whether a DVC remote is configured."""

    stages: tuple[Stage, ...]
    remote: bool


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage wrote: its path, DVC's hash, and its size in bytes."""

    path: str
    md5: str
    size: int


def read(targets: Sequence[str] = ()) -> Plan:
    """Returns the plan for `targets` (stages, or groups such as "transfer") and all that they need; by default all.

    Raises:
        ValueError: dvc.yaml is not valid, or a stage is not in it; the message is DVC's own.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    try:
        with Repo(_wait_for_lock=True) as repo:
            graph = repo.index.graph  # an edge points from a stage to one that it needs
            requested = {stage for target in targets for stage in repo.stage.collect(target)}
            chosen = (
                requested.union(*(nx.descendants(graph, stage) for stage in requested))
                if targets
                else set(graph)
            )
            stages = [stage for stage in chosen if isinstance(stage, PipelineStage)]
            changed = repo.status([stage.addressing for stage in stages])
            # Sorted by name where the graph leaves the order open, so that the order is always the same.
            order = nx.lexicographical_topological_sort(
                graph.subgraph(stages).reverse(), lambda stage: stage.addressing
            )
            return Plan(
                stages=tuple(
                    Stage(
                        name=stage.addressing,
                        needs=tuple(
                            sorted(need.addressing for need in graph.successors(stage) if need in chosen)
                        ),
                        stale=stage.addressing in changed,
                    )
                    for stage in order
                ),
                remote=bool(repo.config["core"].get("remote")),
            )
    except DvcException as error:
        raise ValueError(f"dvc: {' '.join(str(error).split())}") from None


def outputs(name: str) -> list[Output]:
    """What dvc.lock says that a stage wrote; empty where the stage never ran."""
    stage = lock.read().get(name) if lock.LOCK.is_file() else None
    if stage is None:
        return []
    return [Output(path, digest, stage.sizes.get(path, 0)) for path, digest in stage.outs.items()]
