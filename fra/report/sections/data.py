"""Sections on the data and on provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from fra.report.artifacts import Run
from fra.report.elements import Table

SMALL = 2000
"""Number of labelled images below which the page marks the metrics as those of a small set."""


def subtitle(run: Run) -> str:
    """Return backbone, number of masks and commit in one line, as far as the provenance contains them."""
    model, code = run.provenance.get("params", {}).get("model", {}), run.provenance.get("code", {})
    parts = []
    if "backbone" in model:
        parts.append(f"backbone {model['backbone']}")
    if "num_masks" in model:
        parts.append(f"{model['num_masks']} masks")
    if code.get("commit"):
        parts.append(f"commit {code['commit'][:10]}{' with local changes' if code.get('modified') else ''}")
    return ", ".join(parts)


def small_set(manifest: pd.DataFrame) -> str:
    """Return the size of a labelled set that is too small to rank methods, as text; empty for a larger set.

    `manifest` has the usable rows (`fra.validation.verdict.usable_rows`).
    """
    return "" if len(manifest) >= SMALL else set_size(manifest)


def set_size(manifest: pd.DataFrame, images: str = "photographs") -> str:
    """Return the numbers of images and people of a labelled set as text; `images` is what its images are."""
    people = manifest["person"].nunique()
    return f"{len(manifest):,} {images}" + (f" of {people:,} people" if people else "")


def split_table(manifest: pd.DataFrame) -> Table:
    """Return a table of usable images, people, image sizes in pixels, and bytes of each split."""
    parts = [(split, manifest[manifest["split"] == split]) for split in ("train", "val", "test")]
    rows = []
    for name, part in [*((name, part) for name, part in parts if len(part)), ("all", manifest)]:
        decoded = part[part["width"] > 0]
        sizes = ""
        if len(decoded):
            small, large = decoded[["width", "height"]].min(), decoded[["width", "height"]].max()
            sizes = f"{small['width']}×{small['height']}"
            if not small.equals(large):
                sizes += f" to {large['width']}×{large['height']}"
        rows.append(
            [
                name,
                f"{len(part):,}",
                f"{part['person'].nunique():,}",
                sizes,
                f"{part['bytes'].sum() / 1e6:,.1f} MB",
            ]
        )
    return Table(
        "Usable images of each split", ["Split", "Images", "People", "Width × height", "Files"], rows
    )


def label_table(manifest: pd.DataFrame) -> Table | None:
    """Return a table of the number of images with each label and label value; None if the set has no labels."""
    rows = []
    for column in (name for name in manifest if str(name).startswith("label.")):
        known = manifest[column].dropna()
        values = known.value_counts().sort_index()
        rows.append(
            [
                str(column).removeprefix("label.").replace("_", " "),
                f"{len(known):,}",
                ", ".join(f"{value:g}: {count:,}" for value, count in values.items()),
            ]
        )
    landmarks_known = int(manifest["landmarks"].notna().sum())
    if landmarks_known:
        points = len(manifest["landmarks"].dropna().iloc[0]) // 2
        rows.append(["Landmarks", f"{landmarks_known:,}", f"{points} points"])
    return Table("Labels", ["Label", "Images", "Values: images"], rows) if rows else None


def provenance_tables(run: Run) -> Iterator[Table]:
    """Yield a table for each part of the provenance, nested names joined by dots; last the validated files."""
    scalars = [
        [key, as_yaml(value)] for key, value in run.provenance.items() if not isinstance(value, Mapping)
    ]
    if scalars:
        yield Table("General", ["Name", "Value"], scalars)
    for part, values in run.provenance.items():
        if isinstance(values, Mapping) and values:
            yield Table(part.replace("_", " ").capitalize(), ["Name", "Value"], list(flatten(values)))
    validated = [[file, digest] for file, digest in run.verdict.validated_files.items()]
    yield Table("Validated files", ["File", "SHA-256"], validated)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    """Yield (name, value as text) of nested mappings, names joined by dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield [f"{prefix}{name}", as_yaml(value)]


def as_yaml(value: Any) -> str:
    """Return a parameter as text, as in a YAML file; None is "none"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    return "none" if value is None else str(value)
