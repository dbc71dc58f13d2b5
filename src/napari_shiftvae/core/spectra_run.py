"""The path from a spectrum image to maps of latents and of a peak shift."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_shiftvae.core.computer import choose_device, peak_memory_mb, spare_one_core
from napari_shiftvae.core.diagnostics import (
    ACTIVE_NAT,
    Diagnostics,
    count_outliers,
    latent_in_words,
)
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gauge import fix_gauge, latent_information
from napari_shiftvae.core.images import checksum
from napari_shiftvae.core.infer import Fit, encode, refining
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.paused import check_paused
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.spectra import (
    Spectra,
    SpectraReading,
    extract_spectra,
    read_spectra,
    some_spectra,
    spread_of_lags,
    weighted,
)
from napari_shiftvae.core.spectra_training import SpectraTraining, train_spectra
from napari_shiftvae.core.spectrum import line_spectrum
from napari_shiftvae.core.train import FEWEST_PATCHES

MOST_SHOWN = 200  # spectra that a snapshot has results of


@dataclass(frozen=True, kw_only=True)
class CubeInfo:
    """Which array a run belongs to, and how its spectra lie in it.

    Attributes
    ----------
    name, path : str
        `path` is empty for arrays that were not read from a file.
    shape : tuple of int
    dtype, sha256 : str
    axis : int
        Of the spectra, not negative.
    axis_scale : float
        Step from point to point, in `axis_unit`; negative where the axis falls.
    axis_unit : str
        Empty where it is not known.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    axis: int
    axis_scale: float
    axis_unit: str

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Height and width of the scan [px]."""
        scan = [length for at, length in enumerate(self.shape) if at != self.axis]
        return (scan[0], scan[1]) if len(scan) == 2 else (1, scan[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class SpectraRun:
    """Everything one analysis of spectra made.

    Attributes
    ----------
    atoms : pandas.DataFrame
        One row per pixel of the scan, row by row: ``y_px, x_px, shift, shift_sd`` (in the axis'
        unit, from the mean shift), ``z1, z1_sd, ..., residual, set_aside``; NaN where the pixel
        was set aside, and why.
    model : ShiftVAE
    config : AnalysisConfig
    image : CubeInfo
    diagnostics : Diagnostics
    epochs : int
    device : str
    seconds : dict of str to float
    peak_memory_mb : float or None
    paused : dict of str to tensor or None
        State of a training that was not at its end, as a file holds it.
    """

    atoms: pd.DataFrame
    model: ShiftVAE
    config: AnalysisConfig
    image: CubeInfo
    diagnostics: Diagnostics
    epochs: int
    device: str
    seconds: dict[str, float]
    peak_memory_mb: float | None
    paused: dict[str, torch.Tensor] | None = None

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which pixels have a spectrum that was analysed, (H * W,)."""
        return (self.atoms["set_aside"] == "").to_numpy()

    @property
    def resumable(self) -> bool:
        """Whether its training was interrupted, and can go on."""
        return self.paused is not None

    @cached_property
    def maps(self) -> dict[str, NDArray[np.float32]]:
        """Maps (H, W) of ``shift`` (in the axis' unit) and ``z1 ...``, NaN where set aside."""
        names = ["shift", *(f"z{k}" for k in range(1, self.model.config.latent_dim + 1))]
        return {
            name: self.atoms[name].to_numpy(np.float32).reshape(self.image.grid_shape)
            for name in names
        }


def analyse_spectra(
    cube: Any,
    axis: int,
    config: AnalysisConfig,
    *,
    axis_scale: float = 1.0,
    axis_unit: str = "",
    name: str = "spectra",
    path: str = "",
    resume: SpectraRun | None = None,
) -> Generator[Progress, str | None, SpectraRun]:
    """Train on the spectra of a scan and read latents and shifts.

    Send ``"stop"`` into the generator to end training at its next report and go on with what was
    learned; stop iterating to cancel.

    Parameters
    ----------
    cube : array
        Two axes of a scan and one of spectra, in any order, or one and one; numpy, dask or zarr.
    axis : int
        The axis of the spectra; negative counts from the end.
    config : AnalysisConfig
        `latent_dim`, `decoder`, `shift_prior_px` and `band_limit` (of points), `train`, `refine`
        and `device` are used; of `normalisation` only whether it is ``"patch"``.
    axis_scale : float
        Step of the axis from point to point, in `axis_unit`; may be negative.
    axis_unit : str
    name, path : str
        Where the array came from.
    resume : SpectraRun, optional
        One of the same spectra that was interrupted, as a checkpoint holds it: its training goes
        on, with its settings; of `config` only `refine` and `device` are used.

    Yields
    ------
    Progress

    Returns
    -------
    SpectraRun

    Raises
    ------
    InputError
        If the array or the settings do not allow the analysis.

    Examples
    --------
    >>> from napari_shiftvae.core.progress import finish
    >>> from napari_shiftvae.core.spectra_simulation import peak_spectra
    >>> from napari_shiftvae.core.train import TrainConfig
    >>> cube = peak_spectra(rng=np.random.default_rng(0), count=60).spectra.reshape(6, 10, 100)
    >>> steps = analyse_spectra(cube, -1, AnalysisConfig(train=TrainConfig(epochs=2)))
    >>> finish(steps).maps["shift"].shape
    (6, 10)
    """
    if not (np.isfinite(axis_scale) and axis_scale != 0):
        raise InputError(f"The step of the axis is {axis_scale}: give a number other than zero.")
    info = CubeInfo(
        name=name,
        path=path,
        shape=tuple(cube.shape),
        dtype=str(cube.dtype),
        sha256=checksum(cube),
        axis=axis % cube.ndim,
        axis_scale=axis_scale,
        axis_unit=axis_unit,
    )
    if resume is not None:
        config = _taken_up(config, resume, info)
    with spare_one_core():
        device = choose_device(config.device)
        began = time.perf_counter()
        yield Progress(stage="find", fraction=0.0, message="Reading spectra")
        spectra = extract_spectra(cube, axis, each=config.normalisation == "patch")
        if len(spectra) < FEWEST_PATCHES:
            raise InputError(
                f"There are {len(spectra)} spectra to learn from and the model needs at least "
                f"{FEWEST_PATCHES}: choose a larger scan."
            )
        band_limit, noise = line_spectrum(spectra.gather().numpy())
        spectra = weighted(spectra, noise)
        if resume is None:
            model = _new_model(spectra, config, band_limit).to(device)
            training = SpectraTraining.of(
                model, config.train, float(np.median(noise)), len(spectra)
            )
        else:
            training = _resumed(resume, len(spectra), device)
            model = training.model
        found = time.perf_counter()

        def concluded(model: ShiftVAE, spectra: Spectra, fit: Fit, own: NDArray[Any]) -> SpectraRun:
            """A run of some of the spectra, without what is known at its end only."""
            fit = fix_gauge(model, spectra, fit)
            reading = read_spectra(model, spectra, fit)
            unit = spectra.scale.astype(np.float64)
            now = time.perf_counter()
            return SpectraRun(
                atoms=_table(spectra, reading, axis_scale),
                model=model,
                config=replace(config, train=training.config),
                image=info,
                diagnostics=_diagnose(spectra, fit, reading, unit * own),
                epochs=training.epochs,
                device=str(device),
                seconds={"find": found - began, "total": now - began},
                peak_memory_mb=None,
            )

        def snapshot() -> SpectraRun:
            rows = np.linspace(0, len(spectra) - 1, min(len(spectra), MOST_SHOWN)).astype(int)
            some, learned = some_spectra(spectra, rows), copy.deepcopy(model).eval()
            made = concluded(learned, some, encode(learned, some), noise[rows])
            return replace(made, paused=training.paused())

        yield from train_spectra(training, spectra, snapshot)
        trained = time.perf_counter()
        fit = encode(model.eval(), spectra)
        if config.refine:
            fit = yield from refining(model, spectra, fit)
        run = concluded(model, spectra, fit, noise)
        spent = {"train": trained - found, "refine": time.perf_counter() - trained}
        return replace(run, seconds=run.seconds | spent, peak_memory_mb=peak_memory_mb())


def _new_model(spectra: Spectra, config: AnalysisConfig, band_limit: float) -> ShiftVAE:
    return ShiftVAE(
        ModelConfig(
            patch_size_px=spectra.values.shape[1],
            separation_px=spectra.values.shape[1] / 2,
            latent_dim=config.latent_dim,
            shift_prior_px=config.shift_prior_px or spread_of_lags(spectra),
            decoder=config.decoder,
            band_limit=config.band_limit or band_limit,
            dimensions=1,
        ),
        torch.Generator().manual_seed(config.train.seed),
    )


def _taken_up(config: AnalysisConfig, resume: SpectraRun, info: CubeInfo) -> AnalysisConfig:
    """Settings of a run that goes on, after a look at whether it is of the same spectra."""
    if (resume.image.sha256, resume.image.axis) != (info.sha256, info.axis):
        raise InputError(
            f"The run to go on with is of other spectra ({resume.image.name}, along axis "
            f"{resume.image.axis}): choose these, or start a new run."
        )
    return replace(resume.config, refine=config.refine, device=config.device)


def _resumed(resume: SpectraRun, count: int, device: torch.device) -> SpectraTraining:
    paused = resume.paused
    if paused is None or not check_paused(paused, resume.model, count):
        raise InputError(
            "This run does not hold the state of a training that was interrupted: run the "
            "analysis anew."
        )
    return SpectraTraining.taken_up(
        resume.model, paused, resume.config.train, epochs=resume.epochs, device=device
    )


def _table(spectra: Spectra, reading: SpectraReading, axis_scale: float) -> pd.DataFrame:
    y, x = np.divmod(np.arange(len(spectra.set_aside)), spectra.grid_shape[1])
    columns: dict[str, NDArray[Any]] = {"y_px": y.astype(float), "x_px": x.astype(float)}
    values = {
        "shift": axis_scale * reading.shift_px,
        "shift_sd": abs(axis_scale) * reading.shift_sd_px,
    }
    for k in range(reading.z.shape[1]):
        values |= {f"z{k + 1}": reading.z[:, k], f"z{k + 1}_sd": reading.z_sd[:, k]}
    for name, column in (values | {"residual": reading.residual}).items():
        columns[name] = np.full(len(y), np.nan)
        columns[name][spectra.index] = column
    return pd.DataFrame(columns).assign(set_aside=spectra.set_aside.astype(object))


def _diagnose(
    spectra: Spectra, fit: Fit, reading: SpectraReading, noise: NDArray[np.float64]
) -> Diagnostics:
    kl = latent_information(fit).mean(dim=0).tolist()
    s = reading.shift_px / max(reading.shift_px.std(), 1e-12)
    design = np.column_stack([np.ones_like(s), s, s**2])
    left = reading.z - design @ np.linalg.lstsq(design, reading.z, rcond=None)[0]
    leakage = 1 - left.var(axis=0) / np.maximum(reading.z.var(axis=0), 1e-12)
    outliers = count_outliers(reading.residual)
    own = spectra.scale * reading.noise_sigma
    reasons, counts = np.unique(spectra.set_aside[spectra.set_aside != ""], return_counts=True)
    set_aside = dict(zip(reasons.tolist(), counts.tolist(), strict=True))
    sentences = [
        latent_in_words(k, z, sd, nat)
        for k, (z, sd, nat) in enumerate(zip(reading.z.T, reading.z_sd.T, kl, strict=True), start=1)
    ]
    if outliers:
        sentences.append(f"{outliers} spectra have a residual that stands out.")
    words = {"masked": "with NaN or infinite points", "constant": "without any variation"}
    sentences += [f"{n} spectra set aside, {words[why]}." for why, n in set_aside.items()]
    return Diagnostics(
        kl_latents=tuple(kl),
        active_latents=sum(nat > ACTIVE_NAT for nat in kl),
        leakage=tuple(leakage.tolist()),
        noise_sigma=float(np.median(own)),
        noise_sigma_independent=float(np.median(noise)),
        outliers=outliers,
        period_jumps=0,
        set_aside=set_aside,
        sentences=tuple(sentences),
    )
