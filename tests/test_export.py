"""Export: what is written is what the run holds, and the script makes the same numbers."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_shiftvae.cli import main
from napari_shiftvae.core import export, train
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.apply import encode_image
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.export import export_run, tiff_of
from napari_shiftvae.core.figure import Arrows, Figure
from napari_shiftvae.core.figure_files import as_png, as_svg
from napari_shiftvae.core.images import Calibration, MicroscopeImage, read_image
from napari_shiftvae.core.palettes import limits_of
from napari_shiftvae.core.readout import Options, read_out
from napari_shiftvae.core.reproduce import reproducing_script
from napari_shiftvae.core.runfile import atoms_csv, load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

SVG = "{http://www.w3.org/2000/svg}"
CONFIG = AnalysisConfig(train=TrainConfig(epochs=3, seed=2))


@pytest.fixture(scope="module")
def image():
    made = perovskite(rng=np.random.default_rng(0), shape=(160, 150))
    calibration = Calibration(pixel_size_nm=(0.01, 0.02))
    return MicroscopeImage(data=made.image, name='Müller\'s "best", \\2', calibration=calibration)


@pytest.fixture(scope="module")
def run(image):
    return finish(analyse(image, CONFIG))


@pytest.fixture(scope="module")
def folder(run, image, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "new"
    written = export_run(run, image, path)
    assert sorted(written) == sorted(path.iterdir())
    return path


def test_files(folder, run):
    scalars = {"along_y", "along_x", "length", "exx", "eyy", "exy", "rotation", "z1", "z2"}
    maps = scalars | {f"{name}_sd" for name in scalars} | {"residual"}
    maps |= {f"{what}_{axis}_px" for what in ("shift", "atom_against_cage") for axis in "yx"}
    figures = scalars | {"residual", "shift", "atom_against_cage"}
    expected = {f"{name}.ome.tif" for name in maps}
    expected |= {f"{name}.{ending}" for name in figures for ending in ("svg", "png")}
    names = {path.name for path in folder.iterdir()}
    assert names == expected | {"atoms.csv", "image.npy", "reproduce.py"}
    assert (folder / "atoms.csv").read_bytes() == atoms_csv(run.atoms)


def test_table_is_that_of_the_run_file(folder, run, tmp_path):
    with zipfile.ZipFile(save_run(run, tmp_path / "made")) as archive:
        assert archive.read("atoms.csv") == (folder / "atoms.csv").read_bytes()


def test_maps_are_calibrated_and_exact(folder, run):
    for name in ("z1", "z2"):
        read = read_image(folder / f"{name}.ome.tif")
        np.testing.assert_array_equal(read.data, run.maps[name])
        assert read.calibration.pixel_size_nm == pytest.approx((0.01, 0.02))
    scalars = read_out(run, Options()).scalars
    pm = np.sqrt(0.01 * 0.02) * 1000  # of the mean pixel
    for name, factor, label in (
        ("along y", pm, "along y (pm)"),
        ("along y s.d.", pm, "along y s.d. (pm)"),
        ("exx s.d.", 1.0, "exx s.d. (%)"),
    ):
        own = scalars[name.removesuffix(" s.d.")]
        own = own.deviation() if name.endswith("s.d.") else own
        with tifffile.TiffFile(folder / f"{own.file_name}.ome.tif") as file:
            np.testing.assert_allclose(file.asarray(), factor * own.on_pixels(run), rtol=1e-5)
            assert f'Name="{label}"' in file.ome_metadata
    shift = read_image(folder / "shift_y_px.ome.tif").data
    used = run.atoms[run.used]
    y, x = used[["y_px", "x_px"]].round().astype(int).to_numpy().T
    there = np.isfinite(shift[y, x])
    # pixels beside the picks, which lie between pixels
    assert np.percentile(np.abs(shift[y, x] - used["shift_y_px"])[there], 80) < 0.12
    assert there.mean() > 0.7  # the others lie at the rim


def test_map_without_calibration(tmp_path):
    (tmp_path / "made.tif").write_bytes(tiff_of(np.eye(7, dtype=np.float32), None))
    read = read_image(tmp_path / "made.tif")
    np.testing.assert_array_equal(read.data, np.eye(7))
    assert read.calibration is None


def test_script_makes_the_same_table(folder):
    done = subprocess.run(  # noqa: S603
        [sys.executable, folder / "reproduce.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "The same to the last digit.\n"), done.stderr
    assert (folder / "reproduced.csv").read_bytes() == (folder / "atoms.csv").read_bytes()
    (folder / "reproduced.csv").unlink()


def test_script_of_a_run_that_was_given_more_epochs(run, image, tmp_path, monkeypatch):
    """Twice, once after it was saved and opened: the rate falls towards each of the ends."""
    for epochs in (5, 8):
        config = replace(CONFIG, train=replace(CONFIG.train, epochs=epochs))
        run = finish(analyse(image, config, resume=run))
        run = load_run(save_run(run, tmp_path / f"{epochs}"))
    assert run.goals == (CONFIG.train.epochs, 5)
    script_alone(run, image, tmp_path / "made")
    assert executed(tmp_path / "made", monkeypatch) == 0


def script_alone(run, image, folder):
    """What the script needs, without the maps and figures."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "image.npy", image.data)
    (folder / "atoms.csv").write_bytes(atoms_csv(run.atoms))
    (folder / "reproduce.py").write_text(reproducing_script(run, image), "utf-8")


def executed(folder, monkeypatch, *arguments):
    """Run the script in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    monkeypatch.setattr(train, "REPORT_EVERY_S", train.REPORT_EVERY_S)
    code = compile((folder / "reproduce.py").read_text("utf-8"), "reproduce.py", "exec")
    names = {"__name__": "script", "__file__": str(folder / "reproduce.py")}
    exec(code, names)  # noqa: S102
    return names["main"]()


@pytest.mark.parametrize("sampling", ["random", "grid"])
def test_script_of_windows_anywhere(image, tmp_path, monkeypatch, sampling):
    config = replace(CONFIG, sampling=sampling, count=200, train=TrainConfig(epochs=5, seed=2))
    script_alone(finish(analyse(image, config)), image, tmp_path)
    assert executed(tmp_path, monkeypatch) == 0


def test_script_of_a_stopped_run(image, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(train, "REPORT_EVERY_S", 0.0)
        steps, answer, run = analyse(image, CONFIG), None, None
        while run is None:
            try:
                progress = steps.send(answer)
            except StopIteration as end:
                run = end.value
            else:
                at = progress.report is not None and progress.report.step == 2
                answer = "stop" if at else None
    script_alone(run, image, tmp_path)
    assert executed(tmp_path, monkeypatch) == 0


def test_script_says_where_numbers_differ(run, image, tmp_path, monkeypatch, capsys):
    script_alone(run, image, tmp_path)
    script = tmp_path / "reproduce.py"
    script.write_text(script.read_text("utf-8").replace("seed=2", "seed=3"), "utf-8")
    assert executed(tmp_path, monkeypatch) == 1
    assert "compare the files" in capsys.readouterr().out
    np.save(tmp_path / "other.npy", image.data + 1)
    with pytest.raises(SystemExit, match="is not the image that was analysed"):
        executed(tmp_path, monkeypatch, tmp_path / "other.npy")


# --- figures -----------------------------------------------------------------------------------


def test_svg_is_well_formed_and_complete(folder, run):
    root = ET.fromstring((folder / "shift.svg").read_bytes())  # noqa: S314
    heads = root.findall(f"{SVG}polygon")
    assert len(heads) == run.used.sum()
    words = [element.text for element in root.findall(f"{SVG}text")]
    assert words[0].startswith("shift of the whole pattern, arrows ")
    assert "0.5 nm" in words
    root = ET.fromstring((folder / "z1.svg").read_bytes())  # noqa: S314
    bar = [float(element.text) for element in root.findall(f"{SVG}text")[2:5]]
    low, high = limits_of(run.atoms["z1"])
    assert bar == pytest.approx([low, (low + high) / 2, high], rel=0.01, abs=0.01)


def test_arrows_point_where_the_vectors_do():
    """y down, x to the right, pixels half as high as wide."""
    arrows = np.array([[[10.0, 20.0], [5.0, 0.0]], [[30.0, 20.0], [0.0, 4.0]]])
    figure = Figure(
        pixels=np.zeros((40, 64), np.float32),
        title="a < b",
        limits=(0, 1),
        pixel_size_nm=(0.5, 1.0),
        arrows=Arrows(start_yx=arrows[:, 0], along_yx=arrows[:, 1], gain=2.0),
    )
    root = ET.fromstring(as_svg(figure))  # noqa: S314
    assert root.find(f"{SVG}text").text == "a < b"
    starts = [
        [float(line.get(name)) for name in ("x1", "y1")] for line in root.findall(f"{SVG}line")
    ]
    tips = [
        [float(value) for value in head.get("points").split(" ")[0].split(",")]
        for head in root.findall(f"{SVG}polygon")
    ]
    picture = root.find(f"{SVG}image")
    left, top = float(picture.get("x")), float(picture.get("y"))
    np.testing.assert_allclose(starts[0], [left + 205, top + 52.5], atol=0.01)
    np.testing.assert_allclose(np.subtract(tips, starts[:2]), [[0, 50], [80, 0]], atol=0.01)
    assert float(picture.get("height")) == pytest.approx(200)


def test_png_shows_the_values(folder, run):
    with Image.open(folder / "z1.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    low, high = limits_of(run.atoms["z1"])
    zoom = 2 * 640 / run.image.shape[1]  # two pixels for each unit of the page
    for share, colour in ((0.0, (68, 1, 84)), (1.0, (253, 231, 37))):
        at = run.maps["z1"] <= low if share == 0 else run.maps["z1"] >= high
        y, x = np.argwhere(at)[len(np.argwhere(at)) // 2]
        seen = pixels[int(80 + (y + 0.5) * zoom / 2), int(48 + (x + 0.5) * zoom)]
        np.testing.assert_allclose(seen, colour, atol=12)
    assert (pixels[90, 60] == 255).all()  # outside the atoms: white


def test_figure_of_an_empty_map():
    empty = Figure(pixels=np.full((8, 8), np.nan, np.float32), title="", limits=(0, 1))
    assert as_png(empty).startswith(b"\x89PNG")
    assert limits_of(empty.pixels) == (0.0, 1.0)
    assert limits_of(np.ones(3)) == (0.5, 1.5)


# --- without the image, and mistakes -----------------------------------------------------------


@pytest.fixture
def no_png(monkeypatch):
    """They take long to draw."""
    monkeypatch.setattr(export, "as_png", lambda _: b"")


@pytest.mark.usefixtures("no_png")
def test_without_the_image(run, image, tmp_path, monkeypatch):
    export_run(run, None, tmp_path)
    assert not (tmp_path / "image.npy").exists()
    assert "name the image on the command line" in (tmp_path / "reproduce.py").read_text("utf-8")
    assert (tmp_path / "shift.svg").exists()
    np.save(tmp_path / "elsewhere.npy", image.data)
    assert executed(tmp_path, monkeypatch, tmp_path / "elsewhere.npy") == 0


@pytest.mark.usefixtures("no_png")
def test_run_by_another_image_s_model_has_no_script(run, image, tmp_path):
    other = replace(image, data=image.data[::-1].copy())
    export_run(finish(encode_image(run, other)), other, tmp_path)
    assert not (tmp_path / "reproduce.py").exists()
    assert (tmp_path / "atoms.csv").exists()


def test_mistakes(run, image, tmp_path):
    with pytest.raises(InputError, match="is not the image of this run"):
        export_run(run, replace(image, data=image.data + 1), tmp_path / "new")
    scalar = read_out(run, Options()).scalars["exx"]
    with pytest.raises(InputError, match="'exx' has 3 values; give one for each of the"):
        export_run(run, image, tmp_path / "new", scalars=[replace(scalar, values=np.zeros(3))])
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be made"):
        export_run(run, image, tmp_path / "file")


@pytest.mark.usefixtures("no_png")
def test_command_line(image, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "made.npy", image.data)
    output = tmp_path / "made.shiftvae"
    monkeypatch.chdir(tmp_path)  # the script is run elsewhere
    make = ["run", "made.npy", "--output", str(output), "--epochs", "3"]
    assert main([*make, "--pixel-size", "10", "--unit", "pm"]) == 0
    capsys.readouterr()
    assert main(["export", str(output), "--output", str(tmp_path / "results")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Wrote {tmp_path / 'results' / 'reproduce.py'}" in lines
    assert executed(tmp_path / "results", monkeypatch) == 0
    (tmp_path / "made.npy").rename(tmp_path / "moved.npy")
    with pytest.raises(SystemExit, match=r"There is no file .*Give its path: python reproduce.py"):
        executed(tmp_path / "results", monkeypatch)
    again = ["export", str(output), "--output", str(tmp_path / "again")]
    assert main(again) == 0  # without the image beneath the arrows
    assert main([*again, "--image", str(tmp_path / "moved.npy")]) == 0
    assert executed(tmp_path / "again", monkeypatch) == 0
    np.save(tmp_path / "other.npy", image.data + 1)
    capsys.readouterr()
    assert main([*again, "--image", str(tmp_path / "other.npy")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other.npy is not the image of this run" in line
