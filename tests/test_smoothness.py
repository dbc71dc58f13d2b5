"""Smoothness: like atoms are compared, maps get smoother, walls stay, deviations are right."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.model import Linearised
from napari_shiftvae.core.patches import extract_patches
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import graphene, perovskite
from napari_shiftvae.core.smooth_refine import refine_together
from napari_shiftvae.core.smoothness import (
    EDGE,
    GAIN,
    Neighbourhood,
    neighbourhood,
    roughness,
    settle,
)
from napari_shiftvae.core.train import TrainConfig, train

SIDE = 40


def square_lattice(side=SIDE):
    place = np.arange(side * side).reshape(side, side)
    pairs = [(place[:, :-1], place[:, 1:]), (place[:-1], place[1:])]
    ends = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in pairs])
    return Neighbourhood.of_pairs(np.argwhere(place >= 0).astype(float), ends)


def ends_of(neighbours):
    first, column = (neighbours.partner >= 0).nonzero(as_tuple=True)
    return first.numpy(), neighbours.partner[first, column].numpy()


def variation(values, neighbours):
    first, second = ends_of(neighbours)
    return np.abs(values[first] - values[second]).mean()


class Field:
    """Windows that say one number each: ``x = z + noise`` in all pixels, and nothing of a pose."""

    def __init__(self, truth, noise, rng, *, prior=1.0):
        self.seen = truth + noise * rng.standard_normal(truth.shape)
        self.values = torch.from_numpy(self.seen).float()
        self.config = SimpleNamespace(pose_dim=1, shift_dim=0, window=(1,))
        self.variance = torch.tensor(noise**2)
        self.pose_prior = torch.ones(1)
        self.remainder_yx_px = np.zeros((len(truth), 1))
        precision = 1 / noise**2 + prior
        covariance = torch.eye(2).repeat(len(truth), 1, 1)
        covariance[:, 1, 1] = 1 / precision
        self.fit = Fit(
            z=self.values[:, None] / noise**2 / precision,
            pose=torch.zeros(len(truth), 1),
            covariance=covariance,
            mean_square=torch.zeros(len(truth)),
        )

    def __len__(self):
        return len(self.values)

    def weigh(self, rows):
        """All values count alike."""

    def gather(self, rows):
        return self.values[rows][:, None]

    def linearise(self, z, pose):
        return Linearised(z, 0 * pose[:, :, None], torch.ones_like(z)[:, :, None])


def smoothed(field, neighbours, **settings):
    *_, fit = refine_together(field, field, field.fit, neighbours, **settings)
    return fit


def wall_width(values, x):
    """Width of ``tanh(2 x / width)`` that fits best."""

    def profile(u, height, centre, width, base):
        return base + height * np.tanh(2 * (u - centre) / width)

    fitted, _ = curve_fit(profile, x, values, p0=[1, SIDE / 2, 3, 0])
    return abs(fitted[2])


# --- who is compared with whom -----------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.08, 0.5])
def test_sublattices_are_not_compared_with_each_other(noise):
    """Unpolar, so that the places of the atoms do not tell them apart."""
    made = perovskite(
        rng=np.random.default_rng(0), shape=(360, 360), noise=noise, displacement_nm=0.0
    )
    patches = extract_patches(made.image, made.truth[["site_y_px", "site_x_px"]], 38)
    kind = made.truth["sublattice"].to_numpy()[patches.index]
    found = neighbourhood(patches)
    first, second = ends_of(found)
    assert (kind[first] == kind[second]).all()
    assert np.median((found.partner >= 0).sum(dim=1)) == 4
    distance = np.linalg.norm(patches.pick_yx[first] - patches.pick_yx[second], axis=1)
    np.testing.assert_allclose(distance, 0.40 / 0.015, rtol=1e-6)


def test_honeycomb_atoms_meet_their_own_sublattice():
    made = graphene(rng=np.random.default_rng(0), shape=(300, 300), relaxation_nm=0.0)
    patches = extract_patches(made.image, made.truth[["y_px", "x_px"]], 24)
    kind = made.truth["sublattice"].to_numpy()[patches.index]
    found = neighbourhood(patches)
    first, second = ends_of(found)
    assert (kind[first] == kind[second]).all()
    assert np.median((found.partner >= 0).sum(dim=1)) == 6


def test_without_a_lattice_the_nearest_are_neighbours():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(200, 200)).astype(np.float32)
    patches = extract_patches(image, rng.uniform(10, 190, (300, 2)), 8)
    found = neighbourhood(patches)
    first, second = ends_of(found)
    assert ((found.partner >= 0).sum(dim=1) >= 6).all()
    assert set(zip(first, second, strict=True)) == set(zip(second, first, strict=True))
    distance = np.linalg.norm(patches.pick_yx[first] - patches.pick_yx[second], axis=1)
    assert distance.mean() < 25


def test_batches_are_neighbourhoods_and_every_atom_comes_once_an_epoch():
    lattice = square_lattice()
    generator = torch.Generator().manual_seed(0)
    one, other = lattice.shuffled(generator), lattice.shuffled(generator)
    assert sorted(one.tolist()) == list(range(SIDE**2))
    assert not torch.equal(one, other)
    met = sum(len(lattice.pairs_among(rows)[0]) for rows in one.split(64))
    assert met > 0.6 * (lattice.partner >= 0).sum()
    scattered = torch.randperm(SIDE**2, generator=generator)
    assert sum(len(lattice.pairs_among(rows)[0]) for rows in scattered.split(64)) < 0.1 * met
    rows = one[:64]
    first, second = lattice.pairs_among(rows)
    steps = np.abs(lattice.positions_yx[rows[first]] - lattice.positions_yx[rows[second]])
    np.testing.assert_array_equal(steps.sum(axis=1), 1)


# --- what it costs -----------------------------------------------------------------------------


def test_cost_by_hand():
    z = torch.tensor([[0.0, 0.0], [3.0, 8.0], [3.0, 8.01]])
    sd = torch.tensor([1.0, 2.0])  # differences of 5 and of 0.005 standard deviations
    pairs = (torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 1]))
    quadratic = roughness(z, sd, pairs, edge_preserving=False)
    assert float(quadratic) == pytest.approx(0.5 * (0.5 * 25 + 0.5 * 0.005**2) / 2)
    edges = roughness(z, sd, pairs, edge_preserving=True)
    far = 25 / (1 + 25 / EDGE**2)
    assert float(edges) == pytest.approx(0.5 * GAIN * 0.5 * (far + 0.005**2) / 2, rel=1e-5)
    assert roughness(z, sd, (pairs[0][:0], pairs[1][:0]), edge_preserving=True) == 0


@pytest.mark.parametrize("edge_preserving", [True, False])
def test_cost_has_a_gradient_everywhere(edge_preserving):
    """Also where two latents are equal, where a root has none."""
    z = torch.tensor([[0.0], [0.0], [0.1], [4.0]], dtype=torch.double, requires_grad=True)
    pairs = (torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 3]))
    sd = torch.ones(1, dtype=torch.double)
    cost = roughness(z, sd, pairs, edge_preserving=edge_preserving)
    (slope,) = torch.autograd.grad(cost, z)
    assert slope.isfinite().all()
    assert slope[3] > 0 > slope[0]
    torch.autograd.gradcheck(
        lambda at: roughness(at, sd, pairs, edge_preserving=edge_preserving), z
    )


def test_neighbours_settle_in_the_middle():
    z = torch.tensor([[0.0], [2.0]], requires_grad=True)
    pairs = (torch.tensor([0, 1]), torch.tensor([1, 0]))
    log_sd = torch.zeros(2, 1)
    at, narrower, _ = settle(z, log_sd, pairs, weight=1.0, edge_preserving=False)
    # z = (own + other) / 2 has the solution 2/3, 4/3; the precision has doubled.
    np.testing.assert_allclose(at.detach()[:, 0], [2 / 3, 4 / 3], atol=0.1)
    np.testing.assert_allclose(narrower, -0.5 * np.log(2), rtol=1e-6)
    (slope,) = torch.autograd.grad(at[0, 0], z)
    assert slope[1] > 0.25
    far, _, _ = settle(100 * z, log_sd, pairs, weight=1.0, edge_preserving=True)
    np.testing.assert_allclose(far.detach()[:, 0], [0, 200], atol=0.1)  # a wall stands as it is
    near, _, _ = settle(0.05 * z, log_sd, pairs, weight=1.0, edge_preserving=True)
    np.testing.assert_allclose(near.detach()[:, 0], [5 / 110, 6 / 110], atol=0.002)  # GAIN times


# --- what it does to a field ------------------------------------------------------------------


def test_quadratic_field_is_the_exact_solution():
    """The linear system solved densely; standard deviations from its inverse."""
    rng = np.random.default_rng(0)
    lattice = square_lattice(12)
    field = Field(rng.standard_normal(144), 0.5, rng)
    fit = smoothed(field, lattice, smoothness=2.0, edge_preserving=False)
    first, second = ends_of(lattice)
    laplacian = np.zeros((144, 144))
    np.add.at(laplacian, (first, first), 1.0)
    np.add.at(laplacian, (first, second), -1.0)
    own = 1 / 0.5**2 + 1
    degree = len(first) / 144
    system = own * np.eye(144) + 2.0 * own / degree * laplacian
    np.testing.assert_allclose(fit.z[:, 0], np.linalg.solve(system, field.seen / 0.5**2), atol=2e-3)
    sd = np.sqrt(np.diag(np.linalg.inv(system)))
    found = fit.covariance[:, 1, 1].sqrt().numpy()
    np.testing.assert_allclose(found, sd, rtol=0.1)
    assert np.median(found / sd) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("noise", [0.3, 0.5])
@pytest.mark.parametrize("width", [2.0, 4.0])
def test_wall_stays_as_sharp_as_it_is_and_the_map_gets_smooth(width, noise):
    """Means over seeds of how much wider a wall gets, over its true width.

    The width fitted to a noisy map is right on average, but scatters by 5 to 15 %, and that of the
    smooth map with it; their difference scatters by 1 to 4 %.
    """
    x = np.tile(np.arange(SIDE), SIDE).astype(float)
    truth = np.tanh(2 * (x - 19.3) / width)
    lattice = square_lattice()
    widened, blurred, fallen = [], [], []
    for seed in range(8):
        field = Field(truth, noise, np.random.default_rng(seed))
        edges = smoothed(field, lattice, smoothness=1.0, edge_preserving=True).z[:, 0].numpy()
        plain = smoothed(field, lattice, smoothness=1.0, edge_preserving=False).z[:, 0].numpy()
        noisy = wall_width(field.fit.z[:, 0].numpy(), x)
        widened.append((wall_width(edges, x) - noisy) / width)
        blurred.append(wall_width(plain, x) / noisy)
        fallen.append(variation(edges, lattice) / variation(field.fit.z[:, 0].numpy(), lattice))
    assert np.mean(widened) == pytest.approx(0, abs=0.1)
    assert np.max(fallen) < 0.5
    if width == 2.0:
        assert np.mean(blurred) > 1.2


@pytest.mark.parametrize("edge_preserving", [True, False])
def test_unit_of_the_latents_does_not_matter(edge_preserving):
    """Ten times the contrast and the noise: ten times the field; the prior is too wide to act."""
    truth = 0.01 * np.tanh(np.tile(np.arange(20) - 9.5, 20))
    fields = [
        Field(scale * truth, scale * 0.004, np.random.default_rng(0)) for scale in (1.0, 10.0)
    ]
    settings = {"smoothness": 1.0, "edge_preserving": edge_preserving}
    one, ten = (smoothed(field, square_lattice(20), **settings).z for field in fields)
    np.testing.assert_allclose(10 * one, ten, atol=1e-3, rtol=0.02)


# --- in an analysis ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy():
    """B columns whose displacement the noise hides, with and without the condition."""
    made = perovskite(
        rng=np.random.default_rng(1), shape=(560, 560), noise=0.5, domain_width_nm=4.5
    )
    truth = made.truth[made.truth["sublattice"] == "B"].reset_index(drop=True)
    image = MicroscopeImage(data=made.image, name="made")
    config = {"patch_size_px": 38, "latent_dim": 1, "separation_px": made.separation_px}
    runs = [
        finish(
            analyse(
                image,
                AnalysisConfig(train=TrainConfig(smoothness=weight, epochs=40), **config),
                positions_yx=truth[["site_y_px", "site_x_px"]],
            )
        )
        for weight in (0.0, 1.0)
    ]
    return runs, truth


def test_noise_dominated_map_varies_half_as_much_at_the_same_residual(noisy):
    (rough, smooth), truth = noisy
    lattice = neighbourhood(smooth.training.patches)
    found, fit = [], []
    for run in (rough, smooth):
        z = run.atoms.loc[run.used, "z1"].to_numpy()
        found.append(variation((z - z.mean()) / z.std(), lattice))
        fit.append(np.sqrt(float(run.fit.mean_square.mean())))
    assert found[1] < 0.5 * found[0]
    assert fit[1] == pytest.approx(fit[0], rel=2e-3)
    displaced = truth["displacement_y_px"].to_numpy()[rough.used]
    match = [
        abs(np.corrcoef(run.atoms.loc[run.used, "z1"], displaced)[0, 1]) for run in (rough, smooth)
    ]
    assert match[1] > match[0] + 0.05  # smoother, and nearer to the truth


def test_neighbours_are_asked_for():
    made = perovskite(rng=np.random.default_rng(1), shape=(200, 200))
    patches = extract_patches(made.image, made.truth[["y_px", "x_px"]], 30)
    with pytest.raises(InputError, match="smoothness is 2 and no neighbours are known"):
        next(train(SimpleNamespace(), patches, TrainConfig(smoothness=2.0)))
    with pytest.raises(InputError, match="smoothness is -1"):
        TrainConfig(smoothness=-1)
