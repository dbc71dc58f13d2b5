"""File formats of microscope images, each read into the same record.

TIFF, PNG, npy and zarr are read here; microscope vendors' files through RosettaSciIO (extra `em`).
"""

import importlib
import importlib.util
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_shiftvae.core.errors import InputError, reading

# Suffix -> module of RosettaSciIO. Only formats that hold images; napari.yaml lists the same ones.
VENDOR_FORMATS = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".emi": "tia",
    ".hspy": "hspy",
    ".mrc": "mrc",
    ".prz": "pantarhei",
    ".rpl": "ripple",
    ".ser": "tia",
}

_READ_WHOLE_BYTES = 2**30

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
    """

    data: Any
    name: str
    axes: tuple[Axis, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


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


def read_signals(path: str | Path) -> list[Signal]:
    """Read the data sets of a file.

    Parameters
    ----------
    path : str or Path
        TIFF, PNG, npy, zarr or, with RosettaSciIO installed, a microscope vendor's file.

    Returns
    -------
    list of Signal
        At least one; data of a vendor's file above 1 GiB is lazy (dask).

    Raises
    ------
    InputError
        The file is absent, of an unknown format, broken, or holds no image.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file {path}; check the name and the folder.")
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in {".tif", ".tiff"}:
            return [_read_tiff(path)]
        if suffix == ".png":
            return [_read_png(path)]
        if suffix == ".npy":
            data = np.load(path, allow_pickle=False)
            return [Signal(data=data, name=file_stem(path), axes=_plain_axes(data.ndim))]
        if suffix == ".zarr":
            return [_read_zarr(path)]
        if suffix in VENDOR_FORMATS:
            return _read_vendor(path)
    known = ", ".join([".tif", ".png", ".npy", ".zarr", *VENDOR_FORMATS])
    raise InputError(f"{path.name} is of no known image format; use one of {known}.")


def _plain_axes(ndim: int) -> tuple[Axis, ...]:
    return tuple(Axis() for _ in range(ndim))


def _read_png(path: Path) -> Signal:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        # a palette holds colours, and the opacity of a grey image is no part of the measurement
        grey_or_rgb = {"P": "RGB", "PA": "RGB", "LA": "L"}.get(image.mode)
        data = np.asarray(image.convert(grey_or_rgb) if grey_or_rgb else image)
    return Signal(data=data, name=file_stem(path), axes=_plain_axes(data.ndim))


def _read_tiff(path: Path) -> Signal:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = list(tiff.series)
        # a file of several series is an image with its thumbnails, or channels of other sizes
        is_image = [sum(length > 1 for length in one.shape) == 2 for one in series]
        chosen = is_image.index(True) if any(is_image) else 0
        data = np.asarray(series[chosen].asarray())
        letters = series[chosen].axes.lower()
        sizes = _ome_pixel_size(tiff, chosen) or _imagej_pixel_size(tiff)
    axes = tuple(
        Axis(name=letter, scale=sizes[letter][0], unit=sizes[letter][1])
        if letter in sizes
        else Axis(name=letter)
        for letter in letters
    )
    return Signal(data=data, name=file_stem(path), axes=axes)


def _ome_pixel_size(tiff: Any, series: int) -> dict[str, tuple[float, str]]:
    """Size and unit of a pixel along "y" and "x" as the OME-XML gives them."""
    import tifffile

    if not tiff.is_ome or not tiff.ome_metadata:
        return {}
    images = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    pixels = (images if isinstance(images, list) else [images])[series]["Pixels"]
    return {
        letter.lower(): (
            float(pixels[f"PhysicalSize{letter}"]),
            # the OME schema's default unit is the micrometre
            str(pixels.get(f"PhysicalSize{letter}Unit", "um")),
        )
        for letter in "YX"
        if f"PhysicalSize{letter}" in pixels
    }


def _imagej_pixel_size(tiff: Any) -> dict[str, tuple[float, str]]:
    """Size and unit of a pixel along "y" and "x" as ImageJ writes them: pixels per unit."""
    if not tiff.is_imagej:
        return {}
    unit = str((tiff.imagej_metadata or {}).get("unit", ""))
    unit = unit.replace("\\u00B5", "u")  # ImageJ escapes the micro sign
    tags = tiff.pages[0].tags
    sizes = {}
    for letter in "YX":
        if f"{letter}Resolution" in tags:
            pixels, length = tags[f"{letter}Resolution"].value
            sizes[letter.lower()] = (length / pixels if pixels else math.nan, unit)
    return sizes


def _read_zarr(path: Path) -> Signal:
    if importlib.util.find_spec("zarr") is None:
        raise InputError(
            f"{path.name} needs the zarr library; run pip install napari-shiftvae[dask]."
        )
    import zarr

    store = zarr.open(path, mode="r")
    if isinstance(store, zarr.Array):
        return Signal(data=np.asarray(store), name=file_stem(path), axes=_plain_axes(store.ndim))
    # a folder of arrays: OME-Zarr, whose first data set is the full-size image
    attributes: dict[str, Any] = dict(store.attrs)
    described = attributes.get("ome", attributes).get("multiscales")
    if not described:
        raise InputError(
            f"{path.name} is a zarr group without an OME image; give the path of one of its arrays."
        )
    image = described[0]["datasets"][0]
    steps = next(
        (t["scale"] for t in image.get("coordinateTransformations", []) if t["type"] == "scale"),
        [1.0] * len(described[0]["axes"]),
    )
    axes = tuple(
        Axis(name=str(axis["name"]), scale=float(step), unit=str(axis.get("unit", "")))
        for axis, step in zip(described[0]["axes"], steps, strict=True)
    )
    return Signal(data=np.asarray(store[image["path"]]), name=file_stem(path), axes=axes)


def _read_vendor(path: Path) -> list[Signal]:
    if importlib.util.find_spec("rsciio") is None:
        raise InputError(
            f"{path.name} is a microscope vendor's file that needs RosettaSciIO; "
            "run pip install napari-shiftvae[em]."
        )
    module = importlib.import_module(f"rsciio.{VENDOR_FORMATS[path.suffix.lower()]}")
    # Lazy only where it has to be: it keeps files open, and fails on HDF5 without chunks.
    lazy = path.stat().st_size > _READ_WHOLE_BYTES
    found = [_vendor_signal(raw, path) for raw in module.file_reader(str(path), lazy=lazy)]
    signals = [signal for signal in found if signal is not None]
    if not signals:
        raise InputError(
            f"{path.name} holds {len(found)} data sets but no image; "
            "save the image itself from the microscope's software."
        )
    return signals


def _vendor_signal(raw: dict[str, Any], path: Path) -> Signal | None:
    """Make a record of one of RosettaSciIO's dictionaries; None where it is no image."""
    data, described = raw["data"], list(raw["axes"])
    described.sort(key=lambda axis: axis.get("index_in_array", 0))
    if data.dtype.names:  # RGB pixels are records of three or four bytes
        data = np.stack([np.asarray(data[channel]) for channel in data.dtype.names], axis=-1)
        described.append({"name": "channel"})
    spectral = [i for i, axis in enumerate(described) if not axis.get("navigate", False)]
    if len(described) < 2:
        return None
    if len(spectral) == 1 and len(described) > 2:
        # a spectrum image: the image is spanned by the scanned axes, the spectrum comes first
        order = spectral + [i for i in range(len(described)) if i not in spectral]
        data = data.transpose(order)
        described = [described[i] for i in order]
    elif len(spectral) == 1:
        return None  # a line of spectra
    general = raw.get("metadata", {}).get("General", {})
    return Signal(
        data=data,
        name=str(general.get("title", "")).strip() or file_stem(path),
        axes=tuple(_vendor_axis(axis) for axis in described),
        metadata=raw.get("metadata", {}),
    )


def _vendor_axis(axis: dict[str, Any]) -> Axis:
    scale, offset = float(axis.get("scale", 1.0)), float(axis.get("offset", 0.0))
    unit = _text(axis.get("units"))
    if not math.isfinite(scale) or scale == 0:
        scale, unit = 1.0, ""
    return Axis(
        name=_text(axis.get("name")),
        scale=scale,
        offset=offset if math.isfinite(offset) else 0.0,
        unit=unit,
    )


def _text(value: object) -> str:
    """Empty for what RosettaSciIO gives in place of an absent name or unit."""
    text = value.strip() if isinstance(value, str) else ""
    return "" if "undefined" in text.casefold() else text
