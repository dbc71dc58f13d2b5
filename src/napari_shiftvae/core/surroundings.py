"""The atoms around the central one of decoded patterns, whose tails are not to be taken for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.model import ShiftVAE

REACH = 2.2  # of the distance between neighbours: whose tails are counted
CENTRAL_RADIUS = 0.6  # of the distance between neighbours
CENTRAL_WEIGHT = 1e-3  # so that a window without neighbours still has a whole pattern
APART = 0.45  # of the distance between neighbours: what is nearer is a ripple of the same atom
SHELL_WIDTH = 1.25  # neighbours up to this times the distance of the nearest are the cage
# Of the distance between neighbours: how far the middle of a complete shell may be from the central
# atom. One that lacks, of three to six, draws it by 0.2 to 0.5.
BALANCED = 0.17
CUT = 0.1  # of the distance between neighbours: so far beyond the border half an atom is in view
CAGE_WINDOW = 0.25  # about each of them, of the distance between neighbours
FAINTEST = 0.1  # of the height of the central atom
WIDTH, NARROWEST, WIDEST = 0.2, 0.08, 0.5  # of the distance between neighbours
FIT_STEPS = 30
FARTHEST_STEP = 0.2  # of the distance between neighbours
RIDGE = 1e-5


class Surroundings(NamedTuple):
    """Gaussians in the mean pattern, and how its neighbours follow a pattern that differs from it.

    Rows of parameters are (y [px], x [px], height, width [px]) of an atom.
    """

    template: Tensor  # (P, P), the mean pattern
    origin: Tensor  # (2,), its central feature [px]
    central: Tensor  # (1, 4)
    shell: Tensor  # (n, 4), the nearest neighbours; none where they are not all around it
    cage: Tensor  # (M,), how much each pixel tells of where the cage is
    drawn: Tensor  # (M,), the neighbours on the M pixels of the window
    by: Tensor  # (Q, M), their derivatives by the Q parameters of all of them
    response: Tensor  # (Q, M), change of these parameters for a change of the pattern

    def tails(self, rest: Tensor) -> Tensor:
        """Neighbours (B, M) of patterns of which `rest` (B, M) is without central atom."""
        return self.drawn + self.followed(rest - self.drawn)

    def followed(self, change: Tensor) -> Tensor:
        """Change (..., M) of the neighbours where the pattern changes by (..., M)."""
        changed: Tensor = (change @ self.response.T) @ self.by
        return changed


def bells(atoms: Tensor, axis: Tensor) -> Tensor:
    """Gaussians (B, M) of atoms (B, 4) on a window with P pixels, at `axis` (P,) [px], a side."""
    _, (along_y, along_x) = _profiles(atoms, axis)
    return ((atoms[:, 2:3] * along_y)[:, :, None] * along_x[:, None]).flatten(1)


def scenes(atoms: Tensor, axis: Tensor) -> Tensor:
    """Sums (B, M) of Gaussians of atoms (B, n, 4) on such windows."""
    _, (along_y, along_x) = _profiles(atoms.flatten(0, 1), axis)
    along_y = atoms[..., 2:3] * along_y.view(*atoms.shape[:2], -1)
    return (along_y.mT @ along_x.view_as(along_y)).flatten(1)


def slopes(atoms: Tensor, axis: Tensor, *, places_only: bool = False) -> Tensor:
    """Derivatives (B, 4, M) of `bells` by the parameters, or (B, 2, M) by y and x alone."""
    (off_y, off_x), (along_y, along_x) = _profiles(atoms, axis)
    height, width = atoms[:, 2:3], atoms[:, 3:]
    steep = height / width**2 * along_y
    left, right = [steep * off_y, steep], [along_x, along_x * off_x]
    if not places_only:
        steeper = steep / width
        left += [along_y, steeper * off_y**2, steeper]
        right += [along_x, along_x, along_x * off_x**2]
    by = torch.stack(left, 1)[..., None] * torch.stack(right, 1)[:, :, None]  # (B, 2 or 5, P, P)
    if not places_only:
        by = torch.cat([by[:, :3], by[:, 3:].sum(dim=1, keepdim=True)], 1)
    return by.flatten(2)


def _profiles(atoms: Tensor, axis: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Places of the pixels from the atoms along y and x, (B, P), and the Gaussians along them."""
    offset = axis - atoms[:, :2, None]
    profile = torch.exp(-offset.square() / (2 * atoms[:, 3:, None] ** 2))
    return (offset[:, 0], offset[:, 1]), (profile[:, 0], profile[:, 1])


@torch.no_grad()
def surroundings(model: ShiftVAE, template: Tensor, origin: Tensor) -> Surroundings:
    """Fit Gaussians to all atoms of a mean pattern at once.

    Neighbours that are like those of the mean pattern, or differ little, are then known by one
    matrix product a pattern: least squares to first order, the central atom left out.

    Parameters
    ----------
    model : ShiftVAE
        Of images.
    template : (P, P) tensor
        Its mean pattern, or that of one class.
    origin : (2,) tensor
        The central feature of that [px].

    Returns
    -------
    Surroundings
        Without neighbours where the mean pattern shows none.
    """
    separation = model.config.separation_px
    grid = model.grid.flatten(0, 1)
    away = (grid - origin).square().sum(dim=1).sqrt()
    near = away <= (REACH + APART) * separation
    axis = model.grid[:, 0, 0]
    atoms = _fit(_maxima(model, template, away), template.flatten(), near, axis, separation)
    by = slopes(atoms[1:], axis).flatten(0, 1)  # (Q, M)
    columns = torch.cat([by, torch.ones_like(by[:1]) if len(by) else by])
    weight = near * torch.where(away > CENTRAL_RADIUS * separation, 1.0, CENTRAL_WEIGHT)
    normal = (columns * weight) @ columns.T
    normal += torch.diag(RIDGE * normal.diagonal())
    response, _ = torch.linalg.solve_ex(normal, columns * weight)
    shell, complete = _shell(atoms[1:], origin, grid), False
    for each in (_shell(atoms[1:], origin, grid, CUT * separation), shell):
        # What the border does to one atom it does to the opposite one, the other way.
        away = each[:, :2] - atoms[0, :2]
        paired = (away[:, None] + away).square().sum(dim=2).sqrt() < BALANCED * separation
        whole = each is shell or bool(paired.any(dim=1).all())
        balanced = float(away.mean(dim=0).square().sum().sqrt()) < BALANCED * separation
        if whole and balanced and len(each) > 1:
            shell, complete = each, True
            break
    return Surroundings(
        template=template,
        origin=origin,
        central=atoms[:1],
        shell=shell if complete else shell[:0],
        cage=_cage_weight(_shell(atoms[1:], origin, grid), origin, grid, separation),
        drawn=bells(atoms[1:], axis).sum(dim=0),
        by=by,
        response=response[: len(by)].nan_to_num(0.0),
    )


def _shell(atoms: Tensor, origin: Tensor, grid: Tensor, beyond_px: float = 0.0) -> Tensor:
    """Nearest of the neighbours (n, 4) that are in view, or not far beyond the border."""
    away = (atoms[:, :2] - origin).square().sum(dim=1).sqrt()
    seen = (atoms[:, :2].abs() <= grid.abs().max() + beyond_px).all(dim=1)
    return atoms[seen & (away <= SHELL_WIDTH * away[seen].min())] if seen.any() else atoms[:0]


def _cage_weight(shell: Tensor, origin: Tensor, grid: Tensor, separation: float) -> Tensor:
    """Weight (M,) of pixels (M, 2) that is large at the nearest of the neighbours (n, 4).

    Atoms farther out, of the kind of the central one, move along with it, and would draw the cage
    after them. Where there are no neighbours all but the central atom is the cage.
    """
    outside = (grid - origin).square().sum(dim=1).sqrt() > CENTRAL_RADIUS * separation
    if not len(shell):
        return torch.where(outside, 1.0, CENTRAL_WEIGHT)
    square = (grid[:, None] - shell[:, :2]).square().sum(dim=2).amin(dim=1)
    window = torch.exp(-square / (2 * (CAGE_WINDOW * separation) ** 2))
    return (outside * window).clamp(min=CENTRAL_WEIGHT)


def _maxima(model: ShiftVAE, template: Tensor, away: Tensor) -> Tensor:
    """Where the fit begins (n, 4): maxima of the mean pattern, the central one first."""
    separation = model.config.separation_px
    height = model.polarity * template
    peak = torch.nn.functional.max_pool2d(height[None, None], 3, stride=1, padding=1)[0, 0]
    height, grid = height.flatten(), model.grid.flatten(0, 1)
    bottom = height.quantile(0.1)
    found = (height >= peak.flatten()) & (away <= REACH * separation)
    central = torch.where(
        found & (away <= CENTRAL_RADIUS * separation), height - bottom - away / separation, -1e9
    ).argmax()
    found &= height - bottom > FAINTEST * (height[central] - bottom)
    places, heights = [grid[central]], [height[central] - bottom]
    rows = found.nonzero()[:, 0]
    for row in rows[height[rows].argsort(descending=True)]:
        if (torch.stack(places) - grid[row]).square().sum(dim=1).min().sqrt() > APART * separation:
            places.append(grid[row])
            heights.append(height[row] - bottom)
    top = model.polarity * torch.stack(heights)
    return torch.cat(
        [torch.stack(places), torch.stack([top, torch.full_like(top, WIDTH * separation)], 1)], 1
    )


def _fit(atoms: Tensor, values: Tensor, used: Tensor, axis: Tensor, separation: float) -> Tensor:
    """Levenberg-Marquardt on all atoms (n, 4) and one background, with the pixels that are used."""
    low = torch.tensor([-torch.inf, -torch.inf, -torch.inf, NARROWEST * separation]).to(atoms)
    high = torch.tensor([torch.inf, torch.inf, torch.inf, WIDEST * separation]).to(atoms)
    limit = torch.tensor([separation, separation, torch.inf, separation]).to(atoms) * FARTHEST_STEP
    background, damping, best = values.min(), 1e-2, torch.inf
    trial, kept = (atoms, background), atoms
    for _ in range(FIT_STEPS):
        residual = (values - bells(trial[0], axis).sum(dim=0) - trial[1]) * used
        cost = float(residual.square().sum())
        if cost < best:
            gain, best = best - cost, cost
            kept, background = trial
            columns = torch.cat([slopes(kept, axis).flatten(0, 1) * used, used[None].float()])
            normal, slope = columns @ columns.T, columns @ residual
            damping = max(damping / 10, 1e-6)
            if gain < 1e-6 * cost:
                break
        else:
            damping *= 10
        step, _ = torch.linalg.solve_ex(
            normal + torch.diag(damping * normal.diagonal() + 1e-9), slope
        )
        moved = kept + step[:-1].view_as(kept).clamp(-limit, limit)
        trial = (moved.clamp(low, high), background + step[-1])
    return kept
