"""The examples run, and what they print is right."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_shiftvae.core.runfile import load_run, load_spectra
from napari_shiftvae.core.simulate import perovskite

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Run an example with arguments; return what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_is_short_and_tested():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {"ferroelectric.py", "image_file.py", "stack.py", "spectra.py"}
    assert all(len((EXAMPLES / name).read_text().splitlines()) <= 45 for name in names)


def test_ferroelectric(run_example, tmp_path):
    out = run_example("ferroelectric.py", tmp_path)
    (correlation,) = re.findall(r"along y: ([\d.]+);", out)
    assert float(correlation) > 0.98
    assert np.nanstd(np.load(tmp_path / "polar_yx_px.npy")[0]) > 0.2
    assert list(tmp_path.glob("*.ome.tif"))
    assert (tmp_path / "reproduce.py").exists()


def test_image_file(run_example, tmp_path):
    for seed, name in enumerate(("first.npy", "second.npy")):
        made = perovskite(rng=np.random.default_rng(seed), shape=(160, 150))
        np.save(tmp_path / name, made.image)
    out = run_example("image_file.py", tmp_path / "first.npy", tmp_path / "second.npy")
    assert "second.npy read with the model of first.npy" in out
    first, second = (load_run(tmp_path / f"{name}.shiftvae") for name in ("first", "second"))
    assert first.finished
    assert second.trained_on.name == first.image.name == "first"


def test_stack(run_example, tmp_path):
    out = run_example("stack.py", tmp_path)
    assert "Learned from frames (0, 4)" in out
    assert len(list(tmp_path.glob("frame-*.csv"))) == 5
    again = run_example("stack.py", tmp_path)
    assert again == out


def test_spectra(run_example, tmp_path):
    out = run_example("spectra.py", tmp_path / "made.shiftvae")
    (correlation,) = re.findall(r"correlation of ([\d.]+)", out)
    assert float(correlation) > 0.99
    assert load_spectra(tmp_path / "made.shiftvae").image.grid_shape == (20, 30)
