"""What napari finds of the plugin: widget, sample data, readers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari", reason="the manifest is for napari")

from napari.layers import Image, Layer
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

import napari_shiftvae
from napari_shiftvae._reader import get_microscope_reader, get_run_reader
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.scanning_probe import SPM_FORMATS
from napari_shiftvae.core.vendor_files import VENDOR_FORMATS

MANIFEST = Path(napari_shiftvae.__file__).parent / "napari.yaml"
RAMP = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("napari-shiftvae")


def test_link_at_the_top_is_the_manifest_in_the_package() -> None:
    link = Path(__file__).parents[1] / "napari.yaml"
    assert link.is_symlink()
    assert link.samefile(MANIFEST)


def test_every_command_can_be_imported(manifest: PluginManifest) -> None:
    manifest.validate_imports()


def test_widget_has_its_fixed_name(manifest: PluginManifest) -> None:
    (widget,) = manifest.contributions.widgets
    assert (manifest.name, widget.display_name) == ("napari-shiftvae", "Shift-VAE")


def test_reader_is_offered_for_every_microscope_format(manifest: PluginManifest) -> None:
    patterns = {
        pattern
        for reader in manifest.contributions.readers
        if reader.command == "napari-shiftvae.read_microscope_files"
        for pattern in reader.filename_patterns
    }
    assert patterns == {f"*{suffix}" for suffix in (*VENDOR_FORMATS, *SPM_FORMATS)}


@pytest.mark.parametrize("key", ["perovskite", "graphene", "stm"])
def test_sample_data_opens_calibrated(manifest: PluginManifest, key: str) -> None:
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    (command,) = [s.command for s in manifest.contributions.sample_data if s.key == key]
    make = import_python_name(commands[command])
    ((data, attributes, kind),) = make()
    assert kind == "image"
    layer = Image(data, **attributes)
    assert layer.ndim == 2
    assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    assert 0.001 < layer.scale[0] == layer.scale[1] < 0.1  # nm per pixel of an atomic image
    assert np.isfinite(layer.data).all()
    np.testing.assert_array_equal(make()[0][0], data)  # the same image each time


def open_layers(path: Path) -> list[Image]:
    reader = get_microscope_reader(str(path))
    assert reader is not None
    return [Image(data, **attributes) for data, attributes, _ in reader(str(path))]


def test_vendor_file_lies_where_the_microscope_says(write_hspy: Callable[..., Path]) -> None:
    axes = [
        {"name": "height", "scale": 12.5, "offset": 100.0, "units": "pm"},
        {"name": "width", "scale": 25.0, "offset": -50.0, "units": "pm"},
    ]
    (layer,) = open_layers(write_hspy(("HAADF", RAMP, axes)))
    assert layer.name == "made"
    np.testing.assert_array_equal(layer.data, RAMP)
    np.testing.assert_allclose(layer.data_to_world((2, 3)), (0.125, 0.025))
    assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    assert layer.axis_labels == ("height", "width")
    assert layer.metadata["microscope"]["General"]["title"] == "HAADF"


def test_every_signal_becomes_a_layer(write_hspy: Callable[..., Path]) -> None:
    axes = [{"name": name, "scale": 0.1, "units": "angstrom"} for name in "yx"]
    stack = [{"name": "time", "scale": 2.0, "units": "s", "navigate": True}, *axes]
    path = write_hspy(("HAADF", RAMP, axes), ("BF", RAMP[None] + 1, stack))
    layers = {layer.name: layer for layer in open_layers(path)}
    assert set(layers) == {"made HAADF", "made BF"}
    np.testing.assert_allclose(layers["made HAADF"].scale, (0.01, 0.01))
    np.testing.assert_allclose(layers["made BF"].scale, (2.0, 0.01, 0.01))
    assert [str(unit) for unit in layers["made BF"].units] == ["second", "nanometer", "nanometer"]


def test_files_opened_as_a_stack_are_one_layer(
    write_hspy: Callable[..., Path], tmp_path: Path
) -> None:
    axes = [{"name": name, "scale": 0.1, "units": "angstrom"} for name in "yx"]
    paths = []
    for number in (2, 0, 1):
        made = write_hspy(("HAADF", RAMP + number, axes))
        paths.append(str(made.rename(tmp_path / f"{number}.hspy")))
    reader = get_microscope_reader(paths)
    assert reader is not None
    ((data, attributes, kind),) = reader(paths)
    layer = Image(data, **attributes)
    np.testing.assert_array_equal(layer.data, [RAMP, RAMP + 1, RAMP + 2])
    assert (layer.name, layer.axis_labels, kind) == ("0 to 2", ("frame", "y", "x"), "image")
    assert [str(unit) for unit in layer.units] == ["pixel", "nanometer", "nanometer"]
    np.testing.assert_allclose(layer.scale, (1, 0.01, 0.01))
    paths[1] = str(write_hspy(("HAADF", RAMP[:2], axes)))
    with pytest.raises(InputError, match="made has not the size of 1: open the files one by one"):
        reader(paths)


def test_spectrum_image_shows_the_scanned_area(write_hspy: Callable[..., Path]) -> None:
    scanned = [{"name": n, "scale": 0.1, "units": "nm", "navigate": True} for n in "yx"]
    energy = {"name": "Energy", "scale": 5.0, "offset": 100.0, "units": "eV"}
    spectra = np.arange(24.0).reshape(3, 4, 2)
    (layer,) = open_layers(write_hspy(("EELS", spectra, [*scanned, energy])))
    np.testing.assert_array_equal(layer.data, np.moveaxis(spectra, -1, 0))
    assert layer.name == "made spectrum image"
    assert layer.axis_labels == ("Energy", "y", "x")
    np.testing.assert_allclose(layer.translate, (100, 0, 0))


@pytest.mark.parametrize("unit", ["", "<undefined>", "counts of nothing"])
def test_without_a_unit_the_layer_is_in_pixels(write_hspy: Callable[..., Path], unit: str) -> None:
    axes = [{"name": name, "scale": 0.1, "offset": 7.0, "units": unit} for name in "yx"]
    (layer,) = open_layers(write_hspy(("HAADF", RAMP, axes)))
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    np.testing.assert_array_equal(layer.scale, (1, 1))
    np.testing.assert_array_equal(layer.translate, (0, 0))


def test_file_without_an_image_is_refused(write_hspy: Callable[..., Path]) -> None:
    energy = {"name": "Energy", "scale": 5.0, "units": "eV"}
    path = write_hspy(("Spectrum", np.arange(5.0), [energy]))
    reader = get_microscope_reader(str(path))
    assert reader is not None
    with pytest.raises(InputError, match="holds 1 data sets but no image"):
        reader(str(path))


def test_run_file_opens_as_the_layers_of_its_analysis(tmp_path: Path) -> None:
    from napari_shiftvae.core.analyse import analyse
    from napari_shiftvae.core.images import Calibration, MicroscopeImage
    from napari_shiftvae.core.runfile import save_run
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.core.simulate import perovskite
    from napari_shiftvae.core.train import TrainConfig

    made = perovskite(rng=np.random.default_rng(0), shape=(160, 200))
    size = made.pixel_size_nm
    image = MicroscopeImage(
        data=made.image, name="film", calibration=Calibration(pixel_size_nm=(size, size))
    )
    steps = analyse(image, AnalysisConfig(train=TrainConfig(epochs=1), refine=False))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            run = stop.value
            break
    path = save_run(run, tmp_path / "film.shiftvae")

    reader = get_run_reader(str(path))
    assert reader is not None
    layers = {data[1]["name"]: data for data in reader(str(path))}
    assert {"film atoms", "film z1", "film z2", "film shift"} <= set(layers)
    for data, attributes, kind in layers.values():
        layer = Layer.create(data, attributes, kind)
        np.testing.assert_allclose(layer.scale, (size, size))
        assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    points, attributes, _ = layers["film atoms"]
    np.testing.assert_allclose(points, run.picks_yx)
    assert set(run.atoms.columns) <= set(attributes["features"])


def test_damaged_run_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.shiftvae"
    path.write_bytes(b"no zip")
    reader = get_run_reader(str(path))
    assert reader is not None
    with pytest.raises(InputError, match=r"a\.shiftvae"):
        reader(str(path))


def test_other_files_are_left_to_others() -> None:
    assert get_microscope_reader("image.tif") is None
    assert get_microscope_reader(["a.dm3", "b.tif"]) is None
    assert get_microscope_reader([]) is None
    assert get_run_reader("a.zip") is None


def test_measured_dm3_is_calibrated(real_image: Callable[[str], Path]) -> None:
    (layer,) = open_layers(real_image("se_implanted_mos2.dm3"))
    np.testing.assert_allclose(layer.scale, 0.0126953125)
    assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    assert layer.axis_labels == ("y", "x")
