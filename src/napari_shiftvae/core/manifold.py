"""What the decoder of a run makes: of places in latent space, and of single atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from napari_shiftvae.core.computer import alone
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import GIVEN, with_given
from napari_shiftvae.core.images import MicroscopeImage, as_float_image
from napari_shiftvae.core.infer import content
from napari_shiftvae.core.patches import Patches, extract_patches
from napari_shiftvae.core.reading import pose_of
from napari_shiftvae.core.runs import Run

GAP_PX = 2  # between the pictures of a strip
POPULATED = (2, 98)  # percentiles of a latent between which it is populated

Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class AtomView:
    """One atom as it was seen and as the model has it.

    Attributes
    ----------
    patch, reconstruction : (P, P) float32 array
        In the intensity of the image, less its slow background where that was taken off.
    residual : (P, P) float32 array
        Patch minus reconstruction, in units of the noise's standard deviation.
    """

    patch: Pixels
    reconstruction: Pixels
    residual: Pixels


def latent_names(run: Run) -> list[str]:
    """Columns of the content latents, ``["z1", ...]``."""
    return [f"z{k}" for k in range(1, run.model.config.latent_dim + 1)]


@alone()
def decode(run: Run, latents: ArrayLike, given: str | None = None) -> Pixels:
    """Decode places in latent space, unshifted.

    Parameters
    ----------
    run : Run
    latents : (N, K) array-like
    given : str, optional
        Which of the classes that the model is conditional on; the first one by default.

    Returns
    -------
    (N, P, P) float32 array
        Patterns in normalised intensity.

    Raises
    ------
    InputError
        There are not K latents in each row, or the model knows no such class.
    """
    z = torch.as_tensor(np.atleast_2d(np.asarray(latents, dtype=np.float32)))
    if z.shape[1] != run.model.config.latent_dim:
        raise InputError(
            f"There are {z.shape[1]} latents in a row; the run has {run.model.config.latent_dim}."
        )
    names = run.model.config.given
    if given is not None:
        if given not in names:
            raise InputError(f"The model knows no class {given}: choose one of {', '.join(names)}.")
        told = torch.eye(len(names))[names.index(given)].expand(len(z), -1)
        z = content(z, told)
    with torch.no_grad():
        patterns = run.model.decode(z.to(run.model.variance.device))
    return np.asarray(patterns.cpu().numpy(), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderGrid:
    """Patterns over the populated part of latent space.

    Attributes
    ----------
    patterns : (R, C, P, P) float32 array
        In normalised intensity, the first row being the uppermost.
    across, up : (C,) and (R,) arrays
        Latents of the columns, rising, and of the rows, falling; `up` is ``[0]`` for one latent.
    atoms : (R, C) int array
        How many atoms are nearest to each pattern.
    """

    patterns: Pixels
    across: NDArray[np.float64]
    up: NDArray[np.float64]
    atoms: NDArray[np.int64]


def decoder_grid(
    run: Run, side: int, axes: Sequence[str] = ("z1", "z2"), given: str | None = None
) -> DecoderGrid:
    """Decode patterns over the populated part of latent space.

    Parameters
    ----------
    run : Run
    side : int
        Number of patterns along each latent.
    axes : sequence of str
        The latents to the right and upwards.
    given : str, optional
        As for `decode`; only atoms of this class are counted.

    Returns
    -------
    DecoderGrid
        From the 2nd to the 98th percentile of each; the other latents are zero.
    """
    names = latent_names(run)
    known = [name for name in axes if name in names]
    across = populated(run, known[0], side)
    up = populated(run, known[1], side)[::-1] if len(known) > 1 else np.zeros(1)
    z = np.zeros((len(up), side, len(names)))
    if len(known) > 1:
        z[..., names.index(known[1])] = up[:, None]
    z[..., names.index(known[0])] = across
    patterns = decode(run, z.reshape(-1, len(names)), given)
    counted = run.used if given is None else run.used & (run.atoms[GIVEN] == given).to_numpy()
    values = run.atoms.loc[counted, known].to_numpy(dtype=np.float64)
    atoms = np.zeros((len(up), side), dtype=np.int64)
    column = _nearest_step(values[:, 0], across)
    row = _nearest_step(values[:, 1], up) if len(known) > 1 else np.zeros_like(column)
    inside = (column >= 0) & (row >= 0)
    np.add.at(atoms, (row[inside], column[inside]), 1)
    size = patterns.shape[-1]
    return DecoderGrid(
        patterns=patterns.reshape(len(up), side, size, size), across=across, up=up, atoms=atoms
    )


def _nearest_step(values: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of evenly spaced steps each value is nearest to, -1 beyond their ends."""
    width = (steps[1] - steps[0]) if len(steps) > 1 and steps[1] != steps[0] else 1.0
    nearest = np.rint((values - steps[0]) / width).astype(np.int64)
    return np.where((nearest >= 0) & (nearest < len(steps)), nearest, -1)


def traverse(run: Run, name: str, steps: int, given: str | None = None) -> Pixels:
    """Decode patterns along one latent, the others being zero.

    Parameters
    ----------
    run : Run
    name : str
        ``"z1"`` ...
    steps : int
        Number of patterns n.
    given : str, optional
        As for `decode`.

    Returns
    -------
    (n, P, P) float32 array
        From the 2nd to the 98th percentile.
    """
    names = latent_names(run)
    if name not in names:
        raise InputError(f"The run has no latent {name}: choose one of {', '.join(names)}.")
    z = np.zeros((steps, len(names)))
    z[:, names.index(name)] = populated(run, name, steps)
    return decode(run, z, given)


def save_strip(run: Run, name: str, steps: int, path: str | Path, given: str | None = None) -> Path:
    """Write the patterns along one latent as a strip (PNG) or an animation there and back (GIF).

    Parameters
    ----------
    run : Run
    name : str
        ``"z1"`` ...
    steps : int
    path : str or Path
        Ending in ``.png`` or ``.gif``.
    given : str, optional
        As for `decode`.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The file cannot be written, or its ending is another one.
    """
    path = Path(path)
    patterns = traverse(run, name, steps, given)
    low, high = float(patterns.min()), float(patterns.max())
    grey = ((patterns - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    enlarge = max(1, 96 // grey.shape[1])
    frames = [Image.fromarray(one.repeat(enlarge, 0).repeat(enlarge, 1)) for one in grey]
    try:
        if path.suffix.lower() == ".png":
            pictures = [np.asarray(frame) for frame in frames]
            gap = np.full((len(pictures[0]), GAP_PX), 255, dtype=np.uint8)
            parts = [part for picture in pictures for part in (picture, gap)]
            Image.fromarray(np.concatenate(parts[:-1], axis=1)).save(path)
        elif path.suffix.lower() == ".gif":
            there_and_back = frames[1:] + frames[-2::-1]
            frames[0].save(path, save_all=True, append_images=there_and_back, duration=80, loop=0)
        else:
            raise InputError(f"{path.name} is no picture's name: let it end in .png or .gif.")
    except OSError as error:
        raise InputError(
            f"{path} could not be written ({error.strerror or error}): choose another folder."
        ) from error
    return path


def populated(run: Run, name: str, steps: int) -> NDArray[np.float64]:
    """Steps over the populated part of a latent, (n,)."""
    low, high = np.nanpercentile(run.atoms[name].to_numpy(dtype=np.float64), POPULATED)
    return np.linspace(low, high, steps)


def patches_of(run: Run, image: MicroscopeImage) -> Patches:
    """Cut the patches of a run out of its image, such as after it was loaded from a file.

    Parameters
    ----------
    run : Run
    image : MicroscopeImage
        The image that was analysed.

    Returns
    -------
    Patches
    """
    if run.training is not None:
        return run.training.patches
    patches = extract_patches(
        as_float_image(image.data),
        run.picks_yx,
        run.model.config.patch_size_px,
        normalisation=run.config.normalisation,
    )
    if not run.model.config.given:
        return patches
    return with_given(patches, run.atoms[GIVEN].to_numpy(), run.model.config.given)


def posterior_means(
    run: Run, patches: Patches, rows: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contents (N, K + C) and poses (N, A) of some patches, of a run from a file too.

    Parameters
    ----------
    run : Run
    patches : Patches
        Of this run, from `patches_of`.
    rows : (N,) int array
        Rows of the patches.
    """
    if run.fit is not None:
        at = torch.from_numpy(rows)
        return run.fit.content[at], run.fit.pose[at]
    atoms = run.atoms.iloc[patches.index[rows]]
    shift = atoms[["shift_y_px", "shift_x_px"]].to_numpy(dtype=np.float64)
    turns = {"rotation": "rotation_rad", "scale": "scale"}
    turn = [atoms[turns[one]] for one in run.model.config.invariances if one in turns]
    if "scale" in run.model.config.invariances:
        turn[-1] = np.log(turn[-1])
    z = torch.as_tensor(atoms[latent_names(run)].to_numpy(dtype=np.float32))
    told = None if patches.given is None else patches.given[torch.from_numpy(rows)]
    return pose_of(
        run.model,
        content(z, told),
        shift + patches.remainder_yx_px[rows],
        np.asarray(turn, dtype=np.float64).reshape(len(turn), len(rows)).T,
    )


@alone()
def patch_of(patches: Patches, row: int) -> Pixels | None:
    """Cut the patch (P, P) of an atom, in the intensity of the image; None where it has none."""
    at = int(np.searchsorted(patches.index, row))
    if at >= len(patches) or patches.index[at] != row:
        return None
    seen = patches.gather(np.array([at]))[0].numpy()
    return np.asarray(seen * patches.scale[at] + patches.offset[at], dtype=np.float32)


@alone()
def view_atom(run: Run, patches: Patches, row: int) -> AtomView | None:
    """Show an atom beside what the model makes of it.

    Parameters
    ----------
    run : Run
    patches : Patches
        Of this run, from `patches_of`.
    row : int
        Row of the atoms table.

    Returns
    -------
    AtomView or None
        None for an atom that was set aside.
    """
    patch = patch_of(patches, row)
    if patch is None:
        return None
    at = int(np.searchsorted(patches.index, row))
    with torch.no_grad():
        decoded = run.model.decode(*posterior_means(run, patches, np.array([at])))[0]
    scale = patches.scale[at]
    reconstruction = decoded.cpu().numpy() * scale + patches.offset[at]
    noise = float(run.model.variance.sqrt()) * scale
    return AtomView(
        patch=patch, reconstruction=reconstruction, residual=(patch - reconstruction) / noise
    )
