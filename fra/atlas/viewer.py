"""The folder that a browser opens: the viewer of the package embedding-atlas, and our table.

The viewer (MIT licence) is a static page. It reads the table with DuckDB, compiled to WebAssembly, which is in the
package together with its parquet extension. We run none of the package's Python code, so it is installed without its
dependencies, which include sentence-transformers and litellm. Version 0.22.0 is the last one that draws with WebGL 2
where a browser has no WebGPU, as in virtual machines.
"""

from __future__ import annotations

import base64
import json
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGE, VERSION = "embedding-atlas", "0.22.0"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
LEFT_OUT = ("ort-wasm*", "duckdb-mvp*", "wasm_mvp")
"""Files of the viewer that are not copied, 65 MB: for models in the browser, and for browsers before 2022."""
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'"
)
"""What the page may load: its own files only. A browser refuses every request to another server."""
DATASET, METADATA = Path("data/dataset.parquet"), Path("data/metadata.json")
HIDDEN = ("x", "y")
"""Columns that tooltip and table do not show; the viewer itself hides those that start with two underscores."""
LABEL_SIDE = 40
"""Side in pixels of the typical faces that are drawn on the map."""


def bundle() -> Path:
    """The folder of the package with the viewer.

    Raises:
        FileNotFoundError: The package is not installed.
        ValueError: It is another version, whose files may differ.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise FileNotFoundError(f"the atlas needs the package {PACKAGE}: {INSTALL}") from None
    if package.version != VERSION:
        raise ValueError(f"{PACKAGE} {package.version} is installed; the atlas needs {VERSION}: {INSTALL}")
    return Path(str(package.locate_file("embedding_atlas/static")))


def is_atlas(folder: Path) -> bool:
    """Whether a folder has what `write` writes."""
    return (folder / DATASET).is_file() and (folder / METADATA).is_file()


def write(table: pa.Table, labels: list[dict[str, Any]], title: str, folder: Path) -> None:
    """Write viewer and table to a new folder.

    Args:
        table: One row per face, see `fra.atlas.table`.
        labels: Pictures on the map, see `picture_label`.
        title: Title of the page.
        folder: A folder that does not exist.
    """
    source = bundle()
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    page = (source / "index.html").read_text(encoding="utf-8")
    head = (
        f'<head>\n    <meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '    <link rel="icon" href="data:,">'
    )
    page = page.replace("<head>", head, 1).replace(
        "<title>Embedding Atlas</title>", f"<title>{title}</title>"
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "data").mkdir()
    pq.write_table(table, folder / DATASET, compression="zstd", row_group_size=10_000)
    metadata = {"isStatic": True, "database": {"type": "wasm", "load": True}, "props": props(table, labels)}
    (folder / METADATA).write_text(json.dumps(metadata, sort_keys=True), encoding="utf-8")


def props(table: pa.Table, labels: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings of the viewer: which columns are what, the charts at the start, and how columns are shown."""
    data = {"x": "x", "y": "y", "text": "key", "image": "thumbnail", "neighbors": "__neighbours"}
    shown = [name for name in table.column_names if not name.startswith("__") and name not in HIDDEN]
    return {
        "data": {
            "id": "__row",
            "text": "key",
            "image": "thumbnail",
            "projection": {"x": "x", "y": "y"},
            "neighbors": "__neighbours",
        },
        "defaultChartsConfig": {
            "exclude": ["key", "image", "thumbnail", *HIDDEN],
            "embedding": {"title": "Map", "data": {**data, "category": "cluster"}},
            "table": {"title": "Faces", "columns": ["thumbnail", *(n for n in shown if n != "thumbnail")]},
        },
        "embeddingViewLabels": labels,
        "initialState": {
            "columnStyles": {
                "thumbnail": {"renderer": "image", "display": "full", "options": {"size": 96}},
                **{name: {"display": "hidden"} for name in HIDDEN},
            }
        },
    }


def picture_label(x: float, y: float, thumbnail: bytes, priority: int) -> dict[str, Any]:
    """A face drawn on the map at (x, y); where two overlap, the viewer keeps the one of higher priority."""
    source = "data:image/jpeg;base64," + base64.b64encode(thumbnail).decode()
    content = {"image": source, "width": LABEL_SIDE, "height": LABEL_SIDE}
    return {"x": x, "y": y, "content": content, "level": 0, "priority": priority}
