"""Data sets as files hold them: arrays with axes that say where their pixels are."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NM_PER_UNIT = {
    "m": 1e9,
    "cm": 1e7,
    "mm": 1e6,
    "um": 1e3,
    "\u03bcm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "nm": 1.0,
    "nanometer": 1.0,
    "angstrom": 0.1,
    "\u00e5": 0.1,
    "\u00e5ngstr\u00f6m": 0.1,
    "pm": 1e-3,
    "picometer": 1e-3,
}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a signal: position = offset + scale * index.

    Attributes
    ----------
    name : str
        Empty where the file gives none.
    scale, offset : float
        Step and position of the first pixel's centre, in `unit`.
    unit : str
        As the file gives it, empty where it gives none.
    """

    name: str = ""
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One data set of a file.

    Attributes
    ----------
    data : array
        numpy or dask array; the last two axes are those of the image (y, x).
    name : str
        The file's own title, or the name of the file.
    axes : tuple of Axis
        One for each axis of `data`.
    metadata : Mapping
        What the file says about the measurement.
    spectral : bool
        Whether the first axis is that of spectra, one for each pixel of a scan.
    """

    data: Any
    name: str
    axes: tuple[Axis, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    spectral: bool = False


def nm_per_unit(unit: str) -> float | None:
    """Length of a unit in nm; None where it is no unit of length (or unknown).

    Examples
    --------
    >>> nm_per_unit("pm"), nm_per_unit("A"), nm_per_unit("1/nm")
    (0.001, 0.1, None)
    """
    if unit == "A":  # ImageJ's angstrom; lower-case "a" is none
        return 0.1
    # NFKC: the micro and angstrom signs have two code points each
    plain = unicodedata.normalize("NFKC", unit.strip()).casefold()
    return _NM_PER_UNIT.get(plain.replace("metre", "meter").removesuffix("s"))


def file_stem(path: Path) -> str:
    """File name without its suffix, `.ome.tif` and `.ome.zarr` being one suffix."""
    return path.stem.removesuffix(".ome")
