"""The task of two hidden factors (core.factors), through the path that users take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures

from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.factors import FactorPatches, Motif, factor_patches
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Case:
    """One data set.

    Parameters
    ----------
    patches : int
        Number of patches.
    patch_size_px : int
    noise : float
        Standard deviation over the mean peak of the central atom.
    sigma_px : float
        Standard deviation of the atoms [px].
    half_diagonal_px : float
        Distance of the cage's atoms from its centre [px].
    shift_sd_px : float
        Standard deviation of the shifts [px].
    displacement_px : float
        Largest displacement of the central atom against its cage [px].
    shift_prior_px : float, optional
        The one that the analysis expects [px]; the same if not given.
    epochs : int, optional
        Epochs to train, where not those of the analysis by default.
    electrons : float, optional
        Counted in a pixel of intensity one, whose noise is there instead of the other.
    background : float
        Intensity beneath the patterns.
    seed : int
        Of the data and of the training.
    """

    patches: int = 2000
    patch_size_px: int = 40
    noise: float = 0.05
    sigma_px: float = 2.7
    half_diagonal_px: float = 14.0
    shift_sd_px: float = 2.0
    displacement_px: float = 2.0
    shift_prior_px: float | None = None
    epochs: int | None = None
    electrons: float | None = None
    background: float = 0.0
    seed: int = 0

    @property
    def motif(self) -> Motif:
        """Its geometry."""
        return Motif(
            patch_size_px=self.patch_size_px,
            sigma_px=self.sigma_px,
            cage_half_diagonal_px=self.half_diagonal_px,
        )

    def make(self) -> FactorPatches:
        """Simulate it."""
        return factor_patches(
            rng=np.random.default_rng(self.seed),
            count=self.patches,
            noise=self.noise,
            shift_sd_px=self.shift_sd_px,
            displacement_range_px=(-self.displacement_px, self.displacement_px),
            motif=self.motif,
            electrons=self.electrons,
            background=self.background,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an analysis did; lengths in pixels, `_bound` in units of the Cramer-Rao bound.

    Errors are root mean squares. `_luck` is the error of a fit of the true motif to the same noise,
    in the same units: what no method can be blamed or praised for. `_sd` is the error over the
    posterior standard deviation, 1 where that is right. `lost` patches have no central atom by the
    analysis. `_ideal` is the R2 of estimates that are off by the bound.
    """

    shift: float
    shift_bound: float
    central_bound: float
    along_bound: float
    shift_luck: float
    along_luck: float
    shift_sd: float
    central_sd: float
    lost: int
    r2_intensity: float
    r2_intensity_ideal: float
    r2_displacement: float
    r2_displacement_ideal: float
    epochs: int
    epoch_seconds: float
    train_seconds: float
    refine_seconds: float
    total_seconds: float


CHUNK = 256  # patches fitted at once
GAUSS_NEWTON_STEPS = 4
Trace = list[tuple[float, float]]  # seconds of training, RMS error of the shift [px]


def mosaic(task: FactorPatches) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Lay the patches side by side in one image.

    Returns
    -------
    image : (H, W) float32 array
    centres_yx : (N, 2) array
        Of the patches [px].
    """
    count, size, _ = task.patches.shape
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, size, size), dtype=np.float32)
    tiles[:count] = task.patches
    image = tiles.reshape(rows, columns, size, size).swapaxes(1, 2)
    row, column = np.divmod(np.arange(count), columns)
    centres = np.column_stack([row, column]) * size + (size - 1) / 2
    return np.ascontiguousarray(image.reshape(rows * size, columns * size)), centres


def run_case(case: Case) -> tuple[Outcome, Trace]:
    """Analyse one data set, everything else at the defaults of the command line and the dock.

    Given is what an image and its picks would tell: size of the patches, distance between
    neighbours, how far patterns lie from picks; and that the mosaic has no background.
    """
    task = case.make()
    image, centres = mosaic(task)
    trace: Trace = []
    steps = analyse(
        MicroscopeImage(data=image, name="mosaic"), settings_for(case), positions_yx=centres
    )
    try:
        while True:
            report = next(steps).report
            if report is not None:
                error = gauge_free_error(report.shift_yx_px, report.latents, task)
                trace.append((report.seconds, error))
    except StopIteration as stop:
        return outcome(stop.value, case, task), trace


def settings_for(case: Case, *, device: str = "auto") -> AnalysisConfig:
    """Settings of the analysis of one data set."""
    return AnalysisConfig(
        patch_size_px=case.patch_size_px,
        separation_px=case.half_diagonal_px,
        shift_prior_px=case.shift_prior_px or case.shift_sd_px,
        normalisation="global",
        train=TrainConfig(seed=case.seed, epochs=case.epochs),
        device=device,
    )


def gauge_free_error(
    shift_yx_px: NDArray[np.floating], z: NDArray[np.floating], task: FactorPatches
) -> float:
    """RMS error of shifts over both axes [px], in the gauge that is best for them.

    A model in training may hold any part of the shift that depends on the latents in its patterns
    instead; the constant, linear, quadratic and cubic part of that is taken out. Infinite while
    some patches were not seen yet.
    """
    if not np.isfinite(z).all():
        return math.inf
    error = shift_yx_px - task.shift_yx_px
    terms = PolynomialFeatures(3).fit_transform(z)
    return _rms(error - LinearRegression().fit(terms, error).predict(terms))


def fit_of_the_truth(case: Case, task: FactorPatches) -> NDArray[np.float64]:
    """Errors (N, 4) of least squares with the true motif, which starts from the truth.

    Pixels are weighted by their true noise.
    """
    motif = case.motif
    truth = np.column_stack([task.shift_yx_px, task.factors])
    errors = np.zeros_like(truth)
    for rows in np.array_split(np.arange(len(truth)), -(-len(truth) // CHUNK)):
        clean = motif.render(truth[rows]) + case.background
        noise = np.sqrt(clean) if case.electrons else np.ones_like(clean)
        seen = task.patches[rows] - case.background
        for _ in range(GAUSS_NEWTON_STEPS):
            here = truth[rows] + errors[rows]
            residual = ((seen - motif.render(here)) / noise).reshape(len(rows), -1, 1)
            by = (motif.derivatives(here) / noise[:, None]).reshape(len(rows), 4, -1)
            errors[rows] += np.linalg.solve(by @ by.swapaxes(1, 2), by @ residual)[..., 0]
    return errors


def outcome(run: Run, case: Case, task: FactorPatches) -> Outcome:
    """Compare an analysis with the truth."""

    def columns(*names: str) -> NDArray[np.float64]:
        return run.atoms[list(names)].to_numpy(dtype=np.float64)

    # The constant part of the shift is a gauge: the mean central atom sits at the centre.
    constant = (task.central_yx_px - task.shift_yx_px).mean(axis=0)
    shift = columns("shift_y_px", "shift_x_px") - (task.shift_yx_px + constant)
    central = columns("atom_y_px", "atom_x_px") - run.picks_yx - task.central_yx_px
    perfect = fit_of_the_truth(case, task)
    perfect_along = perfect[:, :2] @ task.direction_yx + perfect[:, 3]
    found = np.isfinite(central).all(axis=1)
    z = columns("z1", "z2")
    intensity, displacement = task.factors.T
    bound_intensity, bound_displacement = task.covariance[:, 2, 2], task.covariance[:, 3, 3]
    seconds = run.seconds
    return Outcome(
        shift=_rms(shift),
        shift_bound=_rms(shift) / task.bound_shift_px,
        central_bound=_rms(central[found]) / task.bound_central_px,
        along_bound=_rms(central[found] @ task.direction_yx) / task.bound_central_along_px,
        shift_luck=_rms(perfect[:, :2]) / task.bound_shift_px,
        along_luck=_rms(perfect_along) / task.bound_central_along_px,
        shift_sd=_rms(shift / columns("shift_y_sd_px", "shift_x_sd_px")),
        central_sd=_rms((central / columns("atom_y_sd_px", "atom_x_sd_px"))[found]),
        lost=int((~found).sum()),
        r2_intensity=_r2(z, intensity),
        r2_intensity_ideal=1 - bound_intensity.mean() / intensity.var(),
        r2_displacement=_r2(z, displacement),
        r2_displacement_ideal=1 - bound_displacement.mean() / displacement.var(),
        epochs=run.epochs,
        epoch_seconds=seconds["train"] / run.epochs,
        train_seconds=seconds["train"],
        refine_seconds=seconds["refine"],
        total_seconds=seconds["total"],
    )


def _rms(error: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(error**2)))


def _r2(z: NDArray[np.float64], factor: NDArray[np.float64]) -> float:
    """Share of a factor's variance that a cubic polynomial of the latents explains."""
    terms = PolynomialFeatures(3).fit_transform(z)
    return float(LinearRegression().fit(terms, factor).score(terms, factor))
