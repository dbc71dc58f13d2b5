"""A trained model on another image: positions against known truth, and what is said of it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_shiftvae.cli import main
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.apply import encode_image, encode_steps, resampled
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

PIXEL_NM = 0.015


def simulated(seed, side=200):
    return perovskite(rng=np.random.default_rng(seed), shape=(side, side))


def as_image(pixels, name="made", pixel_nm=PIXEL_NM):
    return MicroscopeImage(
        data=pixels, name=name, calibration=Calibration(pixel_size_nm=(pixel_nm, pixel_nm))
    )


@pytest.fixture(scope="module")
def first():
    return simulated(0)


@pytest.fixture(scope="module")
def second():
    return simulated(1)


@pytest.fixture(scope="module")
def run(first):
    return finish(analyse(as_image(first.image), AnalysisConfig(train=TrainConfig(epochs=50))))


@pytest.fixture(scope="module")
def run_file(run, tmp_path_factory):
    return save_run(run, tmp_path_factory.mktemp("run") / "trained.shiftvae")


def typical_error(found_yx, made):
    distance = cKDTree(made.truth[["y_px", "x_px"]]).query(found_yx)[0]
    return float(np.median(distance))


def test_same_image_gives_the_same_numbers(run, first):
    again = finish(encode_image(run, as_image(first.image)))
    np.testing.assert_array_equal(again.picks_yx, run.picks_yx)
    for name in ("atom_y_px", "atom_x_px", "shift_y_px", "z1", "z2", "residual"):
        sd = run.atoms[name + "_sd" if name[0] == "z" else "atom_y_sd_px"].median()
        np.testing.assert_allclose(again.atoms[name], run.atoms[name], atol=0.1 * sd)


def test_other_image_is_read_as_well_as_by_its_own_model(run, second, tmp_path):
    """From 220 atoms on; of a hundred, a model learns their own noise, too."""
    larger = as_image(simulated(0, side=280).image)
    run = finish(analyse(larger, run.config))
    run_file = save_run(run, tmp_path / "larger.shiftvae")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    image = as_image(second.image, "second")
    made = finish(encode_image(load_run(run_file), image))
    own = finish(analyse(image, run.config))
    np.testing.assert_allclose(made.picks_yx, own.picks_yx, atol=0.2)  # another spacing
    error = typical_error(made.atom_yx[made.used], second)
    assert error < 1.15 * typical_error(own.atom_yx[own.used], second) < 0.2
    assert (made.image.name, made.trained_on.name) == ("second", "made")
    assert not made.resumable
    assert list(made.atoms.columns) == list(own.atoms.columns)
    patterns = [one.model.decode(torch.zeros(1, 2)) for one in (made, run)]
    assert torch.equal(*patterns)  # the decoder is the same
    assert all(torch.equal(run.model.state_dict()[name], before[name]) for name in before)


def test_positions_can_be_given(run, second):
    picks = second.truth[["y_px", "x_px"]].to_numpy()[::-1]
    made = finish(encode_image(run, as_image(second.image), picks))
    np.testing.assert_array_equal(made.picks_yx, picks)


def test_classes_are_those_of_the_model(first):
    """Whatever shares they have in the image that is read."""
    config = AnalysisConfig(classes=2, train=TrainConfig(epochs=50))
    run = finish(analyse(as_image(first.image), config))
    again = finish(encode_image(run, as_image(first.image)))
    agree = again.atoms["class"] == run.atoms["class"]
    assert agree.mean() > 0.98
    rare = run.atoms[(run.atoms["class"] == 1) & run.used]
    picks = rare[["y_px", "x_px"]].to_numpy()
    alone = finish(encode_steps(run, as_image(first.image), picks))
    assert (alone.atoms["class"] == 1).mean() > 0.98
    np.testing.assert_array_equal(list(alone.atoms.columns), list(run.atoms.columns))


def test_encoded_run_survives_its_file(run, second, tmp_path):
    made = finish(encode_image(run, as_image(second.image, "second")))
    loaded = load_run(save_run(made, tmp_path / "made"))
    assert loaded.trained_on == made.trained_on == run.image
    assert loaded.intensity == made.intensity == run.intensity
    with pytest.raises(InputError, match="model comes from another image"):
        finish(analyse(as_image(second.image), run.config, resume=loaded))


def test_image_is_resampled_to_the_trained_pixel_size(run, second):
    """An image with pixels 1.3 times finer, and twice the contrast."""
    ratio = 1.3
    finer = ndimage.affine_transform(
        second.image,
        [1 / ratio] * 2,
        offset=[0.5 / ratio - 0.5] * 2,
        output_shape=[int(200 * ratio)] * 2,
    )
    image = as_image(2 * finer, "finer", PIXEL_NM / ratio)
    made = finish(encode_image(run, image, resample=True, own_intensity=True))
    back = (made.atom_yx[made.used] + 0.5) / ratio - 0.5
    assert typical_error(back, second) < 0.15
    table = made.atoms[made.used]
    np.testing.assert_allclose(table["y_nm"], table["y_px"] * PIXEL_NM / ratio)
    plain = finish(encode_image(run, as_image(second.image)))
    for name in ("shift_y_px", "atom_x_sd_px"):  # lengths are longer in finer pixels
        spread = table[name].std() + table[name].median()
        expected = plain.atoms[name].std() + plain.atoms[name].median()
        assert spread == pytest.approx(ratio * expected, rel=0.25)
    assert made.image.shape == image.data.shape
    assert made.maps["z1"].shape == image.data.shape


@pytest.mark.parametrize("ratio", [(0.5, 0.7), (1.3, 1.3), (2.0, 1.0)])
def test_resampling_keeps_places(ratio):
    """A blob stays where it is, in units of length; what is masked stays masked."""
    y, x = np.mgrid[:80, :90]
    blob = np.exp(-((y - 30.3) ** 2 + (x - 51.7) ** 2) / 50).astype(np.float32)
    made = resampled(blob, ratio)
    found = ndimage.center_of_mass(made)
    np.testing.assert_allclose((np.array(found) + 0.5) / ratio - 0.5, (30.3, 51.7), atol=0.02)
    blob[:10] = np.nan
    rows = np.isnan(resampled(blob, ratio)).all(axis=1)
    assert rows.sum() == pytest.approx(10 * ratio[0], abs=1.5)
    assert not np.isnan(resampled(blob, ratio)[int(11 * ratio[0]) + 2 :]).any()


def test_other_pixel_size_is_said(run, second):
    image = as_image(second.image, "second", 0.02)
    with pytest.warns(UserWarning, match=r"0\.02 x 0\.02 nm .* 0\.015 x 0\.015 nm: resample"):
        made = finish(encode_image(run, image))
    assert "resample the image" in made.diagnostics.sentences[0]


def test_other_intensities_are_said_unless_the_image_s_own_are_taken(run, first):
    image = as_image(3 * first.image + 5, "brighter")
    with pytest.warns(UserWarning, match=r"intensities of brighter .*\(3 times the contrast"):
        wrong = finish(encode_image(run, image))
    made = finish(encode_image(run, image, own_intensity=True))
    np.testing.assert_allclose(made.atoms["z1"], run.atoms["z1"], atol=0.01)
    assert np.nanmax(np.abs(wrong.atoms["z1"] - run.atoms["z1"])) > 0.5


def test_windows_anywhere_are_found_by_the_pattern(first, second):
    config = AnalysisConfig(sampling="random", count=600, train=TrainConfig(epochs=50))
    run = finish(analyse(as_image(first.image), config))
    made = finish(encode_image(run, as_image(second.image), own_intensity=True))
    assert len(made.atoms) == pytest.approx(len(run.atoms), abs=12)
    assert typical_error(made.atom_yx[made.used], second) < 0.15


def test_what_cannot_be_encoded_is_refused(run, second):
    plain = MicroscopeImage(data=second.image, name="plain")
    with pytest.raises(InputError, match="needs both pixel sizes, and the one of plain"):
        finish(encode_image(run, plain, resample=True))
    uncalibrated = replace(run, image=replace(run.image, pixel_size_nm=None))
    with pytest.raises(InputError, match="that made was trained with is not known"):
        finish(encode_image(uncalibrated, as_image(second.image), resample=True))
    with pytest.raises(InputError, match="does not fit"):
        finish(encode_image(run, as_image(second.image[:20, :20]), [[5, 5]]))


def test_command_line(run_file, second, tmp_path, capsys):
    np.save(tmp_path / "second.npy", second.image)
    second.truth.to_csv(tmp_path / "truth.csv", index=False)
    output = tmp_path / "made.shiftvae"
    options = ["--positions", str(tmp_path / "truth.csv"), "--json"]
    options += ["--pixel-size", "15", "--unit", "pm", "--output", str(output)]
    assert main(["encode", str(run_file), str(tmp_path / "second.npy"), *options]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    made = load_run(output)
    assert summary["n_patches"] == made.used.sum()
    picks = second.truth[["y_px", "x_px"]].to_numpy()
    expected = finish(encode_image(load_run(run_file), as_image(second.image), picks))
    pd.testing.assert_frame_equal(made.atoms, expected.atoms, rtol=1e-9, check_dtype=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resample"], "Resampling needs both pixel sizes"),
        (["--positions", "none.csv"], "none.csv could not be read"),
        (["--pixel-size", "15"], "--pixel-size and --unit go together"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    run_file, second, tmp_path, capsys, options, words
):
    np.save(tmp_path / "second.npy", second.image)
    output = ["--output", str(tmp_path / "made.shiftvae")]
    assert main(["encode", str(run_file), str(tmp_path / "second.npy"), *output, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "made.shiftvae").exists()
