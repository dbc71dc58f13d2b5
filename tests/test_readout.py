"""Fields of a run against the truth of a simulated ferroelectric."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy.spatial import KDTree

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.lattice import fit_lattice
from napari_shiftvae.core.readout import Options, VectorKind, read_out
from napari_shiftvae.core.reference import image_reference
from napari_shiftvae.core.scalars import noise_of_residual
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

MADE = perovskite(
    rng=np.random.default_rng(3), shape=(260, 280), pixel_size_nm=0.02, noise=0.04, rotation_rad=0.0
)


@pytest.fixture(scope="module")
def run():
    config = AnalysisConfig(train=TrainConfig(epochs=40, learning_rate=4e-3))
    return finish(analyse(MicroscopeImage(data=MADE.image, name="made"), config))


@pytest.fixture(scope="module")
def truth(run):
    row = KDTree(MADE.truth[["y_px", "x_px"]]).query(run.picks_yx)[1]
    return MADE.truth.iloc[row].reset_index(drop=True)


def known(field):
    return np.isfinite(field.yx_px).all(axis=1)


def test_displacement_from_the_lattice_is_that_of_the_true_positions(run, truth):
    """The lattice takes up a part of the domains; so it does of the true positions."""
    field = read_out(run, Options(vectors="displacement from the lattice")).field
    rows = known(field)
    assert rows.sum() > 0.9 * run.used.sum()
    true = truth.loc[rows, ["y_px", "x_px"]].to_numpy()
    contrast = np.where(truth.loc[rows, "sublattice"] == "A", 2.0, 1.0)
    reference = image_reference(true, fit_lattice(true, amplitude=contrast))
    expected = true - reference.places_yx
    assert np.sqrt(np.mean((field.yx_px[rows] - expected) ** 2)) < 0.1
    assert np.corrcoef(field.yx_px[rows, 0], expected[:, 0])[0, 1] > 0.97


def test_polar_displacement_between_sublattices_has_the_true_size(run, truth):
    names = truth["sublattice"].to_numpy(dtype=object)
    options = Options(vectors="polar displacement between sublattices")
    readout = read_out(run, options, sublattice=names)
    rows = known(readout.field)
    assert set(names[rows]) == {"B"}
    # B against its A cage: its own displacement and the cage's, 2/3 and 1/3 of the whole
    expected = 1.5 * truth["displacement_y_px"].to_numpy()[rows]
    deep = np.abs(expected) > 0.9 * np.abs(expected).max()
    measured = readout.field.yx_px[rows, 0][deep]
    assert np.median(measured / expected[deep]) == pytest.approx(1, abs=0.05)


def test_a_sublattice_that_is_no_cage_is_refused(run, truth):
    """Half of the cage's atoms have a name of their own, as where a crystal has an interface."""
    names = np.where(truth["sublattice"] == "B", "C", "A").astype(object)
    names[(names == "A") & (truth["x_px"] > MADE.image.shape[1] / 4)] = "B"
    with pytest.raises(InputError, match="atoms of A do not surround the others"):
        read_out(run, Options(vectors="polar displacement between sublattices"), sublattice=names)
    names[names == "B"] = "A"
    read_out(run, Options(vectors="polar displacement between sublattices"), sublattice=names)


def test_a_crystal_without_strain_has_none(run):
    scalars = read_out(run, Options(position="whole pattern")).scalars
    for name, unit in (("exx", "%"), ("eyy", "%"), ("rotation", "degree")):
        scalar = scalars[name]
        assert scalar.unit == unit
        assert scalar.signed
        assert abs(np.nanmean(scalar.values)) < 0.2
    assert np.nanmedian(scalars["exx"].sd) > 0


def test_a_trend_is_removed_and_said(run):
    options = Options(vectors="displacement from the lattice", trend="affine")
    readout = read_out(run, options)
    assert any("Removed" in sentence for sentence in readout.sentences)
    y, x = readout.field.yx_px[known(readout.field)].T
    assert abs(np.median(y)) < 0.2
    assert abs(np.median(x)) < 0.2


@pytest.mark.parametrize(
    "kind", ["displacement from the lattice", "polar displacement in the cage"]
)
def test_sentences_have_lengths_in_the_unit_that_is_asked_for(run, kind):
    options = Options(vectors=kind, trend="shift")
    told = read_out(run, options, pixel_size_nm=(0.02, 0.02), unit="pm")
    assert any(" pm" in sentence for sentence in told.sentences)
    assert not any(" px" in sentence for sentence in told.sentences)
    assert any(" px" in sentence for sentence in read_out(run, options, unit="px").sentences)


def test_noise_alone_gives_the_residual_that_is_said(run):
    rng = np.random.default_rng(5)
    residual = read_out(run, Options()).scalars["residual"]
    size = run.model.config.patch_size_px
    by_noise = np.sqrt(np.mean(rng.normal(size=(4000, size, size)) ** 2, axis=(1, 2)))
    assert np.mean(by_noise) == pytest.approx(1, abs=0.01)
    assert noise_of_residual(size) == pytest.approx(np.std(by_noise), rel=0.05)
    assert residual.note == f"Noise alone gives 1 ± {noise_of_residual(size):.2g}."


def test_a_reference_region_has_no_displacement(run):
    inside = run.picks_yx[:, 1] < 140
    options = Options(vectors="displacement from the lattice")
    field = read_out(run, options, inside=inside).field
    rows = known(field) & inside
    np.testing.assert_allclose(field.yx_px[rows].mean(axis=0), 0, atol=0.05)
    assert "reference region" in field.sentence


@pytest.mark.parametrize("kind", get_args(VectorKind))
def test_every_field_has_units_uncertainty_and_a_map(run, truth, kind):
    names = truth["sublattice"].to_numpy(dtype=object)
    readout = read_out(run, Options(vectors=kind), sublattice=names)
    rows = known(readout.field)
    assert rows.any()
    assert (readout.field.sd_yx_px[rows] > 0).all()
    assert {"along y", "along x", "length"} <= set(readout.scalars)
    drawn = readout.scalars["length"].on_pixels(run)
    assert drawn.shape == MADE.image.shape
    assert np.isfinite(drawn).any()


def test_without_sublattices_the_remedy_is_said(run):
    with pytest.raises(InputError, match="press Group"):
        read_out(run, Options(vectors="polar displacement between sublattices"))


def test_the_dock_offers_every_field():
    from napari_shiftvae.fields_jobs import VECTORS

    assert set(VECTORS) == set(get_args(VectorKind))


def test_an_unknown_field_is_refused():
    with pytest.raises(InputError, match="vectors is 'flow': choose one of"):
        Options(vectors="flow")


def test_oblong_pixels_leave_strain_rotation_and_lengths_as_they_are(run, truth):
    """The same atoms on pixels half as high: what is told of the sample is the same."""
    factor = np.array([2.0, 1.0])
    columns = {
        name: run.atoms[name] * factor[0]
        for name in run.atoms
        if "_y_" in f"_{name}" and name.endswith("_px")
    }
    flat = replace(run, atoms=run.atoms.assign(**columns))
    names = truth["sublattice"].to_numpy(dtype=object)
    options = Options(vectors="displacement from the lattice", trend="rigid")
    square = read_out(run, options, sublattice=names, pixel_size_nm=(0.02, 0.02))
    oblong = read_out(flat, options, sublattice=names, pixel_size_nm=(0.01, 0.02))
    root = np.sqrt(2)  # a square pixel of the same area is smaller by this
    for name, scalar in square.scalars.items():
        own = oblong.scalars[name]
        size = root if scalar.unit == "px" else 1.0
        known = np.isfinite(scalar.values) & np.isfinite(own.values)
        assert known.sum() > 0.8 * np.isfinite(scalar.values).sum()
        np.testing.assert_allclose(
            own.values[known], size * scalar.values[known], atol=2e-4, err_msg=name
        )
    known = np.isfinite(square.field.yx_px).all(axis=1)
    known &= np.isfinite(oblong.field.yx_px).all(axis=1)
    np.testing.assert_allclose(
        oblong.field.angle_rad[known], square.field.angle_rad[known], atol=0.02
    )
    np.testing.assert_allclose(
        oblong.field.yx_px[known], square.field.yx_px[known] * factor, atol=2e-3
    )
