"""Lengths and numbers in words: in the user's unit, with no more digits than are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["PIXELS", "Ruler", "Unit", "with_deviation"]

Unit = Literal["px", "pm", "nm", "angstrom"]
PER_NM = {"pm": 1000.0, "nm": 1.0, "angstrom": 10.0}
MOST_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """In which unit lengths are told.

    Attributes
    ----------
    unit : {"px", "pm", "nm", "angstrom"}
    per_px : float
        Length of a pixel in this unit.
    """

    unit: Unit = "px"
    per_px: float = 1.0

    @classmethod
    def of(cls, unit: Unit, pixel_size_nm: tuple[float, float] | None) -> Ruler:
        """Measure in a unit; in square pixels of the same area where their size is not known."""
        if unit == "px" or pixel_size_nm is None:
            return PIXELS
        return cls(unit=unit, per_px=PER_NM[unit] * float(np.sqrt(np.prod(pixel_size_nm))))

    def number(self, length_px: float, digits: int = 2) -> str:
        """Give a length without its unit, as finely as with so many digits in pixels.

        Examples
        --------
        >>> Ruler(unit="pm", per_px=15.0).number(0.023, digits=3)
        '0.34'
        """
        digits = max(0, digits - math.floor(math.log10(self.per_px)))
        return rounded(self.per_px * length_px, digits)


def rounded(value: float, digits: int) -> str:
    """Write a number, without a minus before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


PIXELS = Ruler()


def with_deviation(value: float, sd: float) -> str:
    """Write a number with its standard deviation, this with two digits that count.

    Examples
    --------
    >>> with_deviation(-1.1987, 0.0123), with_deviation(0.3, 0.0), with_deviation(152.4, 31.0)
    ('-1.199 ± 0.012', '0.300000 ± 0.000000', '152 ± 31')
    """
    digits = MOST_DIGITS
    if sd > 0:
        digits = min(MOST_DIGITS, max(0, 1 - math.floor(math.log10(sd))))
    return f"{rounded(value, digits)} ± {sd:.{digits}f}"
