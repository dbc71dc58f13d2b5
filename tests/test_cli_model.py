"""What the command line says about the model, and spectra."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_shiftvae.cli import main
from napari_shiftvae.core.runfile import load_run, load_spectra
from napari_shiftvae.core.simulate import perovskite


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """A scan of 12 x 14 pixels, each with a peak that moves along x; the energy axis is first."""
    rng = np.random.default_rng(0)
    energy = np.arange(60.0)
    place = 28 + np.linspace(-4, 4, 14)[None, :] + np.zeros((12, 1))
    spectra = np.exp(-0.5 * ((energy[:, None, None] - place) / 4) ** 2)
    path = tmp_path_factory.mktemp("spectra") / "scan.npy"
    np.save(path, (spectra + 0.02 * rng.standard_normal(spectra.shape)).astype(np.float32))
    return path, place


def test_spectra_give_the_shift_of_every_pixel(cube, tmp_path, capsys):
    path, place = cube
    output = tmp_path / "scan.shiftvae"
    assert run("run", path, "--spectra", 0, "--output", output, "--json") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["n_patches"] == 12 * 14
    made = load_spectra(output)
    assert list(made.atoms.columns[:6]) == ["y_px", "x_px", "shift", "shift_sd", "z1", "z1_sd"]
    assert run("info", output) == 0
    assert "along axis 0" in capsys.readouterr().out
    shift = made.maps["shift"]
    assert shift.shape == (12, 14)
    error = shift - shift.mean() - (place - place.mean())
    assert np.sqrt(np.mean(error**2)) < 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spectra", "7"], "axis"),
        (["--spectra", "0", "--patch-size", "12"], "--patch-size is for images"),
        (["--spectra", "0", "--invariances", "rotation"], "no rotation"),
        (["--invariances", "colour"], "choose any of 'shift', 'rotation' and 'scale'"),
        (["--classes", "99"], "classes is 99"),
        (["--smoothness", "-1"], "smoothness is -1"),
    ],
)
def test_mistakes_are_one_line(cube, tmp_path, capsys, options, words):
    output, image = tmp_path / "made.shiftvae", cube[0]
    if "--spectra" not in options:
        image = tmp_path / "image.npy"
        np.save(image, np.load(cube[0])[:, :, 0])
    assert run("run", image, "--output", output, *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not output.exists()


def test_options_of_the_model_reach_the_analysis(tmp_path):
    image = perovskite(rng=np.random.default_rng(0), shape=(140, 140)).image
    np.save(tmp_path / "made.npy", image)
    output = tmp_path / "made.shiftvae"
    options = ["--invariances", "shift,scale", "--smoothness", "0.5", "--blur-walls"]
    assert run("run", tmp_path / "made.npy", "--output", output, "--epochs", 2, *options) == 0
    made = load_run(output)
    assert made.config.invariances == ("shift", "scale")
    assert made.config.train.smoothness == 0.5
    assert not made.config.train.edge_preserving
    assert isinstance(made.atoms, pd.DataFrame)
    assert {"scale", "scale_sd"} <= set(made.atoms)
