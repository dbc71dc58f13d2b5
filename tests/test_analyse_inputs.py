"""What must not matter to an analysis, what must, and what is refused before any work."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from analysed import BRIEF, FAST, as_image, columns, played, rms, small, until_training
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.computer import choose_device
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.rendering import rotated_axes
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

CELL_PX = 0.40 / 0.015


def test_given_positions_are_the_picks():
    made = small()
    picks = made.truth[["y_px", "x_px"]].to_numpy()
    picks = picks[::-1] + 0.3  # an order of their own
    run = finish(analyse(as_image(made.image), AnalysisConfig(train=FAST), positions_yx=picks))
    np.testing.assert_array_equal(run.picks_yx, picks)
    nearest = np.median(cKDTree(picks).query(picks, k=2)[0][:, 1])
    assert run.separation_px == pytest.approx(nearest, rel=0.05)
    shift = columns(run, "shift_y_px", "shift_x_px").mean(axis=0)
    np.testing.assert_allclose(shift, -0.3, atol=0.1)


def test_unit_of_the_image_does_not_matter():
    made = small()
    config = AnalysisConfig(train=BRIEF)
    plain = finish(analyse(as_image(made.image), config)).atoms
    four = finish(analyse(as_image(made.image * 4), config)).atoms
    assert four.equals(plain)  # exact in floating point
    other = finish(analyse(as_image(made.image * 250 + 1000), config)).atoms
    assert list(other["set_aside"]) == list(plain["set_aside"])
    for name in ("y_px", "shift_y_px", "shift_x_sd_px", "atom_x_px", "residual"):
        np.testing.assert_allclose(other[name], plain[name], atol=5e-3)


def test_masked_pixels_leave_the_others_alone():
    made = small()
    image = made.image.copy()
    image[50:90, 60:100] = np.nan
    image[70, 80] = np.inf
    picks = made.truth[["y_px", "x_px"]].to_numpy()
    run = finish(analyse(as_image(image), AnalysisConfig(train=BRIEF), positions_yx=picks))
    half = run.model.config.patch_size_px / 2
    reaches = (picks[:, 0] > 50 - half - 1) & (picks[:, 0] < 90 + half)
    reaches &= (picks[:, 1] > 60 - half - 1) & (picks[:, 1] < 100 + half)
    masked = (run.atoms["set_aside"] == "masked").to_numpy()
    assert masked.sum() > 5
    assert reaches[masked].all()
    assert np.isfinite(columns(run, "shift_y_px", "atom_x_px", "z2")).all()
    assert run.diagnostics.set_aside["masked"] == masked.sum()
    assert any("beside masked pixels" in sentence for sentence in run.diagnostics.sentences)
    found = finish(analyse(as_image(image), AnalysisConfig(train=BRIEF)))  # atoms found, too
    assert np.isfinite(columns(found, "shift_y_px")).all()
    on_mask = (found.picks_yx > (50, 60)) & (found.picks_yx < (89, 99))
    assert not on_mask.all(axis=1).any()


def test_seed_decides_everything():
    image = as_image(small().image)
    first, again, other = (
        finish(analyse(image, AnalysisConfig(train=replace(BRIEF, seed=seed)))).atoms
        for seed in (3, 3, 4)
    )
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize("sampling", ["grid", "random"])
def test_windows_anywhere_end_on_one_site(sampling):
    """No atom is sought: windows are aligned, merged and fitted."""
    made = perovskite(rng=np.random.default_rng(0), shape=(320, 300), displacement_nm=0.0)
    config = AnalysisConfig(sampling=sampling, count=500, train=BRIEF)
    run, seen = played(analyse(as_image(made.image), config))
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["find", "align", "train", "refine", "fields"]
    assert 60 < run.used.sum() < 130  # of about a hundred cells
    place = columns(run, "y_px", "x_px") + columns(run, "shift_y_px", "shift_x_px")
    vectors = np.stack(rotated_axes(0.03)) * CELL_PX
    fraction = place @ np.linalg.inv(vectors)
    fraction -= np.angle(np.exp(2j * np.pi * fraction).mean(axis=0)) / (2 * np.pi)
    off = (fraction - np.rint(fraction)) @ vectors
    assert np.abs(off).max() < 1.0
    assert rms(off) < 0.2


def test_without_refinement_the_encoder_speaks():
    image = as_image(small().image)
    run, seen = played(analyse(image, AnalysisConfig(train=BRIEF, refine=False)))
    assert not any("Refining" in progress.message for progress in seen)
    assert np.isfinite(columns(run, "shift_y_px", "z1_sd")).all()
    refined = finish(analyse(image, AnalysisConfig(train=BRIEF)))
    assert not refined.atoms.equals(run.atoms)


def test_settings_reach_the_model():
    config = AnalysisConfig(
        patch_size_px=11,
        latent_dim=3,
        decoder="coordinate",
        shift_prior_px=1.7,
        separation_px=19.0,
        normalisation="patch",
        train=TrainConfig(epochs=1),
        refine=False,
    )
    made = small()
    picks = made.truth[["y_px", "x_px"]].to_numpy()[:40]
    run = finish(analyse(as_image(made.image), config, positions_yx=picks))
    model = run.model.config
    assert (model.patch_size_px, model.latent_dim, model.decoder) == (11, 3, "coordinate")
    assert (model.shift_prior_px, model.separation_px) == (1.7, 19.0)
    assert "z3_sd" in run.atoms
    assert len(np.unique(run.training.patches.scale)) > 1


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (np.empty((0, 2)), "There are 0 different positions"),
        ([(80.0, 80.0)], "There are 1 different positions"),
        ([(80.0, 80.0)] * 40, "There are 1 different positions"),
        ([(80.0, 80.0 + x) for x in range(15)], "There are 15 different positions"),
        ([(80.0, 80.0 + x / 50) for x in range(40)], "separation_px is 0.0"),
        ([(1e3, 80.0 + x) for x in range(40)], "All 40 atoms lie too near the border"),
        ([(np.nan, 80.0 + 3 * x) for x in range(40)], "not finite"),
    ],
)
def test_useless_positions_are_refused_before_the_training(positions, message):
    config = AnalysisConfig(patch_size_px=30, train=BRIEF)
    steps = analyse(as_image(small().image), config, positions_yx=positions)
    with pytest.raises(InputError, match=message):
        until_training(steps)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((64, 64)), "constant"),
        (np.zeros((64, 64, 3), dtype=np.uint8), "RGB"),
        (np.full((64, 64), np.nan), "no valid pixel"),
        (np.ones((64, 64), dtype=complex), "complex"),
    ],
)
def test_useless_images_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        next(analyse(as_image(data), AnalysisConfig()))


def test_patch_larger_than_the_image_is_refused_before_the_training():
    config = AnalysisConfig(patch_size_px=200, train=BRIEF)
    steps = analyse(as_image(small().image), config)
    with pytest.raises(InputError, match="patch size of 200 px does not fit"):
        until_training(steps)


def test_image_without_atoms_is_refused():
    image = as_image(small().image)
    steps = analyse(image, AnalysisConfig(threshold=50.0))
    with (
        pytest.warns(UserWarning, match="threshold"),
        pytest.raises(InputError, match="No atoms were found"),
    ):
        finish(steps)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling", "hexagons"),
        ("normalisation", "none"),
        ("decoder", "wavelet"),
        ("device", "abacus"),
        ("separation_px", 1.0),
        ("separation_px", float("nan")),
        ("patch_size_px", 5),
        ("latent_dim", 0),
        ("shift_prior_px", 0.0),
        ("band_limit", 0.9),
        ("count", 100),  # of atoms: all of them are used
    ],
)
def test_bad_settings_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=name):
        AnalysisConfig(**{name: value})


def test_absent_device_is_refused():
    assert choose_device("cpu").type == "cpu"
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="no cuda device: choose auto or cpu"):
        choose_device("cuda")
