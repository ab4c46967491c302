"""A trace (`pipelines.lineage.show`) as an HTML page with a graph of its stages."""

from __future__ import annotations

import html
import json
from typing import Any

from pipelines.lineage.show import commit, environment

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
    """A trace as one HTML page with a graph, which opens from disk without a network."""
    title = f"Lineage of {html.escape(origin['artifact'])}"
    body = drawing(origin) + "".join(details(name, stage) for name, stage in origin.get("stages", {}).items())
    rest = {key: value for key, value in origin.items() if key != "stages"}
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}<h2>Validation and images</h2>"
        f"<pre>{html.escape(json.dumps(rest, indent=2))}</pre></main></body></html>\n"
    )


def layers(stages: dict[str, Any]) -> dict[str, int]:
    """The number of steps from the images to each stage."""
    depth: dict[str, int] = {}
    for _ in stages:
        for name, stage in stages.items():
            depth[name] = max((depth.get(other, 0) + 1 for other in stage["after"]), default=0)
    return depth


def drawing(origin: dict[str, Any]) -> str:
    """The stages as boxes from left to right in an SVG, each a link to its details."""
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
    """The details of a stage as HTML: command, code, environment, inputs and outputs, parameters."""
    rows = [("command", stage["command"])]
    if stage["code"]:
        rows.append(("code", commit(stage["code"])))
    if stage["environment"]:
        rows.append(("environment", environment(stage["environment"])))
    rows += [(f"ran {path}", digest) for path, digest in stage["ran"].items()]
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
