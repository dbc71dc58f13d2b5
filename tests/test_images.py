"""Images written in every format come back with their pixels and their calibration."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_shiftvae.core import vendor_files
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.formats import read_signals
from napari_shiftvae.core.images import Calibration, as_float_image, checksum, read_image
from napari_shiftvae.core.signals import nm_per_unit
from napari_shiftvae.core.vendor_files import VENDOR_FORMATS

RAMP = np.arange(12, dtype=np.float32).reshape(3, 4)


def write_ome(path: Path, data: np.ndarray = RAMP, **metadata: object) -> Path:
    tifffile.imwrite(path, data, ome=True, metadata=metadata or {"axes": "YX"})
    return path


@pytest.mark.parametrize(
    ("value", "unit", "nm"),
    [
        (0.015, "nm", 0.015),
        (15.0, "pm", 0.015),
        (0.15, "Å", 0.015),  # the angstrom of the OME schema
        (1.5e-5, "µm", 0.015),
        (1.5e-11, "m", 0.015),
    ],
)
def test_ome_tiff_is_calibrated(tmp_path: Path, value: float, unit: str, nm: float) -> None:
    path = write_ome(
        tmp_path / "film.ome.tif",
        axes="YX",
        PhysicalSizeY=value,
        PhysicalSizeYUnit=unit,
        PhysicalSizeX=2 * value,
        PhysicalSizeXUnit=unit,
    )
    image = read_image(path)
    assert image.name == "film"
    assert image.path == path
    np.testing.assert_array_equal(image.data, RAMP)
    assert image.calibration is not None
    assert image.calibration.pixel_size_nm == pytest.approx((nm, 2 * nm))


def test_ome_tiff_without_unit_is_in_micrometres(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", axes="YX", PhysicalSizeY=2e-5, PhysicalSizeX=2e-5)
    image = read_image(path)
    assert image.calibration is not None
    assert image.calibration.pixel_size_nm == pytest.approx((0.02, 0.02))


def test_uncalibrated_ome_tiff_opens_in_pixels(tmp_path: Path) -> None:
    assert read_image(write_ome(tmp_path / "a.ome.tif")).calibration is None


@pytest.mark.parametrize(("unit", "nm"), [("nm", 0.05), ("\\u00B5m", 50.0), ("micron", 50.0)])
def test_imagej_tiff_is_calibrated(tmp_path: Path, unit: str, nm: float) -> None:
    # ImageJ writes pixels per unit, x before y
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RAMP, imagej=True, resolution=(10, 20), metadata={"unit": unit})
    image = read_image(path)
    assert image.calibration is not None
    assert image.calibration.pixel_size_nm == pytest.approx((nm, 2 * nm))


def test_printing_resolution_is_no_calibration(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RAMP, resolution=(72, 72), resolutionunit="INCH")
    assert read_image(path).calibration is None


def test_first_flat_series_of_a_tiff_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((5, 6, 7), np.uint8), photometric="minisblack")
        tiff.write(RAMP[None], photometric="minisblack")
    np.testing.assert_array_equal(read_image(path).data, RAMP)


def test_png(tmp_path: Path) -> None:
    pixels = (RAMP * 5000).astype(np.uint16)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.data, pixels)
    assert image.data.dtype == np.uint16


def test_rgb_png_is_refused_with_its_name(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "screen.png")
    with pytest.raises(InputError, match=r"screen\.png: The image is RGB \(5 x 6 x 3\)"):
        read_image(tmp_path / "screen.png")


def test_png_with_opacity_is_read_as_grey(tmp_path: Path) -> None:
    PIL.Image.fromarray(RAMP.astype(np.uint8)).convert("LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data, RAMP)


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RAMP)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy").data, RAMP)


def test_npy_never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{"any": "object"}]]), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy could not be read"):
        read_image(tmp_path / "a.npy")


def test_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is an optional dependency")
    zarr.save_array(tmp_path / "a.zarr", RAMP)
    np.testing.assert_array_equal(read_image(tmp_path / "a.zarr").data, RAMP)


@pytest.mark.parametrize("wrapped", [True, False])  # OME-Zarr 0.5 and 0.4
def test_ome_zarr_is_calibrated(tmp_path: Path, wrapped: bool) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is an optional dependency")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w")
    group.create_array("full", data=RAMP[None])
    image = {
        "axes": [{"name": "c"}] + [{"name": n, "unit": "picometer"} for n in "yx"],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [{"type": "scale", "scale": [1, 20, 30]}],
            }
        ],
    }
    attributes = {"multiscales": [image]}
    group.attrs.update({"ome": attributes} if wrapped else attributes)
    read = read_image(tmp_path / "a.ome.zarr")
    assert read.name == "a"
    np.testing.assert_array_equal(read.data, RAMP)
    assert read.calibration is not None
    assert read.calibration.pixel_size_nm == pytest.approx((0.02, 0.03))


def test_vendor_file_keeps_scale_offset_and_units(write_hspy: Callable[..., Path]) -> None:
    axes = [{"name": name, "scale": 12.5, "offset": -3.0, "units": "pm"} for name in "yx"]
    path = write_hspy(("HAADF", RAMP, axes))
    (signal,) = read_signals(path)
    assert signal.name == "HAADF"
    assert [(a.name, a.scale, a.offset, a.unit) for a in signal.axes] == [
        ("y", 12.5, -3.0, "pm"),
        ("x", 12.5, -3.0, "pm"),
    ]
    image = read_image(path)
    np.testing.assert_array_equal(image.data, RAMP)
    assert image.calibration is not None
    assert image.calibration.pixel_size_nm == pytest.approx((0.0125, 0.0125))


@pytest.mark.parametrize("chunks", [True, False])
def test_stack_of_a_large_vendor_file_is_lazy(
    write_hspy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, chunks: bool
) -> None:
    """Where its file can be read in pieces, which HDF5 without chunks cannot."""
    monkeypatch.setattr(vendor_files, "READ_WHOLE_BYTES", 0)
    axes = [{"name": name, "navigate": name == "t"} for name in "tyx"]
    stack = np.stack([RAMP, RAMP + 1])
    path = write_hspy(("movie", stack, axes), ("still", RAMP, axes[1:]), chunks=chunks)
    signals = {signal.name: signal for signal in read_signals(path)}
    assert isinstance(signals["movie"].data, np.ndarray) is not chunks
    assert isinstance(signals["still"].data, np.ndarray)
    np.testing.assert_array_equal(np.asarray(signals["movie"].data), stack)


def test_spectrum_image_is_no_image(write_hspy: Callable[..., Path]) -> None:
    axes = [{"name": name, "navigate": name != "Energy"} for name in ("y", "x", "Energy")]
    path = write_hspy(("EELS", np.arange(24.0).reshape(3, 4, 2), axes))
    for stacks in (True, False):
        with pytest.raises(InputError, match=r"holds a spectrum for each pixel .* --spectra 0"):
            read_image(path, stacks=stacks)


def test_diffraction_pattern_is_not_calibrated_in_nm(write_hspy: Callable[..., Path]) -> None:
    axes = [{"name": name, "scale": 0.1, "units": "1/nm"} for name in "yx"]
    assert read_image(write_hspy(("Diffraction", RAMP, axes))).calibration is None


@pytest.mark.parametrize("suffix", sorted(VENDOR_FORMATS))
def test_without_rosettasciio_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (tmp_path / f"a{suffix}").write_bytes(b"anything")
    with pytest.raises(InputError, match=r"pip install napari-shiftvae\[em\]"):
        read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("module", sorted(set(VENDOR_FORMATS.values())))
def test_every_vendor_format_is_one_of_rosettasciio(module: str) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO is the extra `em`")
    import rsciio

    names = {plugin["api"]: set(plugin["file_extensions"]) for plugin in rsciio.IO_PLUGINS}
    suffixes = {suffix[1:] for suffix, owner in VENDOR_FORMATS.items() if owner == module}
    assert suffixes <= names[f"rsciio.{module}"]


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy", ".dm3", ".hspy", ".emd", ".ser"])
def test_broken_file_is_refused(tmp_path: Path, suffix: str) -> None:
    if suffix in VENDOR_FORMATS:
        pytest.importorskip("rsciio", reason="RosettaSciIO is the extra `em`")
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"\x00\x00\x00\x03 not what the name says")
    with pytest.raises(InputError, match=rf"^broken\{suffix} could not be read \(.*\); check"):
        read_image(path)


def test_absent_and_unknown_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_image(tmp_path / "absent.tif")
    (tmp_path / "a.docx").touch()
    with pytest.raises(InputError, match=r"no known image format; use one of \.tif"):
        read_image(tmp_path / "a.docx")


NAN = float("nan")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((4, 5, 3)), r"RGB \(4 x 5 x 3\); convert"),
        (np.ones((4, 5, 4), np.uint8), r"RGB \(4 x 5 x 4\); convert"),
        (RAMP.astype(complex), "complex; take its magnitude"),
        (np.full((4, 5), 7), r"constant \(every valid pixel is 7\)"),
        (np.array([[NAN, 2.0], [2.0, np.inf]]), "constant"),
        (np.zeros((0, 5)), r"empty \(0 x 5\)"),
        (np.full((4, 5), NAN), "no valid pixel"),
        (np.full((4, 5), np.inf), "no valid pixel"),
        (np.arange(5), r"1 dimension \(5\)"),
        (np.ones((7, 8, 9)), r"3 dimensions \(7 x 8 x 9\); give one 2-D image"),
        (np.float32(3), "0 dimensions"),
        (np.array([["a", "b"]]), "give an array of integers or real numbers"),
        (np.array([[None, 1]]), "give an array of integers or real numbers"),
        (np.array([[1e300, 1.0]]), "beyond the range of single precision"),
        (1e-300 * RAMP.astype(float), "too little beside their size for single precision"),
        (1e9 + RAMP.astype(float), "too little beside their size for single precision"),
        (2**30 + 50 * RAMP.astype(np.int64), "subtract their mean"),
    ],
)
def test_what_cannot_be_analysed_is_refused_in_one_sentence(data: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_float_image(data)
    text = str(caught.value)
    assert text.endswith(".")
    assert ". " not in text
    assert "\n" not in text


@given(
    data=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2)).filter(np.any),
    dtype=st.sampled_from(["bool", "uint8", "int16", ">u2", "uint64", "float16", ">f8"]),
)
def test_numbers_survive_conversion(data: np.ndarray, dtype: str) -> None:
    data = np.pad(data.astype(dtype), 1)  # the zeros keep it from being constant
    image = as_float_image(data)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, data)


def test_infinite_pixels_become_nan_and_the_input_stays() -> None:
    data = np.array([[1.0, np.inf], [-np.inf, NAN]], np.float32)
    with pytest.raises(InputError, match="constant"):
        as_float_image(data)
    data = np.array([[1.0, 2.0], [-np.inf, NAN]], np.float32)
    np.testing.assert_array_equal(as_float_image(data), [[1, 2], [NAN, NAN]])
    assert data[1, 0] == -np.inf


@pytest.mark.parametrize("kind", ["g", "c16", "M8[s]", "U3", "?"])
def test_checksum_of_any_type(kind: str) -> None:
    values = np.array([[1, 0], [2, 3]]).astype(kind)
    assert len({checksum(values), checksum(values[::-1]), checksum(np.zeros(0, kind))}) == 3


def test_checksum_depends_on_values_type_and_shape_only() -> None:
    known = checksum(RAMP)
    assert len(known) == 64
    assert checksum(RAMP.copy(order="F")) == known
    assert checksum(RAMP.astype(">f4")) == known
    assert checksum(np.repeat(RAMP, 2, axis=1)[:, ::2]) == known
    changed = RAMP.copy()
    changed[1, 1] = np.nextafter(changed[1, 1], np.float32(99))
    others = {checksum(changed), checksum(RAMP.astype(float)), checksum(RAMP.reshape(4, 3))}
    assert len({known, *others}) == 4


@pytest.mark.parametrize("size", [0.0, -1.0, NAN, np.inf])
def test_calibration_is_a_length(size: float) -> None:
    with pytest.raises(InputError, match="pixel_size_nm"):
        Calibration(pixel_size_nm=(1.0, size))


def test_units_of_length() -> None:
    assert nm_per_unit("\u00b5m") == nm_per_unit("\u03bcm") == nm_per_unit("um") == 1e3
    assert nm_per_unit("\u00c5") == nm_per_unit("\u212b") == nm_per_unit("angstrom") == 0.1
    assert nm_per_unit("nanometers") == nm_per_unit("nanometre") == nm_per_unit(" nm ") == 1
    assert nm_per_unit("pixel") is nm_per_unit("") is nm_per_unit("1/nm") is None


@pytest.mark.parametrize(
    ("name", "shape", "pixel_size_pm"),
    [
        ("pto_sro_haadf.ome.tif", (224, 1312), 14.997),
        ("pto_sro_haadf.hspy", (224, 1312), 14.997),
        ("se_implanted_mos2.dm3", (1024, 1024), 12.695),
        ("mos2_haadf_noisy.ome.tif", (512, 512), 13.672),
        ("perovskite_abf.ome.tif", (400, 380), None),
        ("si111_7x7_stm.ome.tif", (663, 676), None),
    ],
)
def test_measured_images(
    real_image: Callable[[str], Path],
    name: str,
    shape: tuple[int, int],
    pixel_size_pm: float | None,
) -> None:
    image = read_image(real_image(name))
    assert image.data.shape == shape
    size = image.calibration and tuple(1000 * nm for nm in image.calibration.pixel_size_nm)
    assert size == (pixel_size_pm and pytest.approx((pixel_size_pm, pixel_size_pm), rel=1e-4))


@pytest.mark.parametrize("ending", ["npy", "tif", "zarr", "ome.zarr"])
def test_stack_is_read_frame_by_frame(tmp_path, ending):
    """Opening a stack reads one frame; the others when they are asked for."""
    stack = np.random.default_rng(0).normal(size=(6, 20, 30)).astype(np.float32)
    path = tmp_path / f"stack.{ending}"
    if ending == "npy":
        np.save(path, stack)
    elif ending == "tif":
        tifffile.imwrite(path, stack, photometric="minisblack")
    else:
        zarr = pytest.importorskip("zarr", reason="needs the extra dask")
        pytest.importorskip("dask.array", reason="needs the extra dask")
        if ending == "zarr":
            one = zarr.create_array(path, shape=stack.shape, chunks=(1, 20, 30), dtype="float32")
            one[:] = stack
        else:
            axes = [{"name": name} for name in "tcyx"]
            about = {"datasets": [{"path": "0"}], "axes": axes}
            group = zarr.create_group(path, attributes={"multiscales": [about]})
            deep = group.create_array("0", shape=(6, 1, 20, 30), chunks=(1, 1, 20, 30), dtype="f4")
            deep[:] = stack[:, None]
    data = read_image(path, stacks=True).data
    assert data.shape == stack.shape
    owner = data
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    assert not isinstance(owner, np.ndarray)  # but a mapped file, or dask
    for index, frame in enumerate(stack):
        np.testing.assert_array_equal(np.asarray(data[index]), frame)
