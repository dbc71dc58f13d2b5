"""Files that napari opens with this plugin: microscopes' images, and finished analyses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.types import LayerDataTuple

    from napari_shiftvae.core.signals import Axis, Signal

Reader = Callable[[str | Sequence[str]], "list[LayerDataTuple]"]


def get_microscope_reader(path: str | Sequence[str]) -> Reader | None:
    """Offer to read a file, or several, of electron and scanning probe microscopes."""
    from napari_shiftvae.core.scanning_probe import SPM_FORMATS
    from napari_shiftvae.core.vendor_files import VENDOR_FORMATS

    paths = _as_list(path)
    known = all(Path(one).suffix.lower() in {*VENDOR_FORMATS, *SPM_FORMATS} for one in paths)
    return read_microscope_files if paths and known else None


def read_microscope_files(path: str | Sequence[str]) -> "list[LayerDataTuple]":
    """Make an image layer of each signal of a file, or one layer of several files.

    napari asks for several at once where the user opens files as a stack.

    Raises
    ------
    InputError
        The library for it is not installed, a file is broken or holds no image, or the images of
        several files are not of one size.
    """
    from napari_shiftvae.core.formats import read_signals
    from napari_shiftvae.core.signals import file_stem

    paths = _as_list(path)
    if len(paths) > 1:
        return [_stack_layer(paths)]
    layers = []
    signals = read_signals(paths[0])
    for signal in signals:
        stem = file_stem(Path(paths[0]))
        # the title says which detector it was; alone, the file's name says more
        name = stem if len(signals) == 1 else f"{stem} {signal.name}"
        if signal.spectral:
            name += " spectrum image"
        layers.append(_image_layer(signal, name))
    return layers


def _stack_layer(paths: list[str]) -> "LayerDataTuple":
    """Put the first image of each file into one stack, in the order of their names."""
    import numpy as np

    from napari_shiftvae.core.errors import InputError
    from napari_shiftvae.core.images import read_image
    from napari_shiftvae.core.signals import Axis, Signal

    images = [read_image(path) for path in sorted(paths)]
    first = images[0]
    for image in images:
        if image.data.shape != first.data.shape:
            raise InputError(
                f"{image.name} has not the size of {first.name}: open the files one by one, or "
                "give them to the command napari-shiftvae sequence."
            )
    size = first.calibration.pixel_size_nm if first.calibration else (1.0, 1.0)
    unit = "nm" if first.calibration else ""
    axes = [Axis(name=name, scale=step, unit=unit) for name, step in zip("yx", size, strict=True)]
    stack = Signal(
        data=np.stack([image.data for image in images]),
        name=first.name,
        axes=(Axis(name="frame"), *axes),
    )
    return _image_layer(stack, f"{first.name} to {images[-1].name}")


def get_run_reader(path: str | Sequence[str]) -> Reader | None:
    """Offer to read `*.shiftvae` files."""
    paths = _as_list(path)
    known = all(Path(one).suffix.lower() == ".shiftvae" for one in paths)
    return read_runs if paths and known else None


def read_runs(path: str | Sequence[str]) -> "list[LayerDataTuple]":
    """Make the layers of each run file: atoms, latent maps, arrows; of spectra, the maps.

    In a window the dock is opened with them: it finds the image, or asks for it.

    Raises
    ------
    InputError
        A file is no run file, or is damaged.
    """
    from napari_shiftvae.core.runfile import holds_spectra, load_run, load_spectra
    from napari_shiftvae.layers import run_to_layer_data
    from napari_shiftvae.spectra_layers import spectra_layers

    layers: list[LayerDataTuple] = []
    for one in _as_list(path):
        if holds_spectra(one):
            spectra = load_spectra(one)
            layers += spectra_layers(spectra, spectra.image.name, {})
        else:
            layers += run_to_layer_data(load_run(one))
    _open_dock()
    return layers


def _open_dock() -> None:
    import napari

    from napari_shiftvae.docks import has_dock

    viewer = napari.current_viewer()
    window = getattr(viewer, "window", None)  # a viewer without a window has none
    if window is not None and not has_dock(viewer):
        window.add_plugin_dock_widget("napari-shiftvae", "Shift-VAE")


def _as_list(path: str | Sequence[str]) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _image_layer(signal: "Signal", name: str) -> "LayerDataTuple":
    rgb = signal.axes[-1].name == "channel"
    axes = signal.axes[:-1] if rgb else signal.axes
    default_labels = (*(f"axis {i}" for i in range(len(axes) - 2)), "y", "x")
    places = [_place(axis) for axis in axes]
    attributes: dict[str, Any] = {
        "name": name,
        "rgb": rgb,
        # units as well as scale: napari drops the units of all layers when one has none
        "scale": tuple(scale for scale, _, _ in places),
        "translate": tuple(offset for _, offset, _ in places),
        "units": tuple(unit for _, _, unit in places),
        "axis_labels": tuple(
            axis.name or default for axis, default in zip(axes, default_labels, strict=True)
        ),
        "metadata": {"microscope": dict(signal.metadata)},
    }
    return (signal.data, attributes, "image")


def _place(axis: "Axis") -> tuple[float, float, str]:
    """Scale, offset and unit of an axis as napari takes them; lengths are all made nm.

    One unit for all lengths: with layers in nm and in angstrom side by side, napari 0.9.2 puts
    clicks in the wrong place. A step without a unit means nothing: it is left out.
    """
    import pint

    from napari_shiftvae.core.signals import nm_per_unit

    nm = nm_per_unit(axis.unit)
    if nm is not None:
        return axis.scale * nm, axis.offset * nm, "nm"
    try:
        unit = pint.get_application_registry().parse_units(axis.unit)
    except (pint.PintError, ValueError):
        return 1.0, 0.0, "pixel"
    return (1.0, 0.0, "pixel") if unit.dimensionless else (axis.scale, axis.offset, str(unit))
