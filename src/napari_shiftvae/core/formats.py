"""File formats of microscope images, each read into the same record.

TIFF, PNG and npy are read here, others in `zarr_files`, `vendor_files` and `scanning_probe`.
"""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from napari_shiftvae.core.errors import InputError, reading
from napari_shiftvae.core.scanning_probe import SPM_FORMATS, read_scan
from napari_shiftvae.core.signals import Axis, Signal, file_stem
from napari_shiftvae.core.vendor_files import VENDOR_FORMATS, read_vendor_file
from napari_shiftvae.core.zarr_files import read_zarr


def read_signals(path: str | Path) -> list[Signal]:
    """Read the data sets of a file.

    Parameters
    ----------
    path : str or Path
        TIFF, PNG, npy, zarr; with the extra `em` a microscope vendor's file, with the extra `spm`
        one of Nanonis or Gwyddion.

    Returns
    -------
    list of Signal
        At least one. Stacks of zarr and in large vendor's files are lazy (dask), those of npy and
        plain TIFF mapped into memory.

    Raises
    ------
    InputError
        The file is absent, of an unknown format, broken, or holds no image.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file {path}; check the name and the folder.")
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != ".zarr":
        raise InputError(f"{path} is a folder; choose an image in it.")
    with reading(path):
        if suffix in {".tif", ".tiff"}:
            return [_read_tiff(path)]
        if suffix == ".png":
            return [_read_png(path)]
        if suffix == ".npy":
            data = _read_npy(path)
            return [Signal(data=data, name=file_stem(path), axes=_plain_axes(data.ndim))]
        if suffix == ".zarr":
            return [read_zarr(path)]
        if suffix in VENDOR_FORMATS:
            return read_vendor_file(path)
        if suffix in SPM_FORMATS:
            return read_scan(path)
    known = ", ".join([".tif", ".png", ".npy", ".zarr", *VENDOR_FORMATS, *SPM_FORMATS])
    raise InputError(f"{path.name} is of no known image format; use one of {known}.")


def _plain_axes(ndim: int) -> tuple[Axis, ...]:
    return tuple(Axis() for _ in range(ndim))


def _read_npy(path: Path) -> Any:
    with suppress(ValueError):  # objects, or nothing at all: said below
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.ndim > 2:
            return mapped
    return np.load(path, allow_pickle=False)


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
        one = series[chosen]
        # a stack that lies in the file as in memory is read where it is looked at
        mapped = one.dataoffset is not None and not any(is_image)
        data = np.asarray(one.asarray(out="memmap" if mapped else None))
        letters = one.axes.lower()
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
