"""Files of scanning probe microscopes: Nanonis `.sxm`, Gwyddion `.gwy` and `.gsf` (extra `spm`)."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.signals import Axis, Signal, file_stem, nm_per_unit

# Suffix -> library that reads it; napari.yaml lists the same ones.
SPM_FORMATS = {".gsf": "gsffile", ".gwy": "gwyfile", ".sxm": "nanonispy2"}


def read_scan(path: Path) -> list[Signal]:
    """Read the channels of a file.

    Parameters
    ----------
    path : Path
        Its suffix is one of `SPM_FORMATS`.

    Returns
    -------
    list of Signal
        At least one, heights first. The first row is the top one and the first column the left
        one, whatever way was scanned. Lengths are in nm, the values of heights too.

    Raises
    ------
    InputError
        The library is not installed, or the file holds no image. A broken file raises whatever the
        library does.
    """
    library = SPM_FORMATS[path.suffix.lower()]
    if importlib.util.find_spec(library) is None:
        raise InputError(
            f"{path.name} is a scanning probe microscope's file that needs {library}; "
            "run pip install napari-shiftvae[spm]."
        )
    read = {".gsf": _read_gsf, ".gwy": _read_gwy, ".sxm": _read_sxm}[path.suffix.lower()]
    signals = read(path)
    if not signals:
        raise InputError(f"{path.name} holds no image; save the scan itself as a data field.")
    return sorted(signals, key=lambda signal: signal.metadata["unit"] != "nm")


def _read_gsf(path: Path) -> list[Signal]:
    import gsffile

    data, about = gsffile.read_gsf(path)
    unit = str(about.get("XYUnits", ""))
    axes = _axes(
        data.shape,
        (about.get("YReal", 0.0), about.get("XReal", 0.0)),
        (about.get("YOffset", 0.0), about.get("XOffset", 0.0)),
        unit,
    )
    name = str(about.get("Title", "")) or file_stem(path)
    return [_signal(data, name, axes, str(about.get("ZUnits", "")), about)]


def _read_gwy(path: Path) -> list[Signal]:
    import gwyfile

    container = gwyfile.load(str(path))
    signals = []
    for key, field in container.items():
        channel = re.fullmatch(r"/(\d+)/data", key)
        if channel is None or field.name != "GwyDataField":
            continue  # masks, selections, colours
        number = channel[1]
        about = dict(container.get(f"/{number}/meta") or {})
        unit, value_unit = (
            "" if one is None else one.unitstr for one in (field.si_unit_xy, field.si_unit_z)
        )
        extent, corner = (field.yreal, field.xreal), (field.yoff, field.xoff)
        axes = _axes(field.data.shape, extent, corner, unit)
        title = container.get(f"/{number}/data/title") or f"channel {number}"
        # gwyfile writes a title of one letter as a character, and reads that as a number
        name = chr(title) if isinstance(title, int) else str(title)
        signals.append(_signal(field.data, name, axes, value_unit, about))
    return signals


def _read_sxm(path: Path) -> list[Signal]:
    from nanonispy2.read import Scan

    class AnyDirection(Scan):  # type: ignore[misc]
        """Also of channels that were kept in one direction only, and of names in capitals."""

        def _determine_filetype(self) -> str:
            self.fname = str(path.resolve())  # as it is spelt
            return "scan"

        def _load_data(self) -> dict[str, dict[str, NDArray[np.float32]]]:
            columns, rows = self.header["scan_pixels"]
            channels = self.header["data_info"]
            kept = [
                (name, way)
                for name, direction in zip(channels["Name"], channels["Direction"], strict=True)
                for way in ("forward", "backward")
                if direction in {way, "both"}
            ]
            pixels = np.fromfile(path, self.data_format, offset=self.byte_offset)
            images = pixels.reshape(len(kept), rows, columns).astype(np.float32)
            data: dict[str, dict[str, NDArray[np.float32]]] = {name: {} for name, _ in kept}
            for (name, way), image in zip(kept, images, strict=True):
                data[name][way] = image
            return data

    scan = AnyDirection(str(path.resolve().with_suffix(".sxm")))
    header = scan.header
    width, height = (float(length) for length in header["scan_range"])
    centre_x, centre_y = (float(place) for place in header["scan_offset"])
    # the microscope's y points up, that of an image down
    corner = (-centre_y - height / 2, centre_x - width / 2)
    units = dict(zip(header["data_info"]["Name"], header["data_info"]["Unit"], strict=True))
    signals = []
    for name, ways in scan.signals.items():
        for way, data in ways.items():
            # stored in the order of measurement: upward scans begin with the bottom row
            image = data[::-1] if header["scan_dir"] == "up" else data
            image = image[:, ::-1] if way == "backward" else image
            axes = _axes(image.shape, (height, width), corner, "m")
            signals.append(_signal(image, f"{name} {way}", axes, units[name], header))
    return signals


def _nm(unit: str) -> float | None:
    """Length of a unit in nm; "A" is the ampere of a current here, not an angstrom."""
    return None if unit == "A" else nm_per_unit(unit)


def _axes(
    shape: tuple[int, ...], extent: tuple[Any, Any], corner: tuple[Any, Any], unit: str
) -> tuple[Axis, ...]:
    """Axes (y, x) of a field of so much extent; its corner is half a pixel before the first one."""
    nm = _nm(unit)
    axes = []
    for name, length, whole, start in zip("yx", shape, extent, corner, strict=True):
        step = float(whole or 0.0) / length
        if nm is None or not step:
            axes.append(Axis(name=name, unit=unit))
        else:
            offset = float(start or 0.0) + step / 2
            axes.append(Axis(name=name, scale=step * nm, offset=offset * nm, unit="nm"))
    return tuple(axes)


def _signal(
    data: NDArray[Any], name: str, axes: tuple[Axis, ...], unit: str, about: Mapping[str, Any]
) -> Signal:
    nm = _nm(unit)
    values = np.ascontiguousarray(data if nm is None else data * data.dtype.type(nm))
    return Signal(
        data=values, name=name, axes=axes, metadata={**about, "unit": unit if nm is None else "nm"}
    )
