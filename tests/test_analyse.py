"""From image to atoms: the true positions and displacements; stop and resume keep faith."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from analysed import BRIEF, FAST, as_image, atom_error, columns, played, rms, small, until_training
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration
from napari_shiftvae.core.lattice import fit_lattice
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig


@pytest.fixture(scope="module")
def simulation():
    return perovskite(rng=np.random.default_rng(0), shape=(320, 300))


@pytest.fixture(scope="module")
def whole(simulation):
    """A full analysis: the run, and all its progress."""
    image = as_image(simulation.image, calibration=Calibration(pixel_size_nm=(0.015, 0.015)))
    return played(analyse(image, AnalysisConfig(train=FAST)))


# --- what is found -----------------------------------------------------------------------------


def test_atoms_are_where_they_are(whole, simulation):
    run, _ = whole
    error, row = atom_error(run, simulation.truth)
    assert len(set(row)) == len(row) > 150  # every atom once
    assert rms(error) < 0.15
    assert np.abs(error).max() < 0.8


def test_ferroelectric_displacement_is_found(whole, simulation):
    """Atom against whole pattern: minus the neighbours' displacement plus its own.

    A moves by -1/3, B by +2/3 of their distance from the middle of the cage, so against its cage A
    moves three times, B one and a half times as far as against its site.
    """
    run, _ = whole
    _, row = atom_error(run, simulation.truth)
    truth = simulation.truth.iloc[row]
    pick, shift = columns(run, "y_px", "x_px"), columns(run, "shift_y_px", "shift_x_px")
    against_cage = columns(run, "atom_y_px", "atom_x_px") - pick - shift
    true_y = truth["displacement_y_px"].to_numpy()
    for sublattice, gain in (("A", 3.0), ("B", 1.5)):
        rows = (truth["sublattice"] == sublattice).to_numpy()
        found = against_cage[rows, 0]
        assert np.corrcoef(found, true_y[rows])[0, 1] > 0.98
        slope, constant = np.polyfit(true_y[rows], found, 1)
        assert slope == pytest.approx(gain, rel=0.1)
        assert abs(constant) < 0.2
        poled = np.abs(true_y[rows]) > 0.7 * np.abs(true_y[rows]).max()
        assert (np.sign(found) == np.sign(true_y[rows]))[poled].mean() > 0.97
    assert rms(against_cage[:, 1]) < 0.35  # the polar axis is y


def test_sublattices_are_told_apart_by_the_latents(whole, simulation):
    run, _ = whole
    _, row = atom_error(run, simulation.truth)
    is_a = (simulation.truth["sublattice"].iloc[row] == "A").to_numpy()
    z = columns(run, "z1", "z2")
    design = np.column_stack([np.ones(len(z)), z])
    weights = np.linalg.lstsq(design, 2.0 * is_a - 1, rcond=None)[0]
    assert ((design @ weights > 0) == is_a).mean() > 0.99


def test_table_says_which_picks_were_set_aside(whole, simulation):
    run, _ = whole
    atoms = run.atoms
    assert list(atoms.columns[:2]) == ["y_px", "x_px"]
    assert atoms.columns[-1] == "set_aside"
    assert set(atoms["set_aside"]) == {"", "border"}
    half = (run.model.config.patch_size_px - 1) / 2
    inside = np.ones(len(atoms), dtype=bool)
    for name, length in zip(("y_px", "x_px"), simulation.image.shape, strict=True):
        inside &= atoms[name].between(half - 0.5, length - 0.5 - half).to_numpy()
    assert np.array_equal(inside, run.used)
    numbers = atoms.drop(columns="set_aside").to_numpy()
    assert np.isfinite(numbers[run.used]).all()
    assert np.isnan(numbers[~run.used]).any(axis=1).all()
    assert run.diagnostics.set_aside == {"border": int((~run.used).sum())}


def test_nanometres_are_pixels_times_their_size(whole):
    atoms = whole[0].atoms
    pixels = [name for name in atoms.columns if name.endswith("_px")]
    for name in pixels:
        np.testing.assert_allclose(atoms[f"{name[:-3]}_nm"], atoms[name] * 0.015)
    assert len(pixels) == 16


def test_pixels_that_are_not_square_scale_each_axis():
    image = as_image(small().image, calibration=Calibration(pixel_size_nm=(0.01, 0.04)))
    atoms = finish(analyse(image, AnalysisConfig(train=BRIEF))).atoms
    for axis, size in (("y", 0.01), ("x", 0.04)):
        for name in ("{}", "shift_{}", "shift_{}_sd", "atom_{}", "atom_{}_sd"):
            stem = name.format(axis)
            np.testing.assert_allclose(atoms[f"{stem}_nm"], atoms[f"{stem}_px"] * size)


def test_noise_is_that_of_the_image(whole, simulation):
    diagnostics = whole[0].diagnostics
    assert diagnostics.noise_sigma == pytest.approx(simulation.noise_sigma, rel=0.06)
    assert diagnostics.noise_sigma_independent == pytest.approx(simulation.noise_sigma, rel=0.06)
    assert diagnostics.active_latents == 2
    assert diagnostics.period_jumps == 0


def test_lattice_is_that_of_the_crystal(whole, simulation):
    """Displacements, which sum to nothing over the domains, are off the reference, not in it."""
    run, _ = whole
    lattice = fit_lattice(run.atom_yx[np.isfinite(run.atom_yx).all(axis=1)])
    assert lattice is not None
    assert lattice.fraction > 0.98
    sites = simulation.truth[["site_y_px", "site_x_px"]].to_numpy()
    reference = lattice.reference_yx
    off = reference - sites[cKDTree(sites).query(reference)[1]]
    assert rms(off - off.mean(axis=0)) < 0.3
    assert np.abs(off.mean(axis=0)).max() < 0.5


def test_maps_lie_on_the_pixels_of_the_image(whole, simulation):
    run, _ = whole
    assert set(run.maps) == {"z1", "z2"}
    y, x = np.rint(columns(run, "y_px", "x_px")).astype(int).T
    for name, drawn in run.maps.items():
        assert drawn.shape == simulation.image.shape
        assert np.isnan(drawn[0, 0])
        there = np.isfinite(drawn[y, x])
        assert there.mean() > 0.8
        values = columns(run, name)[:, 0]
        assert np.corrcoef(drawn[y, x][there], values[there])[0, 1] > 0.98


# --- how it goes -------------------------------------------------------------------------------


def test_progress_goes_through_the_stages_in_order(whole):
    run, seen = whole
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["find", "train", "refine", "fields"]
    for stage in stages:
        fractions = [progress.fraction for progress in seen if progress.stage == stage]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
    for progress in seen:
        if progress.stage == "train":
            np.testing.assert_array_equal(progress.positions_yx, run.picks_yx)
            np.testing.assert_array_equal(progress.index, np.flatnonzero(run.used))
            assert len(progress.report.latents) == len(progress.index)
    assert seen[-2].stage == "refine"
    assert [p for p in seen if p.stage == "train"][-1].fraction == 1.0


def test_run_says_what_was_done(whole):
    run, _ = whole
    assert (run.epochs, run.finished, run.device) == (60, True, run.device)
    assert {"find", "train", "refine", "fields", "total"} <= set(run.seconds)
    parts = sum(seconds for stage, seconds in run.seconds.items() if stage != "total")
    assert run.seconds["total"] == pytest.approx(parts)
    assert run.image.shape == (320, 300)
    assert run.image.pixel_size_nm == (0.015, 0.015)


def test_closing_the_steps_cancels():
    steps = analyse(as_image(small().image), AnalysisConfig(train=BRIEF))
    threads = torch.get_num_threads()
    until_training(steps)
    steps.close()
    assert torch.get_num_threads() == threads
    with pytest.raises(StopIteration):
        next(steps)


# --- stop and resume ---------------------------------------------------------------------------

LONG = AnalysisConfig(train=TrainConfig(epochs=12, learning_rate=4e-3))


@pytest.fixture
def every_step(monkeypatch):
    """Have every step of the training reported."""
    monkeypatch.setattr("napari_shiftvae.core.train.REPORT_EVERY_S", 0.0)


@pytest.mark.usefixtures("every_step")
def test_stop_gives_what_was_learned_and_resume_goes_on():
    image = as_image(small().image)
    stopped, _ = played(analyse(image, LONG), stop_at=4)
    assert (stopped.epochs, stopped.finished) == (4, False)
    assert np.isfinite(columns(stopped, "shift_y_px", "atom_x_px", "z1", "z1_sd")).all()
    weights = copy.deepcopy(stopped.model.state_dict())
    table = stopped.atoms.copy()

    resumed, seen = played(analyse(image, LONG, resume=stopped))
    assert (resumed.epochs, resumed.finished) == (12, True)
    assert next(p for p in seen if p.report).report.epoch == 4  # not from the beginning
    assert "find" not in {progress.stage for progress in seen}
    np.testing.assert_array_equal(resumed.picks_yx, stopped.picks_yx)
    assert resumed.seconds["find"] == stopped.seconds["find"]
    assert resumed.seconds["train"] > stopped.seconds["train"]
    moved = [n for n, value in resumed.model.state_dict().items() if not value.equal(weights[n])]
    assert "encoder.2.0.weight" in moved

    after = stopped.model.state_dict()
    assert all(value.equal(after[name]) for name, value in weights.items())
    assert stopped.atoms.equals(table)
    again, _ = played(analyse(image, LONG, resume=stopped))  # and so it can go on once more
    assert again.atoms.equals(resumed.atoms)


@pytest.mark.usefixtures("every_step")
def test_stop_before_the_training_ends_it_at_its_first_report():
    steps = analyse(as_image(small().image), LONG)
    assert next(steps).stage == "find"
    run, seen = None, []
    try:
        seen.append(steps.send("stop"))
        while True:
            seen.append(next(steps))
    except StopIteration as end:
        run = end.value
    assert [progress.stage for progress in seen].count("train") == 1
    assert not run.finished


def test_finished_run_is_kept_by_a_further_resume(whole, simulation):
    run, _ = whole
    image = as_image(simulation.image)
    again, seen = played(analyse(image, run.config, resume=run))
    assert "train" not in {progress.stage for progress in seen}
    assert (again.epochs, again.finished) == (60, True)
    np.testing.assert_allclose(
        again.atoms["atom_y_px"], run.atoms["atom_y_px"], atol=0.02, equal_nan=True
    )


@pytest.mark.usefixtures("every_step")
def test_resume_keeps_the_model_and_may_train_longer():
    image = as_image(small().image)
    stopped, _ = played(analyse(image, LONG), stop_at=2)
    longer = AnalysisConfig(
        latent_dim=3, dark=True, train=TrainConfig(epochs=14, learning_rate=4e-3, seed=5)
    )
    resumed, _ = played(analyse(image, longer, resume=stopped))
    assert resumed.epochs == 14
    assert resumed.config.latent_dim == resumed.model.config.latent_dim == 2
    assert not resumed.config.dark
    assert resumed.config.train.seed == 0


def test_resume_is_refused_where_it_cannot_be(whole, simulation):
    run, _ = whole
    with pytest.raises(InputError, match=r"not hold the state of .* training.*analysis anew"):
        finish(analyse(as_image(simulation.image), LONG, resume=replace(run, training=None)))
    with pytest.raises(InputError, match=r"another image \(made\): choose that one, or start"):
        finish(analyse(as_image(simulation.image + 1), LONG, resume=run))


# --- what must not matter, and what must -------------------------------------------------------


def test_dark_atoms_of_the_negative_are_the_bright_ones(whole, simulation):
    bright, _ = whole
    config = AnalysisConfig(dark=True, train=FAST)
    dark = finish(analyse(as_image(-simulation.image), config))
    assert len(dark.atoms) == len(bright.atoms)
    error, _ = atom_error(dark, simulation.truth)
    assert rms(error) < 0.15
