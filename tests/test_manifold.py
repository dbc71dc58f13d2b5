"""What the decoder of a run makes."""

import numpy as np
import pytest
import torch
from PIL import Image

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.manifold import (
    GAP_PX,
    decode,
    decoder_grid,
    latent_names,
    patches_of,
    populated,
    save_strip,
    traverse,
    view_atom,
)
from napari_shiftvae.core.reconstruction import reconstruct
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

MADE = perovskite(rng=np.random.default_rng(1), shape=(150, 160), pixel_size_nm=0.02)
IMAGE = MicroscopeImage(data=MADE.image, name="made")


@pytest.fixture(scope="module")
def run():
    config = AnalysisConfig(train=TrainConfig(epochs=60, learning_rate=4e-3))
    return finish(analyse(IMAGE, config))


def test_an_atom_is_its_model_plus_noise(run):
    patches = patches_of(run, IMAGE)
    for row in np.flatnonzero(run.used)[::10]:
        view = view_atom(run, patches, int(row))
        noise = run.diagnostics.noise_sigma
        np.testing.assert_allclose(
            (view.patch - view.reconstruction) / noise, view.residual, rtol=1e-3, atol=1e-3
        )
        residual = float(np.sqrt(np.mean(view.residual**2)))
        assert residual == pytest.approx(run.atoms["residual"][row], rel=1e-3)
        assert np.corrcoef(view.patch.ravel(), view.reconstruction.ravel())[0, 1] > 0.8


def test_an_atom_that_was_set_aside_has_no_picture(run):
    aside = int(np.flatnonzero(~run.used)[0])
    assert view_atom(run, patches_of(run, IMAGE), aside) is None


@pytest.mark.parametrize("invariances", [("shift",), ("shift", "rotation", "scale"), ()])
def test_a_run_from_a_file_shows_its_atoms_as_before(tmp_path, invariances):
    config = AnalysisConfig(invariances=invariances, train=TrainConfig(epochs=3))
    run = finish(analyse(IMAGE, config))
    patches = patches_of(run, IMAGE)
    save_run(run, tmp_path / "made.shiftvae")
    again = load_run(tmp_path / "made.shiftvae")
    assert again.fit is None
    for row in np.flatnonzero(run.used)[::20]:
        view = view_atom(run, patches, int(row))
        restored = view_atom(again, patches_of(again, IMAGE), int(row))
        np.testing.assert_allclose(restored.patch, view.patch, atol=1e-5)
        np.testing.assert_allclose(restored.reconstruction, view.reconstruction, atol=1e-4)
    before = reconstruct(run, patches, MADE.image.astype(np.float32))
    after = reconstruct(again, patches_of(again, IMAGE), MADE.image.astype(np.float32))
    np.testing.assert_allclose(after.image, before.image, atol=1e-4)


def test_patches_are_the_same_cut_again_from_the_image(run):
    import dataclasses

    again = patches_of(dataclasses.replace(run, training=None), IMAGE)
    np.testing.assert_array_equal(again.gather(), patches_of(run, IMAGE).gather())


def test_the_grid_has_the_decoded_patterns_in_their_places(run):
    side, size = 5, run.model.config.patch_size_px
    grid = decoder_grid(run, side)
    assert grid.patterns.shape == (side, side, size, size)
    right, up = (populated(run, name, side) for name in ("z1", "z2"))
    for row, column in ((0, 0), (4, 1), (2, 3)):
        expected = decode(run, [right[column], up[side - 1 - row]])[0]
        np.testing.assert_allclose(grid.patterns[row, column], expected, atol=1e-5)
    np.testing.assert_allclose(grid.across, right)
    np.testing.assert_allclose(grid.up, up[::-1])
    other = decoder_grid(run, side, ("z2", "z1"))  # the same, mirrored about its diagonal
    np.testing.assert_allclose(other.patterns[::-1], grid.patterns[::-1].swapaxes(0, 1), atol=1e-5)


def test_the_grid_knows_which_of_its_patterns_atoms_are_near(run):
    grid = decoder_grid(run, 9)
    z = run.atoms.loc[run.used, ["z1", "z2"]].to_numpy()
    step = np.array([grid.across[1] - grid.across[0], grid.up[0] - grid.up[1]])
    for row, column in np.argwhere(np.ones_like(grid.atoms)):
        away = np.abs(z - [grid.across[column], grid.up[row]]) / step
        assert grid.atoms[row, column] == (away < 0.5).all(axis=1).sum()
    assert (grid.atoms == 0).any()  # two sublattices: there is nothing between
    assert grid.atoms.sum() > 0.8 * len(z)


def test_a_traverse_changes_one_latent_only(run):
    steps = traverse(run, "z2", 7)
    values = populated(run, "z2", 7)
    np.testing.assert_allclose(steps[3], decode(run, [0, values[3]])[0], atol=1e-5)
    with pytest.raises(InputError, match="no latent z9"):
        traverse(run, "z9", 7)


def test_strips_are_pictures(run, tmp_path):
    with Image.open(save_strip(run, "z1", 5, tmp_path / "strip.png")) as strip:
        assert strip.width == 5 * strip.height + 4 * GAP_PX
    with Image.open(save_strip(run, "z1", 5, tmp_path / "strip.gif")) as movie:
        assert movie.n_frames == 9  # there and back
    with pytest.raises(InputError, match=r"end in \.png or \.gif"):
        save_strip(run, "z1", 5, tmp_path / "strip.txt")
    with pytest.raises(InputError, match="could not be written"):
        save_strip(run, "z1", 5, tmp_path / "none" / "strip.png")


def test_latents_must_be_as_many_as_the_run_has(run):
    assert latent_names(run) == ["z1", "z2"]
    with pytest.raises(InputError, match="the run has 2"):
        decode(run, [1.0, 2.0, 3.0])


def test_pictures_are_made_by_the_calling_thread_alone(run, monkeypatch):
    threads = []
    decoder = run.model.decoder.forward

    def watched(*contents):
        threads.append(torch.get_num_threads())
        return decoder(*contents)

    monkeypatch.setattr(run.model.decoder, "forward", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        decode(run, np.zeros((1, len(latent_names(run)))))
        view_atom(run, patches_of(run, IMAGE), int(np.flatnonzero(run.used)[0]))
        assert threads == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
