"""What the decoder of a run makes: of places in latent space, and of single atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import GIVEN, with_given
from napari_shiftvae.core.images import MicroscopeImage, as_float_image
from napari_shiftvae.core.patches import Patches, extract_patches
from napari_shiftvae.core.runs import Run

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


def decode(run: Run, latents: ArrayLike) -> Pixels:
    """Decode places in latent space, unshifted.

    Parameters
    ----------
    run : Run
    latents : (N, K) array-like

    Returns
    -------
    (N, P, P) float32 array
        Patterns in normalised intensity.

    Raises
    ------
    InputError
        There are not K latents in each row.
    """
    z = torch.as_tensor(np.atleast_2d(np.asarray(latents, dtype=np.float32)))
    if z.shape[1] != run.model.config.latent_dim:
        raise InputError(
            f"There are {z.shape[1]} latents in a row; the run has {run.model.config.latent_dim}."
        )
    with torch.no_grad():
        patterns = run.model.decode(z.to(run.model.variance.device))
    return np.asarray(patterns.cpu().numpy(), dtype=np.float32)


def decoder_grid(run: Run, side: int, axes: Sequence[str] = ("z1", "z2")) -> Pixels:
    """Decode patterns over the populated part of latent space.

    Parameters
    ----------
    run : Run
    side : int
        Number of patterns n along each latent.
    axes : sequence of str
        The latents to the right and upwards.

    Returns
    -------
    (n * P, n * P) float32 array
        From the 2nd to the 98th percentile of each; the other latents are zero. With one latent,
        (P, n * P).
    """
    names = latent_names(run)
    ranges = [populated(run, name, side) for name in axes if name in names]
    to_the_right = ranges[0]
    upwards = ranges[1][::-1] if len(ranges) > 1 else np.zeros(1)
    z = np.zeros((len(upwards), side, len(names)))
    z[..., names.index(axes[0])] = to_the_right
    if len(ranges) > 1:
        z[..., names.index(axes[1])] = upwards[:, None]
    patterns = decode(run, z.reshape(-1, len(names)))
    size = patterns.shape[-1]
    tiles = patterns.reshape(len(upwards), side, size, size)
    return tiles.swapaxes(1, 2).reshape(-1, side * size)


def traverse(run: Run, name: str, steps: int) -> Pixels:
    """Decode patterns along one latent, the others being zero.

    Parameters
    ----------
    run : Run
    name : str
        ``"z1"`` ...
    steps : int
        Number of patterns n.

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
    return decode(run, z)


def save_strip(run: Run, name: str, steps: int, path: str | Path) -> Path:
    """Write the patterns along one latent as a strip (PNG) or an animation there and back (GIF).

    Parameters
    ----------
    run : Run
    name : str
        ``"z1"`` ...
    steps : int
    path : str or Path
        Ending in ``.png`` or ``.gif``.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The file cannot be written, or its ending is another one.
    """
    path = Path(path)
    patterns = traverse(run, name, steps)
    low, high = float(patterns.min()), float(patterns.max())
    grey = ((patterns - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    enlarge = max(1, 96 // grey.shape[1])
    frames = [Image.fromarray(one.repeat(enlarge, 0).repeat(enlarge, 1)) for one in grey]
    try:
        if path.suffix.lower() == ".png":
            strip = np.concatenate([np.asarray(frame) for frame in frames], axis=1)
            Image.fromarray(strip).save(path)
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
        None for an atom that was set aside, or of a run that was read from a file.
    """
    at = int(np.searchsorted(patches.index, row))
    if run.fit is None or at >= len(patches) or patches.index[at] != row:
        return None
    with torch.no_grad():
        decoded = run.model.decode(run.fit.content[at : at + 1], run.fit.pose[at : at + 1])[0]
    reconstruction = decoded.cpu().numpy()
    seen = patches.gather(np.array([at]))[0].numpy()
    scale, offset = patches.scale[at], patches.offset[at]
    return AtomView(
        patch=seen * scale + offset,
        reconstruction=reconstruction * scale + offset,
        residual=(seen - reconstruction) / float(run.model.variance.sqrt()),
    )
