"""The run file: what is saved is what is loaded; bad files are refused with a sentence."""

import json
import os
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.infer import encode, refine
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.runs import summary
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig
from saved_run import members, run_with_all


@pytest.fixture(scope="module")
def run():
    return run_with_all()


@pytest.fixture(scope="module")
def content():
    return members()


# --- there and back ----------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(run, tmp_path):
    loaded = load_run(save_run(run, tmp_path / "made.shiftvae"))
    assert list(loaded.atoms.columns) == list(run.atoms.columns)
    assert list(loaded.atoms["set_aside"]) == list(run.atoms["set_aside"])
    assert {"", "border", "duplicate"} == set(loaded.atoms["set_aside"])
    for name in run.atoms.columns[:-1]:
        assert loaded.atoms[name].dtype == np.float64
        np.testing.assert_allclose(loaded.atoms[name], run.atoms[name], rtol=1e-9, atol=1e-300)
    weights, expected = loaded.model.state_dict(), run.model.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert loaded.model.config == run.model.config
    assert not loaded.model.training
    assert loaded.config == run.config
    assert loaded.image == run.image
    assert loaded.diagnostics == run.diagnostics
    assert (loaded.epochs, loaded.finished, loaded.device) == (4, True, run.device)
    assert summary(loaded) == summary(run)
    assert loaded.training is None


def test_saving_what_was_loaded_gives_the_same_table(run, tmp_path):
    first = save_run(run, tmp_path / "first.shiftvae")
    second = save_run(load_run(first), tmp_path / "second.shiftvae")
    tables = [zipfile.ZipFile(path).read("atoms.csv") for path in (first, second)]
    assert tables[0] == tables[1]


def test_maps_of_a_loaded_run_are_the_same(run, tmp_path):
    loaded = load_run(save_run(run, tmp_path / "made.shiftvae"))
    assert set(loaded.maps) == {"z1", "z2", "z3"}
    for name, drawn in run.maps.items():
        np.testing.assert_allclose(loaded.maps[name], drawn, atol=1e-5)
    np.testing.assert_allclose(loaded.picks_yx, run.picks_yx, rtol=1e-9)


def test_loaded_model_reads_patches_alike(run, tmp_path):
    loaded = load_run(save_run(run, tmp_path / "made.shiftvae"))
    patches = run.training.patches
    *_, first = refine(run.model, patches, encode(run.model, patches))
    *_, second = refine(loaded.model, patches, encode(loaded.model, patches))
    assert torch.equal(first.z, second.z)


def test_coordinate_decoder_and_odd_sizes_survive(tmp_path):
    made = perovskite(rng=np.random.default_rng(0), shape=(120, 120))
    config = AnalysisConfig(
        decoder="coordinate", patch_size_px=9, dark=True, train=TrainConfig(epochs=1)
    )
    picks = made.truth[["y_px", "x_px"]].to_numpy()
    image = MicroscopeImage(data=made.image, name="made")
    run = finish(analyse(image, config, positions_yx=picks))
    loaded = load_run(save_run(run, tmp_path / "made.shiftvae"))
    z, shift = torch.randn(3, 2), torch.randn(3, 2)
    assert torch.equal(loaded.model.decode(z, shift), run.model.decode(z, shift))
    assert loaded.image.pixel_size_nm is None
    assert loaded.config == config


# --- the file ----------------------------------------------------------------------------------


def test_file_is_a_zip_of_three_open_formats(run, content):
    assert set(content) == {"atoms.csv", "run.json", "model.safetensors"}
    record = json.loads(content["run.json"])
    assert record["settings"]["train"]["seed"] == record["seed"] == 7
    assert record["image"]["sha256"] == run.image.sha256
    assert record["image"]["shape"] == [160, 150]
    assert record["versions"]["torch"] == torch.__version__
    assert record["image"]["name"] == "Müller's sample, 2"
    lines = content["atoms.csv"].decode().splitlines()
    assert len(lines) == 1 + len(run.atoms)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("a.shiftvae", "a.shiftvae"),
        ("a", "a.shiftvae"),
        ("a.run", "a.run.shiftvae"),
        ("a.tif", "a.tif.shiftvae"),
    ],
)
def test_name_of_the_file(run, tmp_path, given, made):
    assert save_run(run, tmp_path / given) == tmp_path / made
    assert [path.name for path in tmp_path.iterdir()] == [made]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_others_may_read_what_the_umask_lets_them(run, tmp_path):
    before = os.umask(0o022)
    try:
        path = save_run(run, tmp_path / "made.shiftvae")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_failing_to_write_leaves_the_old_file_whole(run, tmp_path, monkeypatch):
    path = save_run(run, tmp_path / "made.shiftvae")
    old = path.read_bytes()
    write = zipfile.ZipFile.writestr

    def full(self, name, data):
        if name == "model.safetensors":
            raise OSError(28, "No space left on device")
        write(self, name, data)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(InputError, match=r"made.shiftvae could not be written \(No space left"):
        save_run(replace(run, epochs=99), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_run(run, tmp_path / "made.shiftvae")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_none_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "a.shiftvae", tmp_path / "file" / "a.shiftvae"):
        with pytest.raises(InputError, match=r"could not be written .*choose another folder"):
            save_run(run, path)
    (tmp_path / "folder.shiftvae").mkdir()
    with pytest.raises(InputError, match="could not be written"):
        save_run(run, tmp_path / "folder.shiftvae")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.shiftvae"]
