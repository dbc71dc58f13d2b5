"""A trained model on another image: the decoder and its gauge stay as they are."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.feature import match_template
from torch import Tensor
from torch.nn.functional import one_hot

from napari_shiftvae.core.atoms import find_atoms
from napari_shiftvae.core.classes import class_of, with_classes
from napari_shiftvae.core.computer import choose_device, peak_memory_mb, spare_one_core
from napari_shiftvae.core.conclude import conclude
from napari_shiftvae.core.errors import InputError, tell
from napari_shiftvae.core.given import Told, with_given
from napari_shiftvae.core.images import MicroscopeImage, as_float_image, masked_sentence
from napari_shiftvae.core.infer import Fit, encode, refining
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches, extract_patches
from napari_shiftvae.core.positions import with_nm
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.runs import ImageInfo, Run
from napari_shiftvae.core.similar import Similar, choose_similar
from napari_shiftvae.core.spectrum import power_spectrum
from napari_shiftvae.core.spots import find_maxima

__all__ = ["encode_image", "encode_steps", "size_notes"]

SAME_SIZE = 0.02  # relative difference of pixel sizes that is no difference
SAME_CONTRAST = 1.25
SAME_MEAN = 0.5  # of the contrast
SAME_NOISE = 1.2  # ratio of variances; beyond it, a refinement weighs prior and data wrongly

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]


def encode_image(
    run: Run,
    image: MicroscopeImage,
    positions_yx: ArrayLike | None = None,
    *,
    given: ArrayLike | None = None,
    resample: bool = False,
    own_intensity: bool = False,
    device: str = "auto",
) -> Generator[Progress, str | None, Run]:
    """Read another image with the model of a run.

    Intensities are normalised as those that the model was trained on, so that latents mean the
    same. Warnings, which the run's diagnostics hold too, say where pixel size or intensities
    differ.

    Parameters
    ----------
    run : Run
    image : MicroscopeImage
    positions_yx : (M, 2) array-like, optional
        Picks (y, x) [px]. By default atoms are found as they were for the run, or places that look
        like its mean pattern where it was trained on windows anywhere.
    given : (M,) array-like of str or int, optional
        Class of each of these picks, for a model that is conditional on classes. By default each
        atom has the one in which the model explains its patch best.
    resample : bool
        Whether to interpolate the image to the pixel size that the model was trained with. What
        is returned is in pixels of the image as it was given.
    own_intensity : bool
        Whether to normalise by the image's own mean and contrast.
    device : {"auto", "cpu", "cuda", "mps"}

    Yields
    ------
    Progress

    Returns
    -------
    Run
        It cannot be trained on.

    Raises
    ------
    InputError
        If the image cannot be analysed, has no place like the model's patterns, or is to be
        resampled without a known pixel size.

    Examples
    --------
    >>> from napari_shiftvae.core.analyse import analyse, finish
    >>> from napari_shiftvae.core.settings import AnalysisConfig
    >>> from napari_shiftvae.core.train import TrainConfig
    >>> from napari_shiftvae.core.simulate import perovskite
    >>> made = [perovskite(rng=np.random.default_rng(n), shape=(128, 128)) for n in range(2)]
    >>> first, second = (MicroscopeImage(data=one.image, name="made") for one in made)
    >>> run = finish(analyse(first, AnalysisConfig(train=TrainConfig(epochs=2))))
    >>> finish(encode_image(run, second)).image.sha256 == run.image.sha256
    False
    """
    steps = encode_steps(
        run,
        image,
        positions_yx,
        given=given,
        resample=resample,
        own_intensity=own_intensity,
        device=device,
    )
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            made: Run = end.value
            return made
        for note in progress.notes:
            tell(note, stacklevel=2)
        yield progress


def encode_steps(
    run: Run,
    image: MicroscopeImage,
    positions_yx: ArrayLike | None = None,
    *,
    given: ArrayLike | None = None,
    resample: bool = False,
    own_intensity: bool = False,
    device: str = "auto",
    tell_masked: bool = True,
) -> Generator[Progress, str | None, Run]:
    """Do as `encode_image` does, but for its warnings: they are the `notes` of what is yielded.

    Parameters
    ----------
    tell_masked : bool
        As `analyse.analyse` takes it.
    """
    with spare_one_core():
        began = time.perf_counter()
        notes = [] if resample else size_notes(run, image)
        ratio_yx = _ratio(run, image) if resample else (1.0, 1.0)
        pixels = as_float_image(image.data)
        masked = masked_sentence(pixels) if tell_masked else ""
        notes += [masked] if masked else []
        pixels = resampled(pixels, ratio_yx)
        yield Progress(stage="find", fraction=0.0, message="Finding atoms")
        if positions_yx is None:
            picks = _places(run, pixels)
        else:
            picks = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
            picks = np.asarray((picks + 0.5) * ratio_yx - 0.5) if resample else picks
        if not len(picks):
            raise InputError(
                f"No place like the atoms of {run.image.name} was found in {image.name}: give "
                "positions, or check pixel size and contrast."
            )
        patches, more = _patches(run, pixels, picks, image.name, own_intensity=own_intensity)
        notes += more
        yield Progress(
            stage="find",
            fraction=1.0,
            message=f"{len(picks)} positions",
            positions_yx=(picks + 0.5) / ratio_yx - 0.5 if resample else picks,
            notes=tuple(notes),
        )
        found = time.perf_counter()
        model = copy.deepcopy(run.model).to(choose_device(device)).eval()
        told = Told.of_picks(len(picks), given if model.config.given else None, None)
        if told.given is not None:
            patches = with_given(patches, told.given, model.config.given)
        elif model.config.given:
            best = yield from _likeliest(model, patches)
            patches = replace(patches, given=one_hot(best, len(model.config.given)).float())
            names = np.asarray(model.config.given)
            chosen = np.full(len(picks), "", dtype=names.dtype)
            chosen[patches.index] = names[best.numpy()]
            told = Told(given=chosen)
        fit = yield from fitted(model, patches, refined=run.config.refine)
        seconds = {"find": found - began, "refine": time.perf_counter() - found}
        yield Progress(stage="fields", fraction=0.0, message="Drawing maps")
        began = time.perf_counter()
        made = conclude(
            model,
            patches,
            fit,
            picks_yx=picks,
            told=told,
            image=replace(image, data=pixels) if resample else image,
            config=run.config,
            noise_sigma=power_spectrum(patches).noise_sigma,
            epochs=run.epochs,
            seconds=seconds,
        )
        if model.config.classes:
            classes = class_of(model, fit, follow=False)
            made = replace(made, atoms=with_classes(made.atoms, *classes))
        if resample:  # whoever cut patches out of the image would find others than these
            made = replace(made, atoms=_back(made, image, ratio_yx), fit=None)
        made = replace(
            made,
            image=ImageInfo.of(image),
            trained_on=run.trained_on or run.image,
            diagnostics=replace(made.diagnostics, sentences=(*notes, *made.diagnostics.sentences)),
            peak_memory_mb=peak_memory_mb(),
        )
        seconds["fields"] = time.perf_counter() - began
        seconds["total"] = sum(seconds.values())
        return made


def fitted(
    model: ShiftVAE, patches: Patches, *, refined: bool, uneven: bool = True
) -> Generator[Progress, str | None, Fit]:
    """Encode patches with a frozen decoder and, if wanted, refine them."""
    fit = encode(model, patches)
    for _ in range(2 if refined else 0):
        before = float(model.variance)
        fit = yield from refining(model, patches, fit, uneven=uneven)
        if 1 / SAME_NOISE < float(model.variance) / before < SAME_NOISE:
            break
    return fit


def _likeliest(model: ShiftVAE, patches: Patches) -> Generator[Progress, str | None, Tensor]:
    """Number (N,) of the class in which the model explains each patch best."""
    left = []
    for told in torch.eye(len(model.config.given)):
        each = replace(patches, given=told.expand(len(patches), -1))
        # Residuals are compared, so they must be weighted alike.
        fit = yield from fitted(copy.deepcopy(model), each, refined=True, uneven=False)
        left.append(fit.mean_square)
    return torch.stack(left, dim=1).argmin(dim=1).cpu()


def resampled(pixels: Pixels, ratio_yx: tuple[float, float]) -> Pixels:
    """Interpolate an image onto pixels of another size.

    Parameters
    ----------
    pixels : (H, W) float32 array
        NaN is masked, and stays so.
    ratio_yx : (float, float)
        Size of the old pixels over that of the new ones.

    Returns
    -------
    float32 array
    """
    if ratio_yx == (1.0, 1.0):
        return pixels
    masked = ~np.isfinite(pixels)
    filled = np.where(masked, np.median(pixels[~masked]), pixels)
    # Where pixels become larger, what is finer than they are would fold over.
    filled = ndimage.gaussian_filter(filled, [0.4 * np.sqrt(max(0, r**-2 - 1)) for r in ratio_yx])
    shape = [max(1, int(length * r)) for length, r in zip(pixels.shape, ratio_yx, strict=True)]

    def taken(values: Pixels, order: Literal[1, 3]) -> Pixels:
        return ndimage.affine_transform(
            values,
            np.array([1 / r for r in ratio_yx]),
            offset=np.array([0.5 / r - 0.5 for r in ratio_yx]),
            output_shape=(shape[0], shape[1]),
            order=order,
            mode="nearest",
        )

    made = taken(filled.astype(np.float32), 3)
    if masked.any():
        made[taken(masked.astype(np.float32), 1) > 0] = np.nan
    return made


def _ratio(run: Run, image: MicroscopeImage) -> tuple[float, float]:
    trained, own = _sizes(run, image)
    if trained is None or own is None:
        which = image.name if own is None else f"that {run.image.name} was trained with"
        raise InputError(f"Resampling needs both pixel sizes, and the one of {which} is not known.")
    return own[0] / trained[0], own[1] / trained[1]


def _sizes(
    run: Run, image: MicroscopeImage
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Pixel sizes [nm] that the model was trained with, and of an image."""
    trained = (run.trained_on or run.image).pixel_size_nm
    return trained, image.calibration.pixel_size_nm if image.calibration else None


def size_notes(run: Run, image: MicroscopeImage) -> list[str]:
    """Say where the pixels of an image are not those that a model was trained with.

    Parameters
    ----------
    run : Run
        Of the model.
    image : MicroscopeImage

    Returns
    -------
    list of str
        Sentences; none where the sizes are the same, or one is not known.
    """
    trained, own = _sizes(run, image)
    if trained is None or own is None:
        return []
    if np.allclose(own, trained, rtol=SAME_SIZE, atol=0):
        return []
    note = (
        f"The pixels of {image.name} are {own[0]:.4g} x {own[1]:.4g} nm and the model was trained "
        f"with {trained[0]:.4g} x {trained[1]:.4g} nm: resample the image to these."
    )
    return [note]


def _places(run: Run, pixels: Pixels) -> Floats:
    if run.config.sampling == "atoms":
        found = find_atoms(
            pixels,
            separation_px=run.separation_px,
            threshold=run.config.threshold,
            dark=run.config.dark,
        )
        return found.positions_yx
    template = run.model.template.reshape(-1, *run.model.config.window)[0].cpu().numpy()
    if min(pixels.shape) <= len(template):
        return np.zeros((0, 2))
    filled = np.where(np.isfinite(pixels), pixels, np.nanmedian(pixels))
    score = np.pad(match_template(filled, template), 1)  # a rim, for maxima at the border
    corner, height = find_maxima(score, reach=max(1, int(0.35 * run.separation_px)))
    like = Similar(
        positions_yx=np.asarray(corner - 1 + (len(template) - 1) / 2, dtype=np.float64),
        score=height.clip(0, 1),
        at_border=np.zeros(len(height), dtype=bool),
        template=template,
        separation_px=run.separation_px,
    )
    return choose_similar(like)


def _patches(
    run: Run, pixels: Pixels, picks: Floats, name: str, *, own_intensity: bool
) -> tuple[Patches, list[str]]:
    """Patches with the intensities of the run, and what is to be said of these."""
    size = run.model.config.patch_size_px
    patches = extract_patches(pixels, picks, size, normalisation=run.config.normalisation)
    if run.intensity is None or own_intensity:
        return patches, []
    offset, scale = run.intensity
    contrast = float(patches.scale[0]) / scale
    mean = (float(patches.offset[0]) - offset) / scale
    notes: list[str] = []
    if not 1 / SAME_CONTRAST < contrast < SAME_CONTRAST or abs(mean) > SAME_MEAN:
        note = (
            f"The intensities of {name} are not those that the model was trained on ({contrast:.3g}"
            f" times the contrast, mean {mean:+.2g} contrasts off): take the image's own unless "
            "the difference is real."
        )
        notes.append(note)
    count = len(patches)
    return replace(
        patches,
        offset=np.full(count, offset, dtype=np.float32),
        scale=np.full(count, scale, dtype=np.float32),
    ), notes


def _back(made: Run, image: MicroscopeImage, ratio_yx: tuple[float, float]) -> pd.DataFrame:
    """Table of atoms in pixels of the image as it was before it was resampled."""
    table = made.atoms.drop(columns=[name for name in made.atoms if str(name).endswith("_nm")])
    for axis, ratio in zip("yx", ratio_yx, strict=True):
        for name in (f"{axis}_px", f"atom_{axis}_px"):
            table[name] = (table[name] + 0.5) / ratio - 0.5
        lengths = ("shift_{}", "shift_{}_sd", "atom_{}_sd")
        polar = ("polar_{}", "polar_{}_sd", "polar_{}_shared_sd")
        for name in (*lengths, *polar):
            table[f"{name.format(axis)}_px"] /= ratio
    aside = table.pop("set_aside")
    return with_nm(table, image.calibration).assign(set_aside=aside)
