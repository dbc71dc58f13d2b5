"""Which colour each atom has by a column of its table. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_shiftvae.layers import CLASS, CLASS_COLOURS, LATENT_COLORMAP, latent_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASS_NAME = "class_name"  # column of the atoms' table
SHADES = 64
MOST_KINDS = 20  # different words in a column that still can be told apart
NO_KIND = "#808080"


@dataclass(frozen=True, kw_only=True, eq=False)
class Colouring:
    """Colours of the atoms by one column.

    Attributes
    ----------
    shade : (N,) int array
        Row of the palette that each atom has.
    palette : (S, 4) float32 array
    limits : tuple of float or None
        Values at the ends of the colour map; None where the column has kinds instead.
    kinds : sequence of (name, colour)
        What the column's kinds are called; empty for numbers.
    """

    shade: NDArray[np.int64]
    palette: NDArray[np.float32]
    limits: tuple[float, float] | None
    kinds: Sequence[tuple[str, str]]

    @property
    def colours(self) -> NDArray[np.float32]:
        """Colour of each atom, (N, 4)."""
        return self.palette[self.shade]


def has_kinds(table: pd.DataFrame, column: str) -> bool:
    """Whether a column sorts the atoms into a few kinds, as classes do."""
    if column == CLASS:
        return True
    if column in {CLASS_NAME, "set_aside"} or pd.api.types.is_numeric_dtype(table[column]):
        return False
    return 1 < table[column].nunique() <= MOST_KINDS


def class_colour(number: int) -> str:
    """Colour of a class."""
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


def class_names(table: pd.DataFrame) -> dict[int, str]:
    """What the classes of a table are called: their numbers where they have no names."""
    numbers = table[CLASS].to_numpy(dtype=int)
    names = {int(number): str(number) for number in np.unique(numbers[numbers >= 0])}
    if CLASS_NAME in table:
        words = table[CLASS_NAME].to_numpy()
        given = {number: str(words[int(np.argmax(numbers == number))]) for number in names}
        names.update({number: name for number, name in given.items() if name})
    return names


def colouring(table: pd.DataFrame, column: str) -> Colouring:
    """Colour the atoms by a column.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an atom.
    column : str
        Of numbers, which get a colour map; or one that `has_kinds`.

    Examples
    --------
    >>> made = colouring(pd.DataFrame({"class": [1, 0, -1]}), "class")
    >>> made.shade.tolist(), [name for name, _ in made.kinds]
    ([1, 0, 10], ['0', '1'])
    """
    from napari.utils.color import ColorValue
    from napari.utils.colormaps import ensure_colormap

    if not has_kinds(table, column):
        values = table[column].to_numpy(dtype=float)
        low, high = latent_limits(values)
        scaled = np.nan_to_num((values - low) / (high - low)).clip(0, 1)
        palette = np.asarray(ensure_colormap(LATENT_COLORMAP).map(np.linspace(0, 1, SHADES)))
        return Colouring(
            shade=np.rint(scaled * (SHADES - 1)).astype(np.int64),
            palette=palette.astype(np.float32),
            limits=(low, high),
            kinds=[],
        )
    if column == CLASS:
        number = table[column].to_numpy(dtype=int)
        names = class_names(table)
    else:
        number, words = pd.factorize(table[column].replace("", None), sort=True)
        names = dict(enumerate(map(str, words)))
    colours = (*CLASS_COLOURS, NO_KIND)
    return Colouring(
        shade=np.where(number >= 0, number % len(CLASS_COLOURS), len(CLASS_COLOURS)),
        palette=np.array([ColorValue(colour) for colour in colours], dtype=np.float32),
        limits=None,
        kinds=[(name, class_colour(each)) for each, name in names.items()],
    )
