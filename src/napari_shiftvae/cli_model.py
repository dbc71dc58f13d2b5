"""Options of ``napari-shiftvae run`` that say what the model is, and the analysis of spectra."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_shiftvae.core.errors import InputError, tell

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.core.spectra_run import SpectraRun

NM_PER_UNIT = {"nm": 1.0, "pm": 1e-3, "angstrom": 0.1}
DEVICES = ("auto", "cpu", "cuda", "mps")
ONLY_IMAGES = (*("positions", "count", "patch_size", "pixel_size", "labels", "condition"),)


def add_arguments(run: argparse.ArgumentParser) -> None:
    """Describe the options, the same for images and for sequences of them."""
    run.add_argument("--dark", action="store_true", help="atoms are darker than what is around")
    run.add_argument("--patch-size", type=int, metavar="PX")
    run.add_argument("--latent-dim", type=int, default=2, metavar="K")
    run.add_argument("--decoder", choices=("fourier", "coordinate"), default="fourier")
    run.add_argument(
        "--invariances",
        default="shift",
        metavar="NAMES",
        help="some of shift,rotation,scale, separated by commas, or none (default: shift)",
    )
    run.add_argument("--classes", type=int, default=0, metavar="C", help="learned with the model")
    run.add_argument(
        "--labels",
        metavar="COLUMN",
        help="of --positions: names of the classes of a few atoms, from which the others' are "
        "learned; empty for the others",
    )
    run.add_argument(
        "--condition",
        metavar="COLUMN",
        help="of --positions: a class of each atom, such as its sublattice, which has patterns "
        "and a cage of its own",
    )
    run.add_argument(
        "--smoothness", type=float, default=0.0, metavar="WEIGHT", help="of latents; 1 is a start"
    )
    run.add_argument(
        "--blur-walls", action="store_true", help="smoothness does not keep walls sharp"
    )
    run.add_argument(
        "--check-seed",
        action="store_true",
        help="train once more with the next seed and say how far the latents agree",
    )
    run.add_argument("--epochs", type=int, metavar="N")
    run.add_argument("--no-refine", action="store_true", help="read results off the encoder")
    run.add_argument("--pixel-size", type=float, metavar="VALUE", help="instead of the file's own")
    run.add_argument("--unit", choices=tuple(NM_PER_UNIT), help="of --pixel-size")
    run.add_argument("--seed", type=int, default=0, metavar="S")
    run.add_argument("--device", choices=DEVICES, default="auto")


def column(table: pd.DataFrame | None, name: str | None, option: str) -> NDArray[np.str_] | None:
    """Words (M,) in a column of the table of positions, "" where nothing is said."""
    if name is None:
        return None
    if table is None:
        raise InputError(f"{option} names a column of --positions: give both.")
    if name not in table:
        others = ", ".join(str(one) for one in table if one not in ("y_px", "x_px", "t"))
        raise InputError(
            f"The positions have no column {name}: {option} can be {others or 'none of theirs'}."
        )
    words = table[name].astype(object)
    return words.where(words.notna(), "").to_numpy().astype(str)


def config_from(options: argparse.Namespace, labels: NDArray[np.str_] | None) -> AnalysisConfig:
    """Put the options together."""
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.core.train import TrainConfig

    names = [name.strip() for name in options.invariances.split(",")]
    return AnalysisConfig(
        sampling=options.sampling,
        count=options.count,
        dark=options.dark,
        patch_size_px=options.patch_size,
        latent_dim=options.latent_dim,
        decoder=options.decoder,
        invariances=() if names == ["none"] else tuple(names),  # type: ignore[arg-type]
        classes=options.classes or (0 if labels is None else max(2, len(set(labels) - {""}))),
        train=TrainConfig(
            epochs=options.epochs,
            seed=options.seed,
            smoothness=options.smoothness,
            edge_preserving=not options.blur_walls,
        ),
        refine=not options.no_refine,
        device=options.device,
    )


def tell_missing(path: Path | None) -> None:
    """Tell of chunks that are not in a store of zarr: the analysis cannot know why they are NaN."""
    from napari_shiftvae.core.zarr_files import missing_sentence

    if lacking := missing_sentence(path):
        tell(lacking)


def spectra(
    options: argparse.Namespace, resume: SpectraRun | None
) -> Generator[Progress, str | None, SpectraRun]:
    """Analyse the spectra in a file, or go on with a training that was interrupted."""
    from napari_shiftvae.core.formats import read_signals
    from napari_shiftvae.core.spectra_run import analyse_spectra

    given = [name for name in ONLY_IMAGES if getattr(options, name) is not None]
    if given:
        raise InputError(
            f"--{given[0].replace('_', '-')} is for images: leave it out where there is --spectra."
        )
    if options.check_seed:
        raise InputError("--check-seed is for images: leave it out where there is --spectra.")
    if resume is not None and options.epochs not in {None, resume.config.train.epochs}:
        raise InputError(
            "Spectra are trained in two parts, as long as --epochs said at the beginning: leave it "
            "out where there is --resume."
        )
    config = config_from(options, None)
    if set(config.invariances) - {"shift"}:
        raise InputError("Spectra have no rotation and no scale: leave --invariances at shift.")
    signals = read_signals(options.image)
    tell_missing(options.image)
    deep = [signal for signal in signals if signal.data.ndim >= 2]
    if not deep:
        raise InputError(f"{options.image} holds no spectra: give a file of two or three axes.")
    signal = next((signal for signal in deep if signal.spectral), deep[0])
    there = -signal.data.ndim <= options.spectra < signal.data.ndim
    axis = signal.axes[options.spectra] if there else None
    return analyse_spectra(
        signal.data,
        options.spectra,
        config,
        axis_scale=(axis.scale or 1.0) if axis else 1.0,
        axis_unit=(axis.unit or "") if axis else "",
        name=options.image.stem,
        path=str(options.image.absolute()),
        resume=resume,
    )
