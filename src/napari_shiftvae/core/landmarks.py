"""Where the cage and the central atom of a decoded pattern lie."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.decoders import rotation_matrix
from napari_shiftvae.core.local_fit import (
    ATOM_WIDTH,
    least_squares,
    local_step,
    spread_out,
    windows_about,
)
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.shell import find_shell
from napari_shiftvae.core.surroundings import (
    CENTRAL_RADIUS,
    Surroundings,
    bells,
    slopes,
    surroundings,
)

ALIGN_ITERATIONS = 4
ATOM_ITERATIONS = 12
CONVERGED_PX = 1e-3
LARGEST_TURN = 0.5  # rad, or unit of the logarithm of the scale


class Landmarks(NamedTuple):
    """Cage and central atom of decoded patterns; derivatives are (B, ..., 0) where not wanted."""

    cage: Tensor  # (B, C): position [px]; rotation [rad] and log scale where the model has them
    cage_by_latent: Tensor  # (B, C, K)
    atom: Tensor  # (B, 2) [px]; NaN where there is none
    atom_by_latent: Tensor  # (B, 2, K)
    polar: Tensor  # (B, 2), atom minus the mean of its nearest neighbours [px]; NaN where unknown
    polar_by_latent: Tensor  # (B, 2, K)
    polar_response: Tensor  # (B, 2, M), its derivatives by the pixels; or those of the atom alone


class Central(NamedTuple):
    """Gaussians of the central atoms of decoded patterns."""

    pattern: Tensor  # (B, M)
    pattern_by_latent: Tensor  # (B, K, M)
    bell: Tensor  # (B, 4), as in `surroundings`; of no height where none was found
    found: Tensor  # (B,)
    response: Tensor  # (B, 4, M), derivatives by the pixels

    @property
    def by_latent(self) -> Tensor:
        """Derivatives (B, 4, K)."""
        return self.response @ self.pattern_by_latent.mT


def find_landmarks(model: ShiftVAE, z: Tensor, *, derivative: bool = True) -> Landmarks:
    """Find cage and central atom of patterns as decoded, without any pose.

    The two hide each other where atoms overlap, so each is looked for with the other taken off.

    Parameters
    ----------
    model : ShiftVAE
        Of images, with its template.
    z : (B, K) or (B, K + C) tensor
        Contents.
    derivative : bool
        Whether to work out the derivatives.

    Returns
    -------
    Landmarks
    """
    number = model.given_class(z)
    parts: list[Landmarks] = []
    order: list[Tensor] = []
    for kind in number.unique().tolist():
        rows = (number == kind).nonzero()[:, 0]
        own = kind if model.config.given else ...
        around = surroundings(model, model.template[own], model.origin[own])
        parts.append(_landmarks(model, z[rows], around, derivative=derivative))
        order.append(rows)
    if len(parts) == 1:
        return parts[0]
    back = torch.cat(order).argsort()
    return Landmarks(*(torch.cat(part)[back] for part in zip(*parts, strict=True)))


def _landmarks(model: ShiftVAE, z: Tensor, around: Surroundings, *, derivative: bool) -> Landmarks:
    central = find_central(model, z, around, derivative=derivative)
    cage, by_latent = find_cage(model, z, around, central, derivative=derivative)
    unknown = torch.full_like(central.bell[:, :2], torch.nan)
    place = torch.where(central.found[:, None], central.bell[:, :2], unknown)
    axis = model.grid[:, 0, 0]
    rest = central.pattern - bells(central.bell, axis)
    shell, response = find_shell(model, rest, around, derivative=derivative)
    if derivative:
        # The shell is looked for in what the central atom leaves.
        own = central.response
        against = own[:, :2] - response + (response @ slopes(central.bell, axis).mT) @ own
        known = shell.isfinite().all(dim=1)[:, None, None]
        response = torch.where(known, against, own[:, :2])
    return Landmarks(
        cage,
        by_latent,
        place,
        central.by_latent[:, :2],
        place - shell,
        response @ central.pattern_by_latent.mT,
        response,
    )


def find_cage(
    model: ShiftVAE, z: Tensor, around: Surroundings, central: Central, *, derivative: bool
) -> tuple[Tensor, Tensor]:
    """Register the cage of each decoded pattern with the template's.

    Least squares on pose, contrast and background at once, by Gauss-Newton on the decoder, the
    central atoms of both taken off.

    Returns
    -------
    pose : (B, C) tensor
        Of the cage in the pattern as decoded without any: its position [px]; then rotation [rad]
        and log scale where the model has them.
    by_latent : (B, C, K) tensor
        Its derivative; (B, C, 0) where it is not wanted.
    """
    if not len(around.by):  # an atom alone is the whole pattern
        around = around._replace(central=_nowhere(around.central))
        central = central._replace(
            bell=_nowhere(central.bell), response=torch.zeros_like(central.response)
        )
    axis, weight = model.grid[:, 0, 0], around.cage
    template = around.template.flatten() - bells(around.central, axis)[0]
    template = template.expand(len(z), -1)
    fixed = torch.stack([template, torch.ones_like(template)], dim=1)  # (B, 2, P P)
    dims, turns = 2, model.config.pose_dim - model.config.shift_dim
    pose = torch.zeros(len(z), dims + turns, device=z.device)
    limit = torch.full_like(pose[0], LARGEST_TURN)
    limit[:dims] = CENTRAL_RADIUS * model.config.separation_px / 2
    small = torch.full_like(limit, CONVERGED_PX / model.config.separation_px)
    small[:dims] = CONVERGED_PX
    for _ in range(ALIGN_ITERATIONS):
        shift, turn = undone(model, pose)
        pattern, by_shift, _ = model.linearise_at(z, shift, turn, latents=False)
        atom = _moved(central.bell, shift, turn)
        rest = pattern.flatten(1) - bells(atom, axis)
        by = by_shift - slopes(atom, axis, places_only=True).view_as(by_shift)
        if turns:
            by = torch.cat([by, model.by_turn(by, shift)], dim=1)
        # Unknowns: pose (which the pattern is moved back by), contrast, background of the template.
        columns = torch.cat([by.flatten(2), fixed], dim=1)
        step, normal, weighted = least_squares(columns, weight, rest)
        pose = (pose + step[:, : dims + turns]).clamp(-limit, limit)
        if (step[:, : dims + turns].abs() < small).all():
            break
    if not derivative:
        return pose, pose[:, :, None][..., :0]
    shift, turn = undone(model, pose)
    by_latent = model.linearise_at(z, shift, turn).by_latent.flatten(2)
    by_atom = slopes(_moved(central.bell, shift, turn), axis)
    change = central.by_latent
    if turn is not None:
        change = torch.cat([applied(turn, change[:, :2]), change[:, 2:]], dim=1)
    by_latent = by_latent - change.mT @ by_atom
    by_z, _ = torch.linalg.solve_ex(normal, weighted @ by_latent.mT)
    return pose, by_z[:, : dims + turns]


def _moved(atoms: Tensor, shift: Tensor, turn: Tensor | None) -> Tensor:
    """Gaussians (B, 4) of patterns that are moved, turned and magnified."""
    place, width = atoms[:, :2], atoms[:, 3:]
    if turn is not None:
        place = applied(turn, place[..., None])[..., 0]
        width = width * turn[:, 1:].exp()
    return torch.cat([place + shift, atoms[:, 2:3], width], dim=1)


def find_central(model: ShiftVAE, z: Tensor, around: Surroundings, *, derivative: bool) -> Central:
    """Fit a Gaussian on a background to the central atom of each decoded pattern.

    Least squares under a smooth window about the strongest pixel of the central region; a
    maximum alone would follow every ripple that noise has left in the decoder. The tails of the
    neighbours are taken off, and these are found in what the central atom leaves, in turn.
    """
    separation = model.config.separation_px
    still = z.new_zeros(len(z), 2)
    pattern, _, by_latent = model.linearise_at(z, still, latents=derivative)
    first = feature_pixel(pattern, around.origin[None], model)
    about = windows_about(first, model)
    pattern, by_latent = pattern.flatten(1), by_latent.flatten(2)
    axis = model.grid[:, 0, 0]

    position, width = first, torch.full_like(first[:, 0], ATOM_WIDTH * separation)
    tails = around.drawn.expand_as(pattern)
    for _ in range(ATOM_ITERATIONS):
        values = (pattern - tails).gather(1, about.rows)
        top, step, normal, weighted = local_step(values, about, position, width)
        position = position + step[:, :2].clamp(-1.0, 1.0)
        width = (width + step[:, 2]).clamp(0.4, CENTRAL_RADIUS * separation)
        atom = torch.stack([*position.unbind(1), top[:, 0], width], dim=1)
        if (step[:, :3].abs() < CONVERGED_PX).all():
            break
        tails = around.tails(pattern - bells(atom, axis))
    found = ((position - first).abs() < 1.5).all(dim=1) & (model.polarity * top[:, 0] > 0)
    found &= (step[:, :2].abs() < 0.05).all(dim=1)
    atom = torch.where(found[:, None], atom, _nowhere(atom))
    if not derivative:
        nothing = pattern.new_zeros(1, 1, 1).expand(len(z), 4, pattern.shape[1])
        return Central(pattern, by_latent, atom, found, nothing)
    response = torch.linalg.solve_ex(normal, weighted)[0][:, [0, 1, 3, 2]]
    response = spread_out(response, about.rows, pattern)  # (B, 4, M)
    # Neighbours follow the pattern, less the central atom that follows it as well.
    tail = (response @ around.by.T) @ around.response
    by_itself = tail @ slopes(atom, axis).mT
    response, _ = torch.linalg.solve_ex(torch.eye(4).to(by_itself) - by_itself, response - tail)
    return Central(pattern, by_latent, atom, found, response * found[:, None, None])


def _nowhere(atoms: Tensor) -> Tensor:
    """Gaussians (B, 4) of no height."""
    return torch.tensor([0.0, 0.0, 0.0, 1.0]).to(atoms).expand_as(atoms)


def feature_pixel(pattern: Tensor, near: Tensor, model: ShiftVAE) -> Tensor:
    """Pixel (B, 2) of the strong maximum of each pattern (B, P, P) nearest points (B, 2) [px]."""
    grid = model.grid
    away = (grid - near[:, None, None]).square().sum(dim=-1).sqrt()  # (B, P, P)
    height = model.polarity * pattern
    peak = torch.nn.functional.max_pool2d(height[:, None], 3, stride=1, padding=1)[:, 0]
    central = away <= CENTRAL_RADIUS * model.config.separation_px
    # A gentle slope settles a draw between features in favour of the nearer one.
    slope = away / model.config.separation_px * height.flatten(1).std(dim=1)[:, None, None]
    height = torch.where(central & (height >= peak), height - slope, -torch.inf)
    return grid.flatten(0, 1)[height.flatten(1).argmax(dim=1)]


def applied(turn: Tensor, columns: Tensor) -> Tensor:
    """Columns (B, 2, C) of places, turned and magnified."""
    return rotation_matrix(turn[:, 0]) @ columns * torch.exp(turn[:, 1])[:, None, None]


def undone(model: ShiftVAE, pose: Tensor) -> tuple[Tensor, Tensor | None]:
    """Shift and turn that take back the pose (B, C) of a cage."""
    if pose.shape[1] == 2:
        return -pose, None
    turn = -model.turn(pose[:, 2:])
    return -applied(turn, pose[:, :2, None])[..., 0], turn
