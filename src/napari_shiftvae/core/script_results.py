"""Code of what was read from a run: classes of its atoms, and fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from napari_shiftvae.core.readout import Options

__all__ = ["Classes", "Fields", "result_lines"]


@dataclass(frozen=True, kw_only=True)
class Classes:
    """How atoms were sorted into classes.

    Attributes
    ----------
    columns : sequence of str
        Of the table of atoms.
    method, criterion : str
    count : int or None
    seed : int
        As `classify.cluster` takes them.
    split : bool
        Whether classes were then split by the brightness of their atoms.
    """

    columns: Sequence[str]
    method: str
    criterion: str
    count: int | None
    seed: int
    split: bool


@dataclass(frozen=True, kw_only=True)
class Fields:
    """How fields were worked out.

    Attributes
    ----------
    options : Options
    regions : sequence of sequences of (y, x)
        Outlines [px] of what was taken as undisplaced and unstrained; none for all of the image.
    sublattice : Path or None
        Table of the atoms with their sublattices.
    pixel_size_nm : (float, float) or None
        (y, x), where another one was set than the run knows.
    """

    options: Options
    regions: Sequence[Sequence[tuple[float, float]]] = ()
    sublattice: Path | None = None
    pixel_size_nm: tuple[float, float] | None = None


def result_lines(
    classes: Classes | None, fields: Fields | None, uses: set[tuple[str, str]]
) -> list[str]:
    """Write the code that reads classes and fields from `run`, of `image`.

    Parameters
    ----------
    classes : Classes or None
    fields : Fields or None
    uses : set of (module, name)
        What the code uses is added.

    Returns
    -------
    list of str
    """
    lines = [] if classes is None else _class_lines(classes, uses)
    return lines + ([] if fields is None else _field_lines(fields, uses))


def _class_lines(classes: Classes, uses: set[tuple[str, str]]) -> list[str]:
    """Write the code that sorts the atoms of `run`, of `image`, into classes."""
    uses.add(("classify", "cluster"))
    chosen = f"method={classes.method!r}, count={classes.count!r}, criterion={classes.criterion!r}"
    lines = [
        f"values = run.atoms[{list(classes.columns)!r}].to_numpy()",
        f"found = cluster(values, {chosen}, seed={classes.seed!r})",
        "label = found.label",
    ]
    if classes.split:
        uses |= {
            ("classify", "central_brightness"),
            ("classify", "split_classes"),
            ("manifold", "patches_of"),
        }
        lines += [
            "patches = patches_of(run, image)",
            "brightness = np.full(len(run.atoms), np.nan)",
            "brightness[patches.index] = central_brightness(patches, run.separation_px)",
            f"label = split_classes(label, brightness, seed={classes.seed!r})",
        ]
    return [*lines, "print(found.sentence)"]


def _field_lines(asked: Fields, uses: set[tuple[str, str]]) -> list[str]:
    """Write the code that works out the fields of `run`, of `image`."""
    uses |= {("readout", "Options"), ("readout", "read_out")}
    plain = Options()
    chosen = ", ".join(
        f"{one.name}={getattr(asked.options, one.name)!r}"
        for one in fields_of(Options)
        if getattr(asked.options, one.name) != getattr(plain, one.name)
    )
    lines: list[str] = []
    more: dict[str, Any] = {}
    if asked.regions:
        outlines = ", ".join(
            str([[round(y, 6), round(x, 6)] for y, x in outline]) for outline in asked.regions
        )
        lines += [
            f"outlines = [{outlines}]  # of the reference, (y, x) [px]",
            "region = np.any([polygon2mask(image.data.shape, one) for one in outlines], axis=0)",
            "height, width = region.shape",
            "y, x = run.picks_yx.round().astype(int).T",
            "inside = region[y.clip(0, height - 1), x.clip(0, width - 1)]",
        ]
        more["inside"] = "inside"
    if asked.sublattice is not None:
        uses.add(("positions", "read_positions"))
        path = str(asked.sublattice)
        lines.append(f"names = read_positions({path!r})['sublattice'].fillna('').to_numpy()")
        more["sublattice"] = "names"
    if asked.pixel_size_nm is not None:
        more["pixel_size_nm"] = repr(asked.pixel_size_nm)
    keywords = "".join(f", {name}={value}" for name, value in more.items())
    return [
        *lines,
        f"fields = read_out(run, Options({chosen}){keywords})",
        "print(*fields.sentences, sep='\\n')",
        "vectors = fields.field.true_yx_px  # and maps in fields.scalars",
    ]
