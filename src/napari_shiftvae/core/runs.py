"""A run: everything one analysis made."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_shiftvae.core.diagnostics import Diagnostics
from napari_shiftvae.core.fields import pixel_maps
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.positions import with_nm
from napari_shiftvae.core.reading import Reading
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.stopping import Ending
from napari_shiftvae.core.train import TrainState

POLISHED = "decoder.net.4."  # the output layer of Fourier decoders, as `polish` changes it


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """Which image a run belongs to.

    Attributes
    ----------
    name, path : str
        `path` is absolute, and empty for images that were not read from a file.
    shape : tuple of int
        (H, W) [px].
    dtype, sha256 : str
        Type and checksum of the pixels as read.
    pixel_size_nm : tuple of float or None
        (y, x).
    """

    name: str
    path: str
    shape: tuple[int, int]
    dtype: str
    sha256: str
    pixel_size_nm: tuple[float, float] | None

    @classmethod
    def of(cls, image: MicroscopeImage) -> ImageInfo:
        """Describe an image."""
        height, width = image.data.shape
        return cls(
            name=image.name,
            path="" if image.path is None else str(image.path.absolute()),
            shape=(height, width),
            dtype=str(image.data.dtype),
            sha256=image.sha256,
            pixel_size_nm=image.calibration.pixel_size_nm if image.calibration else None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What is needed to train on.

    Attributes
    ----------
    model : ShiftVAE
    patches : Patches
    state : TrainState
    noise_sigma : float
        By the power spectrum, in normalised intensity.
    buffers : dict of str to tensor
        Noise variance, gauge and output layer of the model between two steps; what follows the
        training changes them.
    goals : tuple of int
        Epochs at which it was at its end before it was given more of them; 0 for as many as
        held-out patches asked for.
    """

    model: ShiftVAE
    patches: Patches
    state: TrainState
    noise_sigma: float
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    goals: tuple[int, ...] = ()

    def held(self) -> Training:
        """Keep the buffers as they are at this moment."""
        return replace(
            self, buffers={name: value.clone() for name, value in kept_buffers(self.model).items()}
        )

    def copied(self) -> Training:
        """Copy what training changes, as it was between two steps; the original stays."""
        model, state = copy.deepcopy((self.model, self.state))
        model.load_state_dict(self.buffers, strict=False)
        return replace(self, model=model, state=state)


def kept_buffers(model: ShiftVAE) -> dict[str, torch.Tensor]:
    """What follows the training changes: noise variance, gauge, and the polished output layer."""
    weights = {name for name, _ in model.named_parameters() if not name.startswith(POLISHED)}
    return {name: value for name, value in model.state_dict().items() if name not in weights}


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Everything one analysis made.

    Attributes
    ----------
    atoms : pandas.DataFrame
        One row per pick, columns of ``atoms.csv``; NaN where the pick has no patch, and why in
        the last column ``set_aside``.
    model : ShiftVAE
    config : AnalysisConfig
    image : ImageInfo
    diagnostics : Diagnostics
    epochs : int
        Epochs trained.
    device : str
    seconds : dict of str to float
        Time of each stage.
    peak_memory_mb : float or None
    intensity : tuple of float or None
        Offset and scale of all patches, in the image's unit; None where each has its own.
    trained_on : ImageInfo or None
        Image that the model comes from, where it is another one.
    training : Training or None
        Not kept in the file.
    paused : dict of str to tensor or None
        State of the training as a file holds it, from `paused.pause`.
    ending : Ending or None
        How long training was to be, where held-out patches decided on it.
    fit : Fit or None
        Posterior of every patch; not kept in the file.
    """

    atoms: pd.DataFrame
    model: ShiftVAE
    config: AnalysisConfig
    image: ImageInfo
    diagnostics: Diagnostics
    epochs: int
    device: str
    seconds: dict[str, float]
    peak_memory_mb: float | None
    intensity: tuple[float, float] | None = None
    trained_on: ImageInfo | None = None
    training: Training | None = None
    paused: dict[str, torch.Tensor] | None = None
    ending: Ending | None = None
    fit: Fit | None = None

    @property
    def picks_yx(self) -> NDArray[np.float64]:
        """Picks (M, 2), (y, x) [px]."""
        return self.atoms[["y_px", "x_px"]].to_numpy(dtype=np.float64)

    @property
    def atom_yx(self) -> NDArray[np.float64]:
        """Central atoms (M, 2), (y, x) [px]; NaN where there is none."""
        return self.atoms[["atom_y_px", "atom_x_px"]].to_numpy(dtype=np.float64)

    @property
    def polar_yx(self) -> NDArray[np.float64]:
        """Central atoms against the mean of their nearest neighbours (M, 2), (y, x) [px].

        NaN where the window does not hold all of these, and in a file of an earlier version.
        """
        there = self.atoms.reindex(columns=["polar_y_px", "polar_x_px"])
        return there.to_numpy(dtype=np.float64)

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which picks have a patch, (M,)."""
        return (self.atoms["set_aside"] == "").to_numpy()

    @property
    def separation_px(self) -> float:
        """Distance between neighbours [px]."""
        return self.model.config.separation_px

    @property
    def goals(self) -> tuple[int, ...]:
        """Epochs at which the training ended before it was given more; 0 for those of `ending`."""
        if self.training is not None:
            return self.training.goals
        kept = {} if self.paused is None else self.paused
        return tuple(kept["goals"].tolist()) if "goals" in kept else ()

    @property
    def resumable(self) -> bool:
        """Whether it can be trained on."""
        return self.training is not None or self.paused is not None

    @property
    def goal(self) -> int:
        """Epochs to train in all, as far as it is known."""
        if self.ending is not None and self.config.train.epochs is None:
            return self.ending.epochs
        return self.config.train.epochs_for(int(self.used.sum()))

    @property
    def finished(self) -> bool:
        """Whether training went to its end."""
        return self.epochs >= self.goal

    @cached_property
    def maps(self) -> dict[str, NDArray[np.float32]]:
        """Latent maps (H, W) on the image: every pixel has its nearest atom's, NaN outside."""
        names = [f"z{k}" for k in range(1, self.model.config.latent_dim + 1)]
        values = self.atoms.loc[self.used, names].to_numpy(dtype=np.float64)
        drawn = pixel_maps(self.picks_yx[self.used], values, self.image.shape, nearest=True)
        return dict(zip(names, drawn, strict=True))


def atoms_table(
    picks_yx: NDArray[np.float64],
    patches: Patches,
    reading: Reading,
    calibration: Calibration | None,
) -> pd.DataFrame:
    """Make the table of ``atoms.csv``.

    Parameters
    ----------
    picks_yx : (M, 2) array
        All picks [px].
    patches : Patches
        Of N of the picks.
    reading : Reading
        Of the same N.
    calibration : Calibration or None
        Adds a ``_nm`` twin of every length in pixels.

    Returns
    -------
    pandas.DataFrame
        M rows.
    """
    columns: dict[str, NDArray[Any]] = {"y_px": picks_yx[:, 0], "x_px": picks_yx[:, 1]}

    def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
        full = np.full(len(picks_yx), np.nan)
        full[patches.index] = values
        return full

    for name, values in (
        ("shift_{}_px", reading.shift_yx_px),
        ("shift_{}_sd_px", reading.shift_sd_yx_px),
        ("atom_{}_px", reading.atom_yx_px),
        ("atom_{}_sd_px", reading.atom_sd_yx_px),
        ("polar_{}_px", reading.polar_yx_px),
        ("polar_{}_sd_px", reading.polar_sd_yx_px),
        ("polar_{}_shared_sd_px", reading.polar_shared_sd_yx_px),
    ):
        for axis, column in zip("yx", values.T, strict=True):
            columns[name.format(axis)] = spread(column)
    for name in ("rotation_rad", "rotation_sd_rad", "scale", "scale_sd"):
        turn: NDArray[np.float64] | None = getattr(reading, name)
        if turn is not None:
            columns[name] = spread(turn)
    for k in range(reading.z.shape[1]):
        columns[f"z{k + 1}"] = spread(reading.z[:, k])
        columns[f"z{k + 1}_sd"] = spread(reading.z_sd[:, k])
    columns["residual"] = spread(reading.residual)
    table = with_nm(pd.DataFrame(columns), calibration)
    return table.assign(set_aside=patches.set_aside.astype(object))


class Summarised(Protocol):
    """What runs of images and of spectra have in common."""

    @property
    def used(self) -> NDArray[np.bool_]: ...  # noqa: D102
    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def diagnostics(self) -> Diagnostics: ...  # noqa: D102
    @property
    def seconds(self) -> dict[str, float]: ...  # noqa: D102
    @property
    def peak_memory_mb(self) -> float | None: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102


def summary(run: Summarised) -> dict[str, Any]:
    """Figures of a run, as the command line prints them.

    Parameters
    ----------
    run : Run or SpectraRun

    Returns
    -------
    dict
        ``n_patches, epochs, noise_sigma, active_latents, seconds, peak_memory_mb, device``.
    """
    stages = ("find", "align", "train", "refine", "fields", "total")
    return {
        "n_patches": int(run.used.sum()),
        "epochs": run.epochs,
        "noise_sigma": run.diagnostics.noise_sigma,
        "active_latents": run.diagnostics.active_latents,
        "seconds": {stage: round(run.seconds.get(stage, 0.0), 3) for stage in stages},
        "peak_memory_mb": run.peak_memory_mb,
        "device": run.device,
    }
