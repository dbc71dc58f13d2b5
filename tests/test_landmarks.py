"""Cage and central atom of patterns whose atoms overlap, from known places."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_shiftvae.core.decoders import Linearised, pixel_grid
from napari_shiftvae.core.gauge import _fix_origin
from napari_shiftvae.core.landmarks import find_landmarks
from napari_shiftvae.core.surroundings import surroundings

SEPARATION_PX = 12.0
RINGS = {"square": [(0, 1), (1, 0)], "hexagonal": [(0, 1), (math.sqrt(0.75), 0.5)]}


class Crowd:
    """Stands in for a model: z moves the central atom (y, x), and changes heights of neighbours.

    Atoms of a lattice on a background; those around the central one are of two heights, and lie a
    little off the lattice.
    """

    def __init__(self, lattice, width_px, size=27, *, dark=False, cage_step_px=0.0):
        vectors = np.array(RINGS[lattice]) * SEPARATION_PX
        steps = np.array([(i, j) for i in range(-4, 5) for j in range(-4, 5)])
        places = steps @ vectors
        places = places[np.abs(places).max(axis=1) < size / 2 + 4]
        rng = np.random.default_rng(0)
        around = np.linalg.norm(places, axis=1) > 0
        places = places + around[:, None] * rng.normal(0, 0.3, places.shape)
        self.around = torch.from_numpy(around)
        self.places = torch.from_numpy(places).float()
        self.kind = torch.from_numpy((steps.sum(axis=1)[: len(places)] % 2).astype(np.float32))
        self.width, self.sign, self.cage_step = width_px, -1.0 if dark else 1.0, cage_step_px
        self.config = SimpleNamespace(
            separation_px=SEPARATION_PX,
            pose_dim=2,
            shift_dim=2,
            dimensions=2,
            patch_size_px=size,
            latent_dim=3,
            given=(),
        )
        self.grid = pixel_grid((size, size))
        self.template, self.origin, self.polarity = torch.zeros(size, size), torch.zeros(2), None
        self.polarity = torch.ones(())
        self.gauge = torch.eye(3)

        self.as_decoded = lambda z: z
        self.given_class = lambda z: torch.zeros(len(z), dtype=torch.int64)

    def cage(self, z):
        """Where the cage lies (B, 2): it hides a part of the shift."""
        return self.cage_step * torch.stack([z[:, 0], -z[:, 2]], 1)

    def atom(self, z):
        """Where the central atom lies (B, 2) [px]."""
        return z[:, :2] + 0.4

    def polar(self, z):
        """Central atom from the mean of its nearest neighbours (B, 2) [px]."""
        nearest = self.around & (self.places.norm(dim=1) < 1.2 * SEPARATION_PX)
        return self.atom(z) - self.places[nearest].mean(dim=0) - self.cage(z)

    def decoder(self, z, shift, turn=None):
        assert turn is None
        moved = z[:, None, :2] + 0.4
        place = self.places + self.around[:, None] * self.cage(z)[:, None]
        place = torch.where(self.around[:, None], place, moved) + shift[:, None]
        height = torch.where(self.around, 1 + 0.3 * z[:, 2:] * self.kind, 1.0)
        square = (self.grid.flatten(0, 1)[None, None] - place[:, :, None]).square().sum(-1)
        drawn = (height[..., None] * torch.exp(-square / (2 * self.width**2))).sum(dim=1)
        return self.sign * (drawn + 0.2).view(len(z), *self.grid.shape[:2])

    def linearise_at(self, z, shift, turn=None, *, latents=True):
        assert turn is None

        def by(step, wanted):
            steps = torch.eye(wanted) * step
            return torch.stack(
                [
                    (self.decoder(*pair(one)) - self.decoder(*pair(-one))) / (2 * step)
                    for one in steps
                ],
                1,
            )

        def pair(one):
            return (z + one, shift) if len(one) == 3 else (z, shift + one)

        by_latent = by(0.01, 3) if latents else self.decoder(z, shift)[:, None][:, :0]
        return Linearised(self.decoder(z, shift), by(0.01, 2), by_latent)


def latents(count=16):
    z = 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 1
    return z * torch.tensor([1.6, 1.6, 1.0])


@pytest.mark.parametrize("lattice", ["square", "hexagonal"])
@pytest.mark.parametrize(("width_px", "dark"), [(2.0, False), (3.0, False), (3.0, True)])
def test_the_central_atom_is_where_it_is_however_its_neighbours_reach_in(lattice, width_px, dark):
    model, z = Crowd(lattice, width_px, dark=dark, cage_step_px=0.2), latents()
    _fix_origin(model, z, -1.0 if dark else 1.0)
    found = find_landmarks(model, z)
    error = found.atom - model.atom(z)
    assert error.square().mean().sqrt() < 0.012
    away = found.cage - model.cage(z)
    away = away - away.mean(dim=0)  # where the mean cage lies is a gauge
    assert away.square().mean().sqrt() < 0.012
    # No gauge is in this one, and neighbours that overlap draw each other by little.
    assert (found.polar - model.polar(z)).abs().max() < (0.01 if width_px < 3 else 0.05)


@pytest.mark.parametrize("lattice", ["square", "hexagonal"])
def test_derivatives_count_the_neighbours(lattice):
    model, z = Crowd(lattice, 3.0, cage_step_px=0.2), latents()
    _fix_origin(model, z, 1.0)
    found = find_landmarks(model, z)
    expected = torch.eye(3)[:2].expand(len(z), 2, 3)  # z1 and z2 move the atom by as much
    error = found.atom_by_latent - expected
    assert error.square().mean().sqrt() < 0.03
    expected = 0.2 * torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]).expand(len(z), 2, 3)
    error = found.cage_by_latent - expected
    assert error.square().mean().sqrt() < 0.03
    by_hand = 0 * found.polar_by_latent
    for k, step in enumerate(0.05 * torch.eye(3)):
        pair = [find_landmarks(model, z + way * step, derivative=False).polar for way in (-1, 1)]
        by_hand[:, :, k] = (pair[1] - pair[0]) / 0.1
    assert (found.polar_by_latent - by_hand).square().mean().sqrt() < 0.03


def test_without_all_neighbours_in_view_there_is_no_middle_of_them():
    model, z = Crowd("square", 2.4, size=19), latents()
    _fix_origin(model, z, 1.0)
    assert find_landmarks(model, z).polar.isnan().all()
    vacant = Crowd("square", 2.4)
    first = int(vacant.places.norm(dim=1).argsort()[1])
    vacant.kind[:] = 0
    vacant.kind[first] = 1  # z3 changes this one alone: 0.3 times as much
    z = latents()
    z[:, 2] = torch.where(torch.arange(len(z)) == 3, -1 / 0.3, 0.0)
    _fix_origin(vacant, z, 1.0)
    polar = find_landmarks(vacant, z).polar
    assert polar[3].isnan().all()
    assert polar.isfinite().all(dim=1).sum() == len(z) - 1


def test_an_atom_alone_has_no_surroundings():
    model = Crowd("square", 2.4)
    model.places, model.around = model.places[~model.around], model.around[~model.around]
    model.kind = model.kind[:1]
    z = latents()
    _fix_origin(model, z, 1.0)
    around = surroundings(model, model.template, model.origin)
    assert len(around.by) == 0
    assert not around.drawn.any()
    found = find_landmarks(model, z)
    assert (found.atom - model.atom(z)).square().mean().sqrt() < 0.005
    whole = found.cage - model.atom(z)  # an atom alone is the whole pattern
    assert (whole - whole.mean(dim=0)).square().mean().sqrt() < 0.005
