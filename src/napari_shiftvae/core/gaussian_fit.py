"""Least squares for many overlapping 2D Gaussians at once, each in a window of its own.

All columns of the image are drawn, and what is left of the image is given to each window; there
each column takes its own damped Gauss-Newton step (K. Levenberg, Quarterly of Applied Mathematics
2, 164 (1944), doi:10.1090/qam/10666; D. W. Marquardt, J. Soc. Ind. Appl. Math. 11, 431 (1963),
doi:10.1137/0111030). Sweep after sweep the windows come to agree: the joint fit of all columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import bsr_array
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from napari_shiftvae.core.gaussian_scene import CHUNK, HEIGHT, A, B, C, Coupling, Scene

DRAWN = 4.0  # radius in which a column is drawn [sigma]; 3e-4 of its height outside
MOST_SWEEPS = 24  # 4 or 5 do for nearly all
MOST_SWEEPS_CROWDED = 40
WHOLE = 0.85  # of a window's pixels, for a column among crowded ones to find its own shape
VARIETY = 0.35  # of the inverse squared widths of columns, relative
# A window follows its column when that is so far off its middle [px]: more than half a pixel, or a
# column between two pixels would go to and fro for ever.
STRAYED = 0.8
CONVERGED = 0.03  # a step of this many standard deviations is the last
MOST_STEP = 0.7  # longest step of a position [sigma] or of a width, relative


@dataclass(frozen=True, kw_only=True, eq=False)
class JointFit:
    """What the sweeps found, in units of the image given to `fit`.

    Attributes
    ----------
    parameters : (N, 7) array
        y, x [px], height, a, b, c [1/px^2], level of the background.
    information : (N, 7, 7) array
        Normal matrix of each column in its window; over the noise variance it is the Fisher matrix.
    coupling : Coupling or None
        What neighbours' parameters do in a column's window, where columns are crowded.
    rms : (N,) array
        Root mean square residual in the window, corrected for the seven parameters.
    step : (N,) array
        Length of the last step [standard deviations].
    pixels : (N,) array
        How many pixels of the window were valid.
    sweeps : int
    """

    parameters: NDArray[np.float64]
    information: NDArray[np.float64]
    coupling: Coupling | None
    rms: NDArray[np.float64]
    step: NDArray[np.float64]
    pixels: NDArray[np.float64]
    sweeps: int


def limited(step: Tensor, parameters: Tensor) -> Tensor:
    """Shorten steps (n, 7) that would carry a column off or turn its widths negative."""
    a, b, c = parameters[:, A : C + 1].unbind(1)
    y, x = step[:, :2].unbind(1)
    moved = (a * y * y + 2 * b * y * x + c * x * x).clamp(min=0).sqrt()
    da, db, dc = step[:, A : C + 1].unbind(1)
    determinant = a * c - b * b
    # The covariance times the change of its inverse; its Frobenius norm in the column's own units.
    m11, m12 = (c * da - b * db) / determinant, (c * db - b * dc) / determinant
    m21, m22 = (a * db - b * da) / determinant, (a * dc - b * db) / determinant
    widened = (m11 * m11 + 2 * m12 * m21 + m22 * m22).clamp(min=0).sqrt()
    longest = torch.maximum(moved, widened)
    return step * (MOST_STEP / longest.clamp(min=MOST_STEP))[:, None]


def prefer_shape(
    matrix: Tensor,
    gradient: Tensor,
    now: Tensor,
    variance: Tensor,
    active: Tensor,
    *,
    sigma_px: float,
) -> None:
    """Add what is known beforehand: columns are about as wide as they mostly are.

    As weak as one look at the shape with a relative error of `VARIETY`; where a column is clear of
    noise and neighbours this changes nothing, elsewhere it keeps widths from running away.
    """
    weight = variance[active] * (sigma_px**2 / VARIETY) ** 2
    for shape, usual in ((A, sigma_px**-2), (B, 0.0), (C, sigma_px**-2)):
        matrix[active, shape, shape] += weight
        gradient[active, shape] -= weight * (now[active, shape] - usual)


def hold_shape(matrix: Tensor, gradient: Tensor, held: Tensor) -> None:
    """Take the widths and the angle of some columns out of their normal equations."""
    rows = torch.nonzero(held)[:, 0]
    for shape in (A, B, C):
        matrix[rows, shape, :] = 0
        matrix[rows, :, shape] = 0
        matrix[rows, shape, shape] = 1
        gradient[rows, shape] = 0


def solve(matrix: Tensor, gradient: Tensor, damping: Tensor) -> Tensor:
    """Damped Gauss-Newton steps (n, 7), each parameter in its own unit."""
    unit = matrix.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
    scaled = matrix / (unit[:, :, None] * unit[:, None, :])
    scaled.diagonal(dim1=1, dim2=2).add_(damping[:, None] + 1e-9)
    factor, _ = torch.linalg.cholesky_ex(scaled)
    step = torch.cholesky_solve((gradient / unit)[..., None], factor)[..., 0] / unit
    return torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)


def bounded(parameters: Tensor, low: Tensor, high: Tensor, half: int) -> Tensor:
    """Keep columns in the image, heights positive and widths measurable in a window."""
    parameters[:, :2] = parameters[:, :2].clamp(low, high)
    parameters[:, HEIGHT].clamp_(min=1e-3)
    a, b, c = parameters[:, A : C + 1].unbind(1)
    mean, spread = (a + c) / 2, torch.hypot((a - c) / 2, b)
    narrow = (mean + spread).clamp(half**-2, 0.35**-2)
    wide = (mean - spread).clamp(half**-2, 0.35**-2)
    shrink = (narrow - wide) / (2 * spread.clamp(min=1e-12))
    middle = (narrow + wide) / 2
    difference = (a - c) / 2 * shrink
    parameters[:, A : C + 1] = torch.stack(
        [middle + difference, b * shrink, middle - difference], 1
    )
    return parameters


@dataclass
class Best:
    """The best state so far of columns that are solved together."""

    total: float
    now: Tensor
    matrix: Tensor
    gradient: Tensor
    coupling: Coupling | None


def fit(  # noqa: PLR0915 - one sweep, told in order
    pixels: NDArray[np.float32],
    start: NDArray[np.float64],
    neighbours: NDArray[np.intp],
    *,
    half: int,
    sigma_px: float,
    crowded: bool,
    most_sweeps: int | None = None,
) -> JointFit:
    """Fit all columns.

    Parameters
    ----------
    pixels : (H, W) array
        Bright columns; pixels that are NaN count nothing.
    start : (N, 7) array
        Parameters to start from, as in `JointFit`.
    neighbours : (M, 2) array
        Pairs of columns that share pixels: none of them rests while the other still moves.
    half : int
        Half size of the windows, +-`half` [px].
    sigma_px : float
        Typical width of a column, from which the size they are drawn in follows [px].
    crowded : bool
        Columns overlap so much that their steps have to be found together.
    most_sweeps : int
        After so many no step is taken, converged or not.

    Returns
    -------
    JointFit
    """
    scene = Scene(pixels, half, math.ceil(DRAWN * sigma_px))
    N = len(start)
    now = torch.from_numpy(start.copy())
    now[:, :2] += scene.pad
    low = torch.full((2,), scene.pad - 0.5, dtype=torch.float64)
    high = low + torch.tensor(pixels.shape, dtype=torch.float64) - 1e-6
    first, second = torch.from_numpy(np.asarray(neighbours, dtype=np.int64)).unbind(1)
    centre = scene.centre(now)
    matrix = torch.zeros(N, 7, 7, dtype=torch.float64)
    gradient = torch.zeros(N, 7, dtype=torch.float64)
    length, squares, count = (torch.full((N,), torch.inf, dtype=torch.float64) for _ in range(3))
    damping = torch.full((N,), 1e-2, dtype=torch.float64)
    # Row by row of tiles, so that the columns of a chunk lie together.
    active = torch.from_numpy(np.lexsort((start[:, 1], start[:, 0] // (2 * half + 1))))
    without = scene.image.clone()  # the image without the columns that have come to rest
    coupling = None
    best = Best(math.inf, now, matrix, gradient, None)
    together = 1.0
    sweeps = 0
    most = most_sweeps or (MOST_SWEEPS_CROWDED if crowded else MOST_SWEEPS)
    for sweeps in range(1, most + 1):  # noqa: B007
        many = 8 * len(active) > N
        left = without.clone() if many else without
        before = now[active]
        scene.subtract(left, before)
        strayed = (before[:, :2] - centre[active]).abs().amax(1) > STRAYED
        centre[active[strayed]] = scene.centre(before[strayed])
        whole = scene.whole(centre[active])
        chunks = [(True, rows) for rows in active[whole].split(CHUNK)]
        chunks += [(False, rows) for rows in active[~whole].split(CHUNK)]
        for complete, rows in chunks:
            matrix[rows], gradient[rows], squared, count[rows] = scene.normal_equations(
                left, now[rows], centre[rows], complete
            )
            better = squared <= 1.001 * squares[rows]
            damping[rows] = (damping[rows] * torch.where(better, 0.1, 4.0)).clamp(1e-6, 1e3)
            squares[rows] = squared
        if not many:
            scene.subtract(left, before, sign=1)
        prefer_shape(
            matrix, gradient, now, squares / (count - 7).clamp(min=1), active, sigma_px=sigma_px
        )
        if crowded:
            hold_shape(matrix, gradient, count < WHOLE * len(scene.window.offset))
        if crowded:
            total = float(squares.sum())
            if total <= 1.0001 * best.total:
                held = count < WHOLE * len(scene.window.offset)
                coupling = scene.couplings(now, centre, first, second)
                coupling.blocks[held[coupling.row], A : C + 1] = 0
                coupling.blocks[held[coupling.column], :, A : C + 1] = 0
                best = Best(total, now.clone(), matrix.clone(), gradient.clone(), coupling)
                together *= 0.2
            else:
                together = max(5 * together, 1e-3)
            now, before = best.now.clone(), best.now[active]
            matrix, gradient = best.matrix.clone(), best.gradient.clone()
            damping[:] = together
            assert best.coupling is not None  # noqa: S101 - the first total is finite
            step = solve_together(matrix, gradient, damping, best.coupling)[active]
        else:
            step = torch.cat(
                [solve(matrix[r], gradient[r], damping[r]) for r in active.split(CHUNK)]
            )
        step = limited(step, before)
        variance = squares[active] / (count[active] - 7).clamp(min=1)
        floor = (1e-4 * before[:, HEIGHT]) ** 2
        quadratic = (step[:, None] @ matrix[active] @ step[..., None])[:, 0, 0]
        length[active] = (quadratic.clamp(min=0) / torch.maximum(variance, floor)).sqrt()
        now[active] = bounded(before + step, low, high, half)
        moving = length > CONVERGED
        busy = moving.clone()
        busy[first[moving[second]]] = True
        busy[second[moving[first]]] = True
        if not busy.any():
            break
        if not crowded:
            scene.subtract(without, now[active[~busy[active]]])
            active = active[busy[active]]
    variance = squares / (count - 7).clamp(min=1)
    if crowded:
        coupling = scene.couplings(now, centre, first, second)
    now[:, :2] -= scene.pad
    return JointFit(
        parameters=now.numpy(),
        information=matrix.numpy(),
        coupling=coupling,
        rms=variance.sqrt().numpy(),
        step=length.numpy(),
        pixels=count.numpy(),
        sweeps=sweeps,
    )


def solve_together(matrix: Tensor, gradient: Tensor, damping: Tensor, coupling: Coupling) -> Tensor:
    """Damped Gauss-Newton steps (N, 7) of columns that move with their neighbours."""
    N = len(matrix)
    damped = matrix.clone()
    damped.diagonal(dim1=1, dim2=2).mul_(1 + damping[:, None])
    unit = matrix.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()  # (N, 7)
    inverse = torch.linalg.inv(
        damped / (unit[:, :, None] * unit[:, None, :]) + 1e-9 * torch.eye(7, dtype=torch.float64)
    )
    blocks = coupling.blocks / (unit[coupling.row][:, :, None] * unit[coupling.column][:, None, :])
    order = torch.argsort(coupling.row, stable=True)
    starts = torch.cat(
        [torch.zeros(1, dtype=torch.int64), torch.bincount(coupling.row, minlength=N).cumsum(0)]
    )
    between = bsr_array(
        (blocks[order].numpy(), coupling.column[order].numpy(), starts.numpy()),
        shape=(7 * N, 7 * N),
    )

    def applied(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        others = torch.from_numpy(between @ vector).view(N, 7, 1)
        return np.asarray(vector + (inverse @ others).view(-1).numpy())

    target = (inverse @ (gradient / unit)[..., None]).view(-1).numpy()
    operator = LinearOperator((7 * N, 7 * N), matvec=applied, dtype=np.float64)
    found, _ = gmres(operator, target, rtol=1e-3, restart=40, maxiter=1)
    return torch.from_numpy(found).view(N, 7) / unit
