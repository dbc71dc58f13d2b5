"""What a fit says of each atom: latents, shift, places and their errors, in pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_shiftvae.core.alike import blocks, seen_through
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.landmarks import applied, find_landmarks
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.polar_fit import Polar, seen_polar, settled

__all__ = ["Reading", "pose_of", "read"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a fit says of every patch, gauges fixed, on the pixels of the image.

    Attributes
    ----------
    z, z_sd : (N, K) arrays
        Content latents and their standard deviations.
    shift_yx_px, shift_sd_yx_px : (N, 2) arrays
        Whole pattern minus pick [px].
    atom_yx_px, atom_sd_yx_px : (N, 2) arrays
        Position of the central atom in the image [px]; NaN where the pattern has none.
    polar_yx_px : (N, 2) array
        Central atom minus the mean of its nearest neighbours, in the decoded pattern and as its
        residual corrects it [px]; NaN where the window does not hold all of these.
    polar_sd_yx_px : (N, 2) array
        Its standard deviation [px], or where it is not known that of the central atom against the
        whole pattern: less than that of two independent positions, for the error of a common shift
        is in both.
    polar_shared_sd_yx_px : (N, 2) array
        Standard deviation of the part of its error that is the same for alike atoms, and that no
        mean over them makes smaller [px].
    residual : (N,) array
        Root mean square residual over the noise standard deviation.
    rotation_rad, rotation_sd_rad : (N,) arrays or None
        Of the cage against the mean one [rad], positive from right to down (clockwise on the
        screen); None where the model does not turn its patterns.
    scale, scale_sd : (N,) arrays or None
        Size of the pattern over the geometric mean size; None where the model has one size.
    """

    z: NDArray[np.float64]
    z_sd: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    shift_sd_yx_px: NDArray[np.float64]
    atom_yx_px: NDArray[np.float64]
    atom_sd_yx_px: NDArray[np.float64]
    polar_yx_px: NDArray[np.float64]
    polar_sd_yx_px: NDArray[np.float64]
    polar_shared_sd_yx_px: NDArray[np.float64]
    residual: NDArray[np.float64]
    rotation_rad: NDArray[np.float64] | None = None
    rotation_sd_rad: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    scale_sd: NDArray[np.float64] | None = None


@torch.no_grad()
def read(model: ShiftVAE, patches: Patches, fit: Fit) -> Reading:
    """Turn a fit into latents, shifts and positions of central atoms, in pixels of the image.

    Standard deviations follow from the joint covariance of shift and latents by the derivatives
    of the two positions.

    Parameters
    ----------
    model : ShiftVAE
        With its gauge fixed.
    patches : Patches
    fit : Fit

    Returns
    -------
    Reading
    """
    wholes: list[Tensor] = []
    atoms: list[Tensor] = []
    turns: list[Tensor] = []
    polars: list[Polar] = []
    seen = torch.cat(seen_through(model, fit.content))
    parts = blocks(patches)
    for rows in parts:
        z, pose, covariance = fit.content[rows], fit.pose[rows], fit.covariance[rows]
        found = find_landmarks(model, z)
        cage, by_latent = found.cage, found.cage_by_latent
        whole, by_whole = _carried(model, pose, *_origin_in(model, z, cage, by_latent))
        atom, by_atom = _carried(model, pose, found.atom, found.atom_by_latent)
        wholes.append(torch.cat([whole, _deviation(by_whole, covariance)], dim=1))
        atoms.append(torch.cat([atom, _deviation(by_atom, covariance)], dim=1))
        polar, by_polar = _carried(model, pose, found.polar, found.polar_by_latent, moved=False)
        by_polar = torch.where(polar.isfinite()[..., None], by_polar, by_atom - by_whole)
        posterior = by_polar @ covariance @ by_polar.mT
        polars.append(
            seen_polar(model, patches, fit, rows, found=found, seen=seen[rows], posterior=posterior)
        )
        by_pose = torch.eye(pose.shape[1], device=z.device)[model.config.shift_dim :]
        by = torch.cat([by_pose.expand(len(z), -1, -1), by_latent[:, 2:]], dim=2)
        turn = pose[:, model.config.shift_dim :] + cage[:, 2:]
        if turn.shape[1]:
            turn = turn - model.of_class(model.mean_turn, z)
        turns.append(torch.cat([turn, _deviation(by, covariance)], dim=1))
    back = torch.cat(parts).argsort()
    wholes_yx, atoms_yx, turned = (_array(torch.cat(each)[back]) for each in (wholes, atoms, turns))
    joined = Polar(*(torch.cat(each)[back] for each in zip(*polars, strict=True)))
    against_shell = settled(joined, fit.content, seen)
    there = np.isfinite(atoms_yx[:, :2])
    atoms_yx[~np.isfinite(atoms_yx[:, :2]).all(axis=1)] = np.nan
    return Reading(
        z=_array(fit.z),
        z_sd=_array(fit.covariance.diagonal(dim1=1, dim2=2)[:, model.config.pose_dim :].sqrt()),
        shift_yx_px=wholes_yx[:, :2] - patches.remainder_yx_px,
        shift_sd_yx_px=wholes_yx[:, 2:],
        atom_yx_px=patches.centre_yx + atoms_yx[:, :2],
        atom_sd_yx_px=atoms_yx[:, 2:],
        polar_yx_px=_array(against_shell.place),
        polar_sd_yx_px=np.where(there, _array(against_shell.sd), np.nan),
        polar_shared_sd_yx_px=np.where(there, _array(against_shell.shared_sd), np.nan),
        residual=_array((fit.mean_square / model.variance).sqrt()),
        **_turns(model, turned),
    )


@torch.no_grad()
def pose_of(
    model: ShiftVAE,
    content: Tensor,
    offset_yx_px: NDArray[np.float64],
    turn: NDArray[np.float64],
) -> tuple[Tensor, Tensor]:
    """Find the contents and poses that were read as these values: the inverse of `read`.

    Parameters
    ----------
    model : ShiftVAE
        With its gauge fixed.
    content : (N, K + C) tensor
        Latents, and given classes where the model has these.
    offset_yx_px : (N, 2) array
        Shift plus the remainder of the pick: from the middle of the window [px].
    turn : (N, T) array
        Rotation [rad] and logarithm of the scale, those that the model has.

    Returns
    -------
    content : (N, K + C) tensor
    pose : (N, A) tensor
        As `ShiftVAE.decode` takes them.
    """
    device = model.variance.device
    content = content.to(device)
    offset, turned = (
        torch.as_tensor(values, dtype=torch.float32, device=device)
        for values in (offset_yx_px, turn)
    )
    found = find_landmarks(model, content)
    cage = found.cage
    place, _ = _origin_in(model, content, cage, found.cage_by_latent)
    if turned.shape[1]:
        turned = turned + model.of_class(model.mean_turn, content) - cage[:, 2:]
        place = applied(model.turn(turned), place[..., None])[..., 0]
    return content, torch.cat([(offset - place)[:, : model.config.shift_dim], turned], dim=1)


def _turns(model: ShiftVAE, turn: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Rotation and scale of a reading from columns of values, then deviations."""
    names = [name for name in model.config.invariances if name != "shift"]
    value, deviation = turn[:, : len(names)], turn[:, len(names) :]
    found = dict(zip(names, zip(value.T, deviation.T, strict=True), strict=True))
    columns = {}
    if "rotation" in found:
        columns["rotation_rad"], columns["rotation_sd_rad"] = found["rotation"]
    if "scale" in found:
        columns["scale"] = np.exp(found["scale"][0])
        columns["scale_sd"] = columns["scale"] * found["scale"][1]
    return columns


def _origin_in(
    model: ShiftVAE, z: Tensor, cage: Tensor, by_latent: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the origin of a cage of known pose (B, C) lies, (B, 2), and the derivative."""
    origin = model.of_class(model.origin, z)
    if cage.shape[1] > 2:
        origin = applied(model.turn(cage[:, 2:]), origin[..., None])[..., 0]
        by_latent = by_latent[:, :2] + _turning(model, origin) @ by_latent[:, 2:]
    return cage[:, :2] + origin, by_latent


def _turning(model: ShiftVAE, places: Tensor) -> Tensor:
    """Derivatives (B, 2, T) of places (B, 2) by the rotation and log scale that are in use."""
    y, x = places.unbind(1)
    by = {"rotation": torch.stack([x, -y], 1), "scale": places}
    return torch.stack([by[name] for name in model.config.invariances if name != "shift"], 2)


def _carried(
    model: ShiftVAE, pose: Tensor, place: Tensor, by_latent: Tensor, *, moved: bool = True
) -> tuple[Tensor, Tensor]:
    """Place (B, 2) in a pattern to one in the window, and its derivative by pose and latents.

    A difference of two places is turned and magnified, but not moved.
    """
    shift, turn = model.placed(pose)
    shift = shift * moved
    by = [moved * torch.eye(2).to(pose).expand(len(pose), 2, 2)[..., : model.config.shift_dim]]
    if turn is not None:
        place, by_latent = applied(turn, place[..., None])[..., 0], applied(turn, by_latent)
        by.append(_turning(model, place))
    return place + shift, torch.cat([*by, by_latent], dim=2)


def _deviation(by: Tensor, covariance: Tensor) -> Tensor:
    """Standard deviations (B, C) of values from their derivatives (B, C, A + K)."""
    return (by @ covariance @ by.mT).diagonal(dim1=1, dim2=2).sqrt()


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.cpu().numpy().astype(np.float64)
