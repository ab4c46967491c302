"""From an artifact back to what it was made from: as data, as a tree for the terminal, as a page with a graph."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from rich.tree import Tree

from fra.files import read_parquet
from pipelines.lineage import approval, record
from pipelines.lineage.record import metadata
from pipelines.lineage.verify import ancestry
from pipelines.repo import experiments
from pipelines.repo.lock import LineageError, Stage, above, maker, md5, read

FIGURES = {
    "alignment": "transfer@alignment",
    "expression": "transfer@expression",
    "attributes": "transfer@attributes",
    "verification": "transfer@verification",
    "training": "pretrain",
    "regions": "pretrain",
    "data": "validate",
}
"""Sections of the report page, and the stage whose figures they show: `artifacts/report/index.html#alignment`."""


def trace(artifact: str, root: Path = Path()) -> dict[str, Any]:
    """Everything that `artifact` was made from, as plain data.

    `artifact` is a path in the workspace, a part of one behind `#` (a metric, a section of the report), or any file:
    a copy of weights on another disk is found by its bytes, in this run or an experiment, or else speaks for itself.

    Raises:
        LineageError: nothing is known of it.
    """
    path, _, part = artifact.partition("#")
    inside = relative(path, root)
    stages = read(root)
    if inside is not None and (made := maker(stages, inside)):
        stage, out = made
        if stage.name == "report" and part:
            stage = stages.get(FIGURES.get(part, ""), stage)
        return {
            "artifact": artifact,
            "md5": stages[made[0].name].outs[out],
            "run": "workspace",
            **origin(stages, stage, root),
        }
    file = Path(path)
    if not file.is_file():
        outs = ", ".join(sorted(out for stage in stages.values() for out in stage.outs))
        raise LineageError(
            f"{artifact}: neither an artifact of this project nor a file; artifacts are: {outs}"
        )
    digest = md5(file)
    for name, known in [("workspace", stages)] + [
        (run.name, run.stages()) for run in experiments.holding(digest, root)
    ]:
        for stage in known.values():
            if digest in stage.outs.values():
                return {"artifact": artifact, "md5": digest, "run": name, **origin(known, stage, root)}
    if file.suffix == ".safetensors":
        try:
            says = metadata(file)
        except Exception as error:
            raise LineageError(f"{artifact}: weights without readable provenance ({error})") from None
        return {"artifact": artifact, "md5": digest, "run": None, "metadata": says}
    raise LineageError(f"{artifact}: no run in this project wrote these bytes (MD5 {digest})")


def relative(path: str, root: Path) -> str | None:
    """`path` below the project, or None where it is elsewhere."""
    base = root.resolve()
    here = (base / path, Path.cwd() / path)  # as the graph names it, or as seen from the current folder
    absolute = next((place for place in here if place.exists()), here[0]).resolve()
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else None


def origin(stages: dict[str, Stage], last: Stage, root: Path) -> dict[str, Any]:
    """The stages behind an artifact, nearest last, with what each ran with; verdict, shards and images."""
    behind = ancestry(stages, next(iter(last.outs)))
    return {
        "made_by": last.name,
        "stages": {name: describe(stage, behind, root) for name, stage in behind.items()},
        "verdicts": [
            verdict(path, root)
            for stage in behind.values()
            for path in stage.outs
            if path.endswith("verdict.json")
        ],
        "images": [
            images(path, root) for stage in behind.values() for path in stage.outs if "data/manifest/" in path
        ],
    }


def describe(stage: Stage, behind: dict[str, Stage], root: Path) -> dict[str, Any]:
    file = root / record.path_of(stage.name)
    known = (
        json.loads(file.read_text(encoding="utf-8"))
        if file.is_file()
        else {"code": None, "environment": None}
    )
    return {
        "command": stage.command,
        "after": [other.name for other in above(behind, stage)],
        "code": known["code"],
        "environment": known["environment"],
        "params": dict(stage.params),
        "read": stage.data,
        "ran": stage.code,
        "wrote": dict(stage.outs),
    }


def verdict(path: str, root: Path) -> dict[str, Any]:
    file = root / path
    if not file.is_file():
        return {"path": path, "success": None}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {
        "path": path,
        **{key: content[key] for key in ("success", "rows", "quarantined", "limit", "reasons", "digest")},
        "approved": approval.of(content, root),
    }


def images(path: str, root: Path) -> dict[str, Any]:
    file = root / path
    if not file.is_file():
        return {"manifest": path, "images": None}
    table = read_parquet(file, columns=["key", "split", "person", "shard"])
    return {
        "manifest": path,
        "images": len(table),
        "people": int(table["person"].nunique()),
        "splits": {
            str(split): int(count) for split, count in table["split"].value_counts().sort_index().items()
        },
        "shards": sorted(str(name) for name in table["shard"].dropna().unique()),
    }


def tree(origin: dict[str, Any]) -> Tree:
    """A trace for the terminal."""
    top = Tree(f"[bold]{origin['artifact']}[/]  MD5 {origin['md5']}")
    if "stages" not in origin:
        top.add("no run in this project wrote these bytes; the file says of itself:")
        top.add(json.dumps(origin["metadata"], indent=2))
        return top
    if origin["run"] != "workspace":
        top.add(f"written in run {origin['run']}")
    shown: set[str] = set()

    def grow(branch: Tree, name: str) -> None:
        stage = origin["stages"][name]
        if name in shown:
            branch.add(f"[bold]{name}[/] (above)")
            return
        shown.add(name)
        node = branch.add(f"[bold]{name}[/]  {stage['command']}")
        if stage["code"]:
            node.add(f"code {commit(stage['code'])}")
        if stage["environment"]:
            node.add(f"environment {environment(stage['environment'])}")
        for section, values in stage["params"].items():
            node.add(f"{section}: {json.dumps(values)}")
        for path, digest in stage["wrote"].items():
            node.add(f"wrote {path}  {digest}")
        for other in stage["after"]:
            grow(node, other)

    grow(top, origin["made_by"])
    for found in origin["verdicts"]:
        word = "passed" if found["success"] else "did not pass"
        signed = found.get("approved")
        by = f"approved by {signed['signed_off_by']} on {signed['date']}" if signed else "approved by nobody"
        top.add(
            f"verdict {found['path']}: {word}; {found.get('quarantined')} of {found.get('rows')} quarantined; {by}"
        )
    for found in origin["images"]:
        top.add(
            f"images {found['manifest']}: {found['images']} of {found.get('people')} people, {found.get('splits')}"
        )
    return top


def commit(code: dict[str, Any]) -> str:
    if code["commit"] is None:
        return "in no git repository"
    return code["commit"] + (" with changes that are in no commit" if code["modified"] else "")


def environment(found: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items() if version)
    device = found["device"] or "no device"
    return f"Python {found['python']}, {libraries}; {device}, CUDA {found['cuda']}; lock {str(found['lock'])[:12]}"


WIDTH, HEIGHT, GAP_X, GAP_Y = 190, 46, 40, 26
STYLE = """
:root{color-scheme:light dark;--ink:#1b1b1f;--paper:#fff;--line:#777;--box:#eef2f7}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ec;--paper:#16171a;--line:#999;--box:#262a31}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:80rem;margin:2rem auto;padding:0 1rem}
svg{max-width:100%;height:auto}rect{fill:var(--box);stroke:var(--line)}path{stroke:var(--line);fill:none}
text{fill:var(--ink);font:13px system-ui,sans-serif}a:focus rect{stroke-width:3}
pre{white-space:pre-wrap;background:var(--box);padding:.8rem;overflow-wrap:anywhere}
table{border-collapse:collapse}
td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top;overflow-wrap:anywhere}
"""


def page(origin: dict[str, Any]) -> str:
    """A trace as one HTML page with a graph; opens from disk, needs no network."""
    title = f"Lineage of {html.escape(origin['artifact'])}"
    body = drawing(origin) + "".join(details(name, stage) for name, stage in origin.get("stages", {}).items())
    rest = {key: value for key, value in origin.items() if key != "stages"}
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}<h2>Verdicts and images</h2>"
        f"<pre>{html.escape(json.dumps(rest, indent=2))}</pre></main></body></html>\n"
    )


def layers(stages: dict[str, Any]) -> dict[str, int]:
    """How many steps each stage is from the images."""
    depth: dict[str, int] = {}
    for _ in stages:
        for name, stage in stages.items():
            depth[name] = max((depth.get(other, 0) + 1 for other in stage["after"]), default=0)
    return depth


def drawing(origin: dict[str, Any]) -> str:
    """The stages as boxes from left to right, each a link to its details."""
    stages = origin.get("stages", {})
    depth = layers(stages)
    rows: dict[int, int] = {}
    place = {}
    for name in stages:
        row = rows.get(depth[name], 0)
        rows[depth[name]] = row + 1
        place[name] = (depth[name] * (WIDTH + GAP_X) + 2, row * (HEIGHT + GAP_Y) + 2)
    lines, boxes = [], []
    for name, (x, y) in place.items():
        for other in stages[name]["after"]:
            left, top = place[other]
            start, end = (left + WIDTH, top + HEIGHT // 2), (x, y + HEIGHT // 2)
            bend = (start[0] + end[0]) // 2
            lines.append(
                f'<path d="M{start[0]} {start[1]}C{bend} {start[1]} {bend} {end[1]} {end[0]} {end[1]}"/>'
            )
        boxes.append(
            f'<a href="#{html.escape(name)}"><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text x="{x + 12}" y="{y + HEIGHT // 2 + 5}">{html.escape(name)}</text></a>'
        )
    width = (max(depth.values(), default=0) + 1) * (WIDTH + GAP_X)
    height = max(rows.values(), default=1) * (HEIGHT + GAP_Y)
    label = "Stages from the images to the artifact: " + ", ".join(stages)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )


def details(name: str, stage: dict[str, Any]) -> str:
    rows = [("command", stage["command"])]
    if stage["code"]:
        rows.append(("code", commit(stage["code"])))
    if stage["environment"]:
        rows.append(("environment", environment(stage["environment"])))
    rows += [(f"read {path}", digest) for path, digest in stage["read"].items()]
    rows += [(f"wrote {path}", digest) for path, digest in stage["wrote"].items()]
    cells = "".join(
        f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(value)}</td></tr>'
        for key, value in rows
    )
    params = html.escape(json.dumps(stage["params"], indent=2))
    return (
        f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2><table>{cells}</table>'
        f"<details><summary>Parameters</summary><pre>{params}</pre></details>"
    )
