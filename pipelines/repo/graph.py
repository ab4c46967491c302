"""The graph of stages, as DVC has it: never written a second time.

`dvc.yaml` is read by DVC itself; so are the reasons why a stage is not up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml: `needs` are the stages that make its inputs; `stale` says that DVC would run it."""

    name: str
    needs: tuple[str, ...]
    stale: bool


@dataclass(frozen=True)
class Plan:
    """What a run does: stages, each after those it needs; and whether DVC has somewhere to push results to."""

    stages: tuple[Stage, ...]
    remote: bool


def read(targets: Sequence[str] = ()) -> Plan:
    """The stages that `targets` (stage names, or groups such as "transfer") take, or all of them.

    Raises:
        ValueError: dvc.yaml is not valid, or has no such stage; the message is DVC's own.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    try:
        with Repo(_wait_for_lock=True) as repo:
            graph = repo.index.graph  # an edge leads from a stage to one that it needs
            asked = {stage for target in targets for stage in repo.stage.collect(target)}
            chosen = (
                asked.union(*(nx.descendants(graph, stage) for stage in asked)) if targets else set(graph)
            )
            stages = [stage for stage in chosen if isinstance(stage, PipelineStage)]
            changed = repo.status([stage.addressing for stage in stages])
            # Sorted by name where the graph leaves the order open, so that two runs look alike.
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


def outputs(name: str) -> list[dict[str, Any]]:
    """What `dvc.lock` says that stage `name` made: path, hash, size and number of files of each; [] if it never ran."""
    if not LOCK.is_file():
        return []
    locked = yaml.safe_load(LOCK.read_text(encoding="utf-8")) or {}
    found: list[dict[str, Any]] = locked.get("stages", {}).get(name, {}).get("outs", [])
    return found
