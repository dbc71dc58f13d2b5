"""Files of scanning probe microscopes: pixels, lengths and places are those that were written."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_shiftvae.cli import main
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.formats import read_signals
from napari_shiftvae.core.images import read_image
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.scanning_probe import SPM_FORMATS
from napari_shiftvae.core.simulate import SIMULATIONS

SHAPE = (3, 4)
HEIGHT = np.arange(12, dtype=np.float32).reshape(SHAPE) * np.float32(1e-11)  # m
CURRENT = np.arange(12, dtype=np.float32).reshape(SHAPE)[::-1] * np.float32(1e-12)  # A
EXTENT_NM, CORNER_NM = (3.0, 6.0), (10.0, -20.0)  # (y, x)

needs_libraries = pytest.mark.skipif(
    any(importlib.util.find_spec(library) is None for library in SPM_FORMATS.values()),
    reason="gsffile, gwyfile and nanonispy2 are the extra `spm`",
)


def write_sxm(
    path: Path,
    channels: Sequence[tuple[str, str, str]],
    blocks: Sequence[NDArray[np.float32]],
    *,
    direction: str = "down",
) -> Path:
    """Write a scan as Nanonis does: header, two bytes, big-endian pixels in order of time."""
    rows = "\n".join(f"\t{n}\t{name}\t{u}\t{d}\t1E+0\t0E+0" for n, (name, u, d) in _nr(channels))
    centre = CORNER_NM[1] + EXTENT_NM[1] / 2, -(CORNER_NM[0] + EXTENT_NM[0] / 2)
    entries = {
        "NANONIS_VERSION": "2",
        "REC_TIME": " 12:00:00",
        "ACQ_TIME": "        120.0",
        "SCAN_PIXELS": f"       {SHAPE[1]}       {SHAPE[0]}",
        "SCAN_TIME": "             1.0E+0             1.0E+0",
        "SCAN_RANGE": f"           {EXTENT_NM[1] * 1e-9:E}           {EXTENT_NM[0] * 1e-9:E}",
        "SCAN_OFFSET": f"             {centre[0] * 1e-9:E}         {centre[1] * 1e-9:E}",
        "SCAN_ANGLE": "            0.0E+0",
        "SCAN_DIR": direction,
        "BIAS": "            1.0E+0",
        "COMMENT": "Si(111), 77 K",
        "DATA_INFO": f"\tChannel\tName\tUnit\tDirection\tCalibration\tOffset\n{rows}",
    }
    header = "".join(f":{key}:\n{value}\n" for key, value in entries.items())
    pixels = b"".join(block.astype(">f4").tobytes() for block in blocks)
    path.write_bytes(header.encode() + b"\n:SCANIT_END:\n\n\n\x1a\x04" + pixels)
    return path


def _nr(channels: Sequence[tuple[str, str, str]]) -> list[tuple[int, tuple[str, str, str]]]:
    return [(14 + number, channel) for number, channel in enumerate(channels)]


def write_gwy(path: Path, fields: Sequence[tuple[str, NDArray[np.float64], str]]) -> Path:
    from gwyfile.objects import GwyContainer, GwyDataField

    container = GwyContainer()
    for number, (title, data, unit) in enumerate(fields):
        container[f"/{number}/data/title"] = title
        container[f"/{number}/data"] = GwyDataField(
            data,
            xreal=EXTENT_NM[1] * 1e-9,
            yreal=EXTENT_NM[0] * 1e-9,
            xoff=CORNER_NM[1] * 1e-9,
            yoff=CORNER_NM[0] * 1e-9,
            si_unit_xy="m",
            si_unit_z=unit,
        )
        container[f"/{number}/mask"] = GwyDataField(np.zeros(SHAPE))
    container.tofile(str(path))
    return path


def write_gsf(path: Path, data: NDArray[np.float32], **more: object) -> Path:
    from gsffile import write_gsf

    about = {
        "XReal": EXTENT_NM[1] * 1e-9,
        "YReal": EXTENT_NM[0] * 1e-9,
        "XOffset": CORNER_NM[1] * 1e-9,
        "YOffset": CORNER_NM[0] * 1e-9,
        "XYUnits": "m",
        "ZUnits": "m",
        "Title": "Topography",
    }
    write_gsf(path, data, {**about, **more})
    return path


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"scan{suffix}"
    if suffix == ".sxm":
        channels = [("Current", "A", "both"), ("Z", "m", "both")]
        blocks = [CURRENT, CURRENT[:, ::-1], HEIGHT, HEIGHT[:, ::-1]]
        return write_sxm(path, channels, blocks)
    if suffix == ".gwy":
        fields = [("Current", CURRENT.astype(float), "A"), ("Z", HEIGHT.astype(float), "m")]
        return write_gwy(path, fields)
    return write_gsf(path, HEIGHT)


@needs_libraries
@pytest.mark.parametrize("suffix", sorted(SPM_FORMATS))
def test_heights_come_first_and_lengths_in_nm(tmp_path: Path, suffix: str) -> None:
    signal, *others = read_signals(written(tmp_path, suffix))
    np.testing.assert_allclose(signal.data, HEIGHT * 1e9, rtol=1e-6)
    assert signal.metadata["unit"] == "nm"
    assert [axis.name for axis in signal.axes] == ["y", "x"]
    assert [axis.unit for axis in signal.axes] == ["nm", "nm"]
    np.testing.assert_allclose([axis.scale for axis in signal.axes], (1.0, 1.5))
    # the corner lies half a pixel before the centre of the first pixel
    np.testing.assert_allclose([axis.offset for axis in signal.axes], (10.5, -19.25))
    for other in others:
        if "Current" in other.name:
            np.testing.assert_allclose(other.data, CURRENT)
            assert other.metadata["unit"] == "A"
    calibration = read_image(tmp_path / f"scan{suffix}").calibration
    assert calibration is not None
    assert calibration.pixel_size_nm == pytest.approx((1.0, 1.5))


@needs_libraries
def test_nanonis_channels_are_named_by_their_direction(tmp_path: Path) -> None:
    names = [signal.name for signal in read_signals(written(tmp_path, ".sxm"))]
    assert names == ["Z forward", "Z backward", "Current forward", "Current backward"]


@needs_libraries
def test_nanonis_scan_upwards_begins_with_the_bottom_row(tmp_path: Path) -> None:
    blocks = [HEIGHT[::-1], HEIGHT[::-1, ::-1]]
    path = write_sxm(tmp_path / "up.sxm", [("Z", "m", "both")], blocks, direction="up")
    for signal in read_signals(path):
        np.testing.assert_allclose(signal.data, HEIGHT * 1e9, rtol=1e-6)


@needs_libraries
def test_nanonis_channel_of_one_direction_and_lines_not_measured(tmp_path: Path) -> None:
    stopped = np.where(np.arange(3)[:, None] < 2, HEIGHT, np.nan).astype(np.float32)
    channels = [("Z", "m", "forward"), ("Current", "A", "both")]
    path = write_sxm(tmp_path / "a.sxm", channels, [stopped, CURRENT, CURRENT[:, ::-1]])
    height, *current = read_signals(path)
    np.testing.assert_allclose(height.data, stopped * 1e9, rtol=1e-6)
    for signal in current:
        np.testing.assert_allclose(signal.data, CURRENT)


@needs_libraries
def test_gwyddion_channels_of_one_title_are_all_read(tmp_path: Path) -> None:
    field = HEIGHT.astype(float)
    path = write_gwy(tmp_path / "a.gwy", [("Z", field, "m"), ("Z", field + 1e-9, "m")])
    first, second = read_signals(path)
    assert first.name == second.name == "Z"
    np.testing.assert_allclose(second.data - first.data, 1.0, rtol=1e-5)


@needs_libraries
def test_field_without_a_unit_of_length_is_in_pixels(tmp_path: Path) -> None:
    path = write_gsf(tmp_path / "a.gsf", HEIGHT, XYUnits="s", ZUnits="V")
    (signal,) = read_signals(path)
    np.testing.assert_array_equal(signal.data, HEIGHT)
    assert [axis.scale for axis in signal.axes] == [1.0, 1.0]
    assert read_image(path).calibration is None


@needs_libraries
def test_gwyddion_file_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.gwy holds no image; save"):
        read_signals(write_gwy(tmp_path / "a.gwy", []))


@needs_libraries
@pytest.mark.parametrize("suffix", sorted(SPM_FORMATS))
@pytest.mark.parametrize("kept", [0, 3, 60, -9])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, kept: int) -> None:
    path = written(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"^scan\{suffix} could not be read \(.*\); check"):
        read_signals(path)


@pytest.mark.parametrize("suffix", sorted(SPM_FORMATS))
def test_without_its_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (tmp_path / f"a{suffix}").write_bytes(b"anything")
    with pytest.raises(InputError, match=r"pip install napari-shiftvae\[spm\]"):
        read_image(tmp_path / f"a{suffix}")


@needs_libraries
def test_napari_lays_each_channel_where_it_was_scanned(tmp_path: Path) -> None:
    pytest.importorskip("napari", reason="layers are napari's")
    from napari.layers import Image

    from napari_shiftvae._reader import get_microscope_reader

    path = str(written(tmp_path, ".sxm"))
    reader = get_microscope_reader(path)
    assert reader is not None
    layers = [Image(data, **attributes) for data, attributes, kind in reader(path)]
    assert [layer.name for layer in layers][:2] == ["scan Z forward", "scan Z backward"]
    for layer in layers:
        assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
        np.testing.assert_allclose(layer.data_to_world((2, 3)), (12.5, -14.75))
        assert layer.axis_labels == ("y", "x")


@needs_libraries
def test_command_line_analyses_a_scan(tmp_path: Path) -> None:
    made = SIMULATIONS["stm"](rng=np.random.default_rng(0))
    side = made.pixel_size_nm * 1e-9 * np.array(made.image.shape)
    path = write_gsf(
        tmp_path / "stm.gsf",
        (made.image * 1e-9).astype(np.float32),
        YReal=side[0],
        XReal=side[1],
    )
    output = tmp_path / "stm.shiftvae"
    assert main(["run", str(path), "--output", str(output), "--epochs", "2"]) == 0
    run = load_run(output)
    assert run.image.pixel_size_nm == pytest.approx((made.pixel_size_nm,) * 2)
    assert run.used.sum() > 100


@needs_libraries
def test_names_in_capitals(tmp_path):
    """As instruments on Windows write them."""
    path = write_sxm(tmp_path / "SCAN.SXM", [("Z", "m", "forward")], [HEIGHT])
    image = read_image(path)
    assert (image.name, image.data.shape) == ("SCAN", SHAPE)
    np.testing.assert_allclose(image.data, HEIGHT * 1e9, rtol=1e-6)
