"""Tables of positions in files: this program's own, napari's and Atomap's."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from napari_shiftvae.core.aside import written_aside
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration

__all__ = ["read_positions", "with_nm", "write_positions"]

# Names of the columns of each layout, by what they hold; the first complete one counts.
LAYOUTS = (
    {"y_px": "y_px", "x_px": "x_px", "t": "t"},
    {"axis-0": "t", "axis-1": "y_px", "axis-2": "x_px"},  # napari, Points of a stack
    {"axis-0": "y_px", "axis-1": "x_px"},  # napari, Points of an image
    {"y_position": "y_px", "x_position": "x_px"},  # Atomap's names
    {"y": "y_px", "x": "x_px", "frame": "t"},  # trackpy and many others
)
OPTIONAL = {"t", "frame"}
FARTHEST = 1e9  # [px] or frames: farther than any image reaches, and napari draws nothing there


def read_positions(path: str | Path) -> pd.DataFrame:
    """Read positions of atoms from a CSV file.

    The layout is told by the names of the columns: ``y_px, x_px`` with ``t`` for stacks (as
    `write_positions` makes it), napari's ``axis-0, axis-1``, Atomap's ``x_position, y_position``,
    or ``y, x`` with ``frame``. A file of two columns without names is taken for what NumPy writes
    of Atomap's `Sublattice.atom_positions`: x, then y.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    pandas.DataFrame
        ``y_px, x_px`` [px]; ``t`` [frames] where the file has it; then, of files with the first
        layout, their other columns as they are.

    Raises
    ------
    InputError
        The file cannot be read, or its positions are not all finite numbers below 1e9.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            first = file.readline()
        separator = next((mark for mark in ",;\t" if mark in first), r"\s+")
        has_names = not _are_numbers(first.replace(separator, " ").split())
        table = pd.read_csv(path, sep=separator, header="infer" if has_names else None)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())  # pandas ends its messages with a new line
        raise InputError(
            f"{path} could not be read as CSV ({reason}): give a table with columns y_px,x_px."
        ) from error
    table = _named(table, path) if has_names else _unnamed(table, path)
    places = [name for name in ("t", "y_px", "x_px") if name in table]
    try:
        table = table.astype(dict.fromkeys(places, np.float64))
    except ValueError as error:
        raise InputError(f"{path} holds positions that are no numbers: mend them.") from error
    finite = np.isfinite(table[places].to_numpy())
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(axis=1))[0]) + 1 + has_names
        raise InputError(f"{path} has no finite position in line {row}: mend or remove it.")
    far = (table[places].abs() > FARTHEST).any(axis=1).to_numpy()
    if far.any():
        row = int(np.flatnonzero(far)[0]) + 1 + has_names
        raise InputError(
            f"{path} has a position in line {row} that is beyond any image: mend or remove it."
        )
    if "t" in table:
        if not (table["t"] == table["t"].round()).all():
            raise InputError(f"{path} has frame numbers that are not whole: mend them.")
        table["t"] = table["t"].astype(np.int64)
    return table


def write_positions(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table of atoms as CSV, for `read_positions` and any other program.

    Parameters
    ----------
    table : pandas.DataFrame
        With columns ``y_px, x_px``.
    path : str or Path

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The file cannot be written.
    """
    written_aside(Path(path), partial(table.to_csv, index=False, mode="wb"))
    return Path(path)


def with_nm(table: pd.DataFrame, calibration: Calibration | None) -> pd.DataFrame:
    """Add a ``_nm`` twin of every column of lengths in pixels.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns of lengths end in ``_px``; those along one axis have ``y`` or ``x`` in their names.
    calibration : Calibration or None
        Nothing is added where None. Lengths along neither axis get no twin where pixels are oblong.

    Returns
    -------
    pandas.DataFrame
        With the new columns at its end.

    Examples
    --------
    >>> from napari_shiftvae.core.images import Calibration
    >>> table = pd.DataFrame({"y_px": [2.0], "x_px": [4.0]})
    >>> with_nm(table, Calibration(pixel_size_nm=(0.5, 0.25))).to_dict("list")
    {'y_px': [2.0], 'x_px': [4.0], 'y_nm': [1.0], 'x_nm': [1.0]}
    """
    if calibration is None:
        return table
    y, x = calibration.pixel_size_nm
    twins = {}
    for name in table:
        if not str(name).endswith("_px"):
            continue
        words = str(name).split("_")
        size = y if "y" in words else x if "x" in words else y if np.isclose(y, x) else None
        if size is not None:
            twins[f"{str(name)[:-3]}_nm"] = table[name] * size
    return table.assign(**twins)


def _are_numbers(words: list[str]) -> bool:
    try:
        return len([float(word) for word in words]) > 0
    except ValueError:
        return False


def _unnamed(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    if table.shape[1] != 2:
        raise InputError(
            f"{path} has {table.shape[1]} columns without names: name them in the first line, "
            "y_px and x_px among them."
        )
    return pd.DataFrame({"y_px": table.iloc[:, 1], "x_px": table.iloc[:, 0]})


def _named(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Give the columns the names used here."""
    table = table.rename(columns=lambda name: str(name).strip())
    for layout in LAYOUTS:
        if set(layout) - OPTIONAL <= set(table.columns):
            own = layout is LAYOUTS[0]
            there = [name for name in layout if name in table]
            rest = [name for name in table if own and name not in there]
            return table[there + rest].rename(columns=layout)
    raise InputError(f"{path} has no columns y_px and x_px: name them so in the first line.")
