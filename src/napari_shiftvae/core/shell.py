"""Where the nearest neighbours of the central atom of a decoded pattern lie."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.local_fit import Windows, bells_at, local_step, spread_out, windows_about
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.surroundings import (
    BALANCED,
    NARROWEST,
    WIDEST,
    Surroundings,
    bells,
    scenes,
)

ITERATIONS = 8
CONVERGED_PX = 1e-3
FARTHEST = 0.25  # of the distance between neighbours: how far one may be from the mean pattern's
LOWEST = 0.25  # of the highest of the shell; what is lower is a vacancy


class Shell(NamedTuple):
    """Mean place of the nearest neighbours."""

    place: Tensor  # (B, 2) [px]; NaN where the shell is not complete
    response: Tensor  # (B, 2, M), its derivatives by the pixels; 0 where not wanted


def find_shell(model: ShiftVAE, rest: Tensor, around: Surroundings, *, derivative: bool) -> Shell:
    """Fit a Gaussian on a background to each of the nearest neighbours, as to the central atom.

    One way for all: what the probe does to every atom is not in their differences.

    Parameters
    ----------
    model : ShiftVAE
    rest : (B, M) tensor
        Patterns, the central atoms taken off.
    around : Surroundings
        Of the mean pattern.
    derivative : bool
        Whether to work out the derivatives, for which neighbours count as apart from each other.

    Returns
    -------
    Shell
        Patterns can lack some of the neighbours that the mean pattern has, as where it is the mean
        of two sublattices; what is left counts as complete where its middle is the same.
    """
    count, n = len(rest), len(around.shell)
    nothing = rest.new_zeros(1, 1, 1).expand(count, 2, rest.shape[1])
    if not n:
        return Shell(torch.full_like(rest[:, :2], torch.nan), nothing)
    separation, axis = model.config.separation_px, model.grid[:, 0, 0]
    half, start = axis[-1], around.shell
    about = windows_about((start[:, :2] + half).round() - half, model)
    about = Windows(*(each.repeat(count, *[1] * (each.ndim - 1)) for each in about))
    rows = about.rows.view(count, -1)
    atoms = start.repeat(count, 1)  # (B n, 4)
    limit = FARTHEST * separation
    rest = rest - (around.drawn - bells(start, axis).sum(dim=0))  # those farther out

    for _ in range(ITERATIONS):
        left = rest - scenes(atoms.view(count, n, 4), axis)
        values = left.gather(1, rows).view(count * n, -1) + bells_at(atoms, about.pixels)
        found = local_step(values, about, atoms[:, :2], atoms[:, 3])
        moved = (atoms[:, :2] + found.step[:, :2].clamp(-1.0, 1.0)).view(count, n, 2)
        moved = start[:, :2] + (moved - start[:, :2]).clamp(-limit, limit)
        width = atoms[:, 3] + found.step[:, 2]
        width = width.clamp(NARROWEST * separation, WIDEST * separation)
        atoms = torch.cat([moved.flatten(0, 1), found.top[:, :1], width[:, None]], dim=1)
        if (found.step[:, :2].abs() < CONVERGED_PX).all():
            break
    place, height = atoms[:, :2].view(count, n, 2), model.polarity * atoms[:, 2].view(count, n)
    there = (height > LOWEST * height.amax(dim=1, keepdim=True)).float()
    share = there / there.sum(dim=1, keepdim=True)  # (B, n)
    middle = (share[..., None] * start[:, :2]).sum(dim=1) - around.central[:, :2]
    complete = (middle.square().sum(dim=1).sqrt() < BALANCED * separation)[:, None]
    mean = (share[..., None] * place).sum(dim=1)
    mean = torch.where(complete, mean, torch.full_like(mean, torch.nan))
    if not derivative:
        return Shell(mean, nothing)
    response = share.view(-1, 1, 1) * torch.linalg.solve_ex(found.normal, found.weighted)[0][:, :2]
    response = response.view(count, n, 2, -1).movedim(2, 1).flatten(2)
    return Shell(mean, spread_out(response, rows, rest))
