"""OpenLineage: what ran, on which data, and what came of it, as events that other lineage systems read.

A run of a stage tells of its START and of its end (COMPLETE, FAIL or ABORT). Events go into a file below `.work`, and
to a receiver where `FRA_OPENLINEAGE_URL` names one. Written by hand after the published schemas (OpenLineage 2-0-2):
the official client takes half a second to import, in every stage; tests read our events with its classes.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import uuid4

import yaml

from pipelines.lineage import record
from pipelines.repo.definition import Definition, definitions
from pipelines.repo.lock import Hashes, contains, read

EVENTS = Path(".work/openlineage/events.jsonl")
"""One event a line."""
URL = "FRA_OPENLINEAGE_URL"
"""Environment variable: address of a receiver (Marquez, say), to which `/api/v1/lineage` is added."""
API_KEY = "FRA_OPENLINEAGE_API_KEY"
"""Environment variable: sent to the receiver as a bearer token, where it is set."""
PATIENCE = 5.0
"""Seconds that a receiver may take."""
NAMESPACE = "fra"
PRODUCER = "urn:fra:pipelines"
SPEC = "https://openlineage.io/spec"
CORE = "2-0-2/OpenLineage"

logger = logging.getLogger("fra")


@contextmanager
def run(stage: str, parent: str | None = None) -> Iterator[None]:
    """Tells of a stage's run: its start, and how it ended. `parent` is the id (a UUID) of the run that started it.

    DVC's own name for the stage (`DVC_STAGE`) goes before `stage`. Nothing here stops a stage: where an event cannot
    be made, written or sent, there is one warning, and no further attempt in this run.
    """
    identity = str(uuid4())
    ways: dict[str, Callable[[str], None]] = {f"in {EVENTS}": append}
    if url := os.environ.get(URL):
        ways[f"at {urlsplit(url).hostname}"] = lambda line: post(line, url)

    def tell(state: str, error: BaseException | None = None) -> None:
        if not ways:
            return
        try:
            line = json.dumps(event(stage, identity, state, parent, error), sort_keys=True)
        except Exception as problem:
            logger.warning("no OpenLineage events of %s: %s: %s", stage, type(problem).__name__, problem)
            ways.clear()
        for place, way in list(ways.items()):
            try:
                way(line)
            except Exception as problem:
                logger.warning("no OpenLineage events %s: %s: %s", place, type(problem).__name__, problem)
                del ways[place]

    tell("START")
    try:
        yield
    except BaseException as error:
        tell("FAIL" if isinstance(error, Exception) else "ABORT", error)  # others are signals and exits
        raise
    tell("COMPLETE")


def append(line: str) -> None:
    """Adds a line to the file of events: whole, whatever other stages write, and whatever was cut off before."""
    EVENTS.parent.mkdir(parents=True, exist_ok=True)
    with EVENTS.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read(1) not in (b"", b"\n")  # by a process that was killed as it wrote
        rest = memoryview(b"\n" * torn + line.encode() + b"\n")
        while rest:
            rest = rest[file.write(rest) :]


class Stay(HTTPRedirectHandler):
    """A redirected POST would become a GET that succeeds, and take the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(line: str, url: str) -> None:
    """Sends an event. Raises `OSError` or `ValueError` where that fails."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{URL} must begin with http:// or https://")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(API_KEY):
        headers["Authorization"] = f"Bearer {key}"
    request = Request(f"{url.rstrip('/')}/api/v1/lineage", line.encode(), headers, method="POST")
    with build_opener(Stay).open(request, timeout=PATIENCE):
        pass


def event(
    stage: str, identity: str, state: str, parent: str | None = None, error: BaseException | None = None
) -> dict[str, Any]:
    """A RunEvent of OpenLineage as plain data.

    Outputs have versions once they are COMPLETE; only those that are there are named then, since some stages of DVC are
    several commands, each a run of its own ("benchmark@rafdb.ingest").
    """
    name = os.environ.get("DVC_STAGE", stage)
    defined = definition(name)
    outputs = written(defined) if state == "COMPLETE" else [dataset(path) for path in defined.outs]
    return {
        "eventType": state,
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}/{CORE}.json#/$defs/RunEvent",
        "run": {"runId": identity, "facets": run_facets(defined, parent, error)},
        "job": {
            "namespace": NAMESPACE,
            "name": name if name.split("@")[0] == stage.split("@")[0] else f"{name}.{stage}",
            "facets": job_facets(),
        },
        "inputs": read_by(defined),
        "outputs": outputs,
    }


def facet(schema: str, fields: dict[str, Any], kind: str = "") -> dict[str, Any]:
    """A facet by a published schema, such as "facets/1-0-1/ErrorMessageRunFacet"; `kind` where it defines several."""
    return {
        "_producer": PRODUCER,
        "_schemaURL": f"{SPEC}/{schema}.json#/$defs/{kind or schema.rsplit('/', 1)[1]}",
        **fields,
    }


def run_facets(defined: Definition, parent: str | None, error: BaseException | None) -> dict[str, Any]:
    facets = {
        "executionParameters": facet(
            "facets/1-0-0/ExecutionParametersRunFacet",
            {"parameters": [{"key": key, "value": value} for key, value in parameters(defined)]},
        ),
        "fra_record": facet(CORE, {"code": record.code(), "environment": record.environment()}, "RunFacet"),
    }
    if parent:
        facets["parent"] = facet(
            "facets/1-2-0/ParentRunFacet",
            {"run": {"runId": parent}, "job": {"namespace": NAMESPACE, "name": "run"}},
        )
    if error is not None:
        facets["errorMessage"] = facet(
            "facets/1-0-1/ErrorMessageRunFacet",
            {"message": f"{type(error).__name__}: {error}", "programmingLanguage": "PYTHON"},
        )
    return facets


def job_facets() -> dict[str, Any]:
    facets = {
        "jobType": facet(
            "facets/2-0-4/JobTypeJobFacet",
            {"processingType": "BATCH", "integration": "DVC", "jobType": "STAGE"},
        )
    }
    if commit := record.code()["commit"]:
        # a commit by its own hash (a Software Heritage identifier), whichever host has the repository
        facets["sourceCodeLocation"] = facet(
            "facets/1-1-0/SourceCodeLocationJobFacet",
            {"type": "git", "url": f"swh:1:rev:{commit}", "version": commit},
        )
    return facets


def definition(name: str) -> Definition:
    """The stage in dvc.yaml; an empty one where it is not in there, or the file cannot be read."""
    try:
        return definitions(Path("dvc.yaml").read_text(encoding="utf-8"), settings())[name]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return Definition("", (), (), ())


def settings() -> Any:
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


def parameters(defined: Definition) -> Iterator[tuple[str, str]]:
    """The stage's parameters, one a number: ("train.lr", "0.001"). Of a place on this machine the last name alone."""

    def spell(key: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for part, inner in value.items():
                yield from spell(f"{key}.{part}", inner)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield key, Path(text).name if text.startswith(("/", "~")) else text

    for key in defined.params:
        value = settings()
        for part in key.split("."):
            value = value[part]
        yield from spell(key, value)


def read_by(defined: Definition) -> list[dict[str, Any]]:
    """The data that a stage reads, under the names of the outputs they are, so that stages join up.

    Under DVC their hashes are those of dvc.lock, which DVC has just compared with the files; else they are computed.
    """
    stages = read() if Path("dvc.lock").is_file() else {}
    hashes = Hashes(Path())
    outs = {path: digest for stage in stages.values() for path, digest in stage.outs.items()}
    found: dict[str, str | None] = {}
    for dep in defined.deps:
        if dep.startswith("fra/"):
            continue
        for path in [out for out in outs if contains(out, dep) or contains(dep, out)] or [dep]:
            locked = outs.get(path) if "DVC_STAGE" in os.environ else None
            found[path] = locked or hashes.of(path)
    return [dataset(path, digest) for path, digest in found.items()]


def written(defined: Definition) -> list[dict[str, Any]]:
    """What a stage has written, by DVC's hashes, with sizes."""
    hashes, found = Hashes(Path()), []
    for path in defined.outs:
        digest = hashes.of(path)
        if digest is None:
            continue
        sizes = [Path(file).stat().st_size for file in hashes.files if contains(path, file)]
        statistics = facet(
            "facets/1-0-2/OutputStatisticsOutputDatasetFacet", {"size": sum(sizes), "fileCount": len(sizes)}
        )
        found.append({**dataset(path, digest), "outputFacets": {"outputStatistics": statistics}})
    return found


def dataset(path: str, digest: str | None = None) -> dict[str, Any]:
    version = facet("facets/1-0-1/DatasetVersionDatasetFacet", {"datasetVersion": digest})
    return {"namespace": NAMESPACE, "name": path, "facets": {"version": version} if digest else {}}
