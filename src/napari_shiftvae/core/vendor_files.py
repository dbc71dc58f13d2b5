"""Microscope vendors' files, read through RosettaSciIO (extra `em`)."""

import importlib
import importlib.util
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.signals import Axis, Signal, file_stem

# Suffix -> module of RosettaSciIO. Only formats that hold images; napari.yaml lists the same ones.
VENDOR_FORMATS = {
    ".bcf": "bruker",
    ".blo": "blockfile",
    ".de5": "emd",
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".elid": "phenom",
    ".emd": "emd",
    ".emi": "tia",
    ".hspy": "hspy",
    ".mrc": "mrc",
    ".prz": "pantarhei",
    ".rpl": "ripple",
    ".ser": "tia",
    ".sur": "digitalsurf",
    ".unf": "semper",
}

READ_WHOLE_BYTES = 2**26  # smaller files are read at once, and not kept open


def read_vendor_file(path: Path) -> list[Signal]:
    """Read the images, stacks and spectrum images of a file.

    Parameters
    ----------
    path : Path
        Its suffix is one of `VENDOR_FORMATS`.

    Returns
    -------
    list of Signal
        At least one. Stacks in files above 64 MiB are lazy (dask): read frame by frame.

    Raises
    ------
    InputError
        RosettaSciIO is not installed, or the file holds no image. A broken file raises whatever
        the format's reader does.
    """
    if importlib.util.find_spec("rsciio") is None:
        raise InputError(
            f"{path.name} is a microscope vendor's file that needs RosettaSciIO; "
            "run pip install napari-shiftvae[em]."
        )
    module = importlib.import_module(f"rsciio.{VENDOR_FORMATS[path.suffix.lower()]}")
    found = [_vendor_signal(raw, path) for raw in _dictionaries(module, path)]
    signals = [signal for signal in found if signal is not None]
    if not signals:
        raise InputError(
            f"{path.name} holds {len(found)} data sets but no image; "
            "save the image itself from the microscope's software."
        )
    return signals


def _dictionaries(module: Any, path: Path) -> list[dict[str, Any]]:
    """What RosettaSciIO reads, stacks of large files lazily."""
    if path.stat().st_size > READ_WHOLE_BYTES:
        # ValueError: HDF5 without chunks, which can only be read at once
        with suppress(ValueError, NotImplementedError):
            return list(module.file_reader(str(path), lazy=True))
    return list(module.file_reader(str(path), lazy=False))


def _vendor_signal(raw: dict[str, Any], path: Path) -> Signal | None:
    """Make a record of one of RosettaSciIO's dictionaries; None where it is no image."""
    data, described = raw["data"], list(raw["axes"])
    described.sort(key=lambda axis: axis.get("index_in_array", 0))
    if data.dtype.names:  # RGB pixels are records of three or four bytes
        data = np.stack([np.asarray(data[channel]) for channel in data.dtype.names], axis=-1)
        described.append({"name": "channel"})
    elif data.ndim == 2:
        data = np.asarray(data)  # only stacks are worth a lazy array
    spectral = [i for i, axis in enumerate(described) if not axis.get("navigate", False)]
    if len(described) < 2:
        return None
    of_spectra = len(spectral) == 1 and len(described) > 2
    if of_spectra:
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
        spectral=of_spectra,
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
