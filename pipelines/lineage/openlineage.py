"""OpenLineage events: what ran, on which data, with which result, in a format that other lineage systems read.

Each run of a stage has an event for its START and one for its end (COMPLETE, FAIL or ABORT). Events are appended to a
file below `.work`, and sent to a receiver where `FRA_OPENLINEAGE_URL` names one. They follow the published schemas
(OpenLineage 2-0-2) without the official client, which takes half a second to import in every stage; tests read our
events with its classes.
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

from pipelines import params
from pipelines.lineage import record
from pipelines.repo.definition import Definition
from pipelines.repo.hashes import Hashes, is_tracked
from pipelines.repo.lock import LOCK, contains, read

EVENTS = Path(".work/openlineage/events.jsonl")
"""The file of events, one a line."""
URL = "FRA_OPENLINEAGE_URL"
"""Environment variable with the address of a receiver such as Marquez; `/api/v1/lineage` is added to it."""
API_KEY = "FRA_OPENLINEAGE_API_KEY"
"""Environment variable with the bearer token that is sent to the receiver."""
TIMEOUT = 5.0
"""Seconds that a receiver has to answer."""
NAMESPACE = "fra"
PRODUCER = "urn:fra:pipelines"
SPEC = "https://openlineage.io/spec"
CORE = "2-0-2/OpenLineage"

logger = logging.getLogger("fra")


@contextmanager
def run(stage: str, parent: str | None = None) -> Iterator[None]:
    """Emits the events of a stage's run: its start, and how it ended.

    Nothing here stops a stage: where an event cannot be made, written or sent, one warning is logged and no further
    event of this run is emitted there.

    Args:
        stage: the stage's name, used where DVC did not set its own (`DVC_STAGE`).
        parent: the id (a UUID) of the run that started this one.
    """
    identity = str(uuid4())
    targets: dict[str, Callable[[str], None]] = {f"in {EVENTS}": append}
    if url := os.environ.get(URL):
        targets[f"at {urlsplit(url).hostname}"] = lambda line: post(line, url)

    def emit(state: str, error: BaseException | None = None) -> None:
        if not targets:
            return
        try:
            line = json.dumps(event(stage, identity, state, parent, error), sort_keys=True)
        except Exception as problem:
            logger.warning("no OpenLineage events of %s: %s: %s", stage, type(problem).__name__, problem)
            targets.clear()
        for place, send in list(targets.items()):
            try:
                send(line)
            except Exception as problem:
                logger.warning("no OpenLineage events %s: %s: %s", place, type(problem).__name__, problem)
                del targets[place]

    emit("START")
    try:
        yield
    except BaseException as error:
        emit("FAIL" if isinstance(error, Exception) else "ABORT", error)  # the others are signals and exits
        raise
    emit("COMPLETE")


def append(line: str) -> None:
    """Appends a line to the file of events. Lines of parallel stages do not mix, nor with one that was cut off."""
    EVENTS.parent.mkdir(parents=True, exist_ok=True)
    with EVENTS.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read(1) not in (b"", b"\n")  # by a process that was killed while writing
        rest = memoryview(b"\n" * torn + line.encode() + b"\n")
        while rest:
            rest = rest[file.write(rest) :]


class NoRedirect(HTTPRedirectHandler):
    """Refuses redirects: a redirected POST would become a GET that succeeds, and send the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Returns None, by which urllib raises the redirect as an error."""
        return None


def post(line: str, url: str) -> None:
    """Sends an event to a receiver. Raises `OSError` or `ValueError` where that fails."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{URL} must begin with http:// or https://")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(API_KEY):
        headers["Authorization"] = f"Bearer {key}"
    request = Request(f"{url.rstrip('/')}/api/v1/lineage", line.encode(), headers, method="POST")
    with build_opener(NoRedirect).open(request, timeout=TIMEOUT):
        pass


def event(
    stage: str, identity: str, state: str, parent: str | None = None, error: BaseException | None = None
) -> dict[str, Any]:
    """A RunEvent of OpenLineage as plain data.

    Outputs have versions in the event COMPLETE, which names only those that exist: some stages of DVC are several
    commands, each a run of its own ("benchmark@rafdb.ingest").
    """
    name = os.environ.get("DVC_STAGE", stage)
    defined = record.definition_of(name)
    outputs = written(name, defined) if state == "COMPLETE" else [dataset(path) for path in defined.outs]
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
    """A facet of a published schema, such as "facets/1-0-1/ErrorMessageRunFacet"; `kind` where that defines several."""
    return {
        "_producer": PRODUCER,
        "_schemaURL": f"{SPEC}/{schema}.json#/$defs/{kind or schema.rsplit('/', 1)[1]}",
        **fields,
    }


def run_facets(defined: Definition, parent: str | None, error: BaseException | None) -> dict[str, Any]:
    """The facets of a run: parameters, code, environment, parent, error."""
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
    """The facets of a job: its type, and the commit of the code."""
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


def parameters(defined: Definition) -> Iterator[tuple[str, str]]:
    """The stage's parameters by dotted key: ("train.lr", "0.001"). Of an absolute path only the last name is given."""

    def flatten(key: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for part, inner in value.items():
                yield from flatten(f"{key}.{part}", inner)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield key, Path(text).name if text.startswith(("/", "~")) else text

    values = params.read() if defined.params else {}
    for key in defined.params:
        value: Any = values
        for part in key.split("."):
            value = value[part]
        yield from flatten(key, value)


def read_by(defined: Definition) -> list[dict[str, Any]]:
    """The data that a stage reads, under the names of the outputs that they are, so that stages join into one graph.

    Under DVC their hashes are those of dvc.lock, which DVC has just compared with the files; else they are computed.
    """
    stages = read() if LOCK.is_file() else {}
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


def written(stage: str, defined: Definition) -> list[dict[str, Any]]:
    """What a stage has written, with DVC's hashes, which its record has just taken, and sizes."""
    try:
        known = record.read(stage)["outs"]
    except (OSError, ValueError):
        known = {}
    hashes, found = Hashes(Path()), []
    for path in defined.outs:
        digest = known.get(path) or hashes.of(path)
        if digest is None:
            continue
        files = Path(path).rglob("*") if Path(path).is_dir() else [Path(path)]
        sizes = [file.stat().st_size for file in files if file.is_file() and is_tracked(file)]
        statistics = facet(
            "facets/1-0-2/OutputStatisticsOutputDatasetFacet", {"size": sum(sizes), "fileCount": len(sizes)}
        )
        found.append({**dataset(path, digest), "outputFacets": {"outputStatistics": statistics}})
    return found


def dataset(path: str, digest: str | None = None) -> dict[str, Any]:
    """A data set of OpenLineage: a path, and as its version DVC's hash where it is known."""
    version = facet("facets/1-0-1/DatasetVersionDatasetFacet", {"datasetVersion": digest})
    return {"namespace": NAMESPACE, "name": path, "facets": {"version": version} if digest else {}}
