"""The commands ``encode``, ``export`` and ``sequence``, and ``run --resume``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_shiftvae.cli_model import add_arguments, column, config_from
from napari_shiftvae.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.frames import FramesDone, SequenceRun
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.core.spectra_run import SpectraRun


def add_encode(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``encode``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="whose model to use")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image or a stack of frames")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="RUN2",
        help="*.shiftvae; a folder for a stack",
    )
    parser.add_argument(
        "--positions",
        type=Path,
        metavar="CSV",
        help="atoms to use, with columns y_px,x_px, and t for a stack",
    )
    parser.add_argument(
        "--condition",
        metavar="COLUMN",
        help="of --positions: class of each atom, where the model has such; else the likeliest",
    )
    parser.add_argument(
        "--resample", action="store_true", help="to the pixel size the model was trained with"
    )
    parser.add_argument(
        "--own-intensity", action="store_true", help="normalise by the image's own contrast"
    )
    parser.add_argument("--pixel-size", type=float, metavar="VALUE", help="instead of the file's")
    parser.add_argument("--unit", choices=("nm", "pm", "angstrom"), help="of --pixel-size")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``export``."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder")
    parser.add_argument(
        "--image", type=Path, metavar="IMAGE", help="where it is no longer where it was"
    )


def add_sequence(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``sequence``."""
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a stack of frames, or many images"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder")
    parser.add_argument(
        "--positions", type=Path, metavar="CSV", help="atoms to use, with columns t,y_px,x_px"
    )
    parser.add_argument("--share", type=float, default=0.25, help="of the frames to learn from")
    parser.add_argument("--separation", type=float, metavar="PX", help="of neighbouring atoms")
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.set_defaults(sampling="atoms", count=None)


def sequence(
    options: argparse.Namespace, first: MicroscopeImage
) -> Generator[Progress | FramesDone, str | None, SequenceRun]:
    """Steps of analysing a stack or many images; `first` is the first of these."""
    from napari_shiftvae.core.sequence import analyse_sequence

    if len(options.images) > 1:
        frames: Any = _Files(options.images)
    else:
        frames = first.data if first.data.ndim == 3 else first.data[None]
    table = _positions_in_frames(options.positions)
    labels = column(table, options.labels, "--labels")
    config = config_from(options, labels)
    return analyse_sequence(
        frames,
        replace(config, separation_px=options.separation),
        options.output,
        positions_tyx=None if table is None else table[["t", "y_px", "x_px"]].to_numpy(),
        given=column(table, options.condition, "--condition"),
        labels=labels,
        share=options.share,
        check_seed=options.check_seed,
        calibration=first.calibration,
    )


def _positions_in_frames(path: Path | None) -> pd.DataFrame | None:
    from napari_shiftvae.core.positions import read_positions

    if path is None:
        return None
    table = read_positions(path)
    if "t" not in table:
        raise InputError(f"{path} has no column t: give the frame of each position, from 0.")
    return table


@dataclass(frozen=True)
class _Files:
    """Images read when they are asked for."""

    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[Any]:
        from napari_shiftvae.core.images import read_image

        return read_image(self.paths[index]).data


def encoding(
    options: argparse.Namespace, image: MicroscopeImage
) -> Generator[Progress, str | None, Run]:
    """Steps of applying a run's model to another image."""
    from napari_shiftvae.core.apply import encode_image
    from napari_shiftvae.core.positions import read_positions
    from napari_shiftvae.core.runfile import load_run

    run = load_run(options.run)
    table = None if options.positions is None else read_positions(options.positions)
    return encode_image(
        run,
        image,
        None if table is None else table[["y_px", "x_px"]].to_numpy(),
        given=column(table, options.condition, "--condition"),
        resample=options.resample,
        own_intensity=options.own_intensity,
        device=options.device,
    )


def encoding_frames(
    options: argparse.Namespace, stack: MicroscopeImage
) -> Generator[Progress | FramesDone, str | None, SequenceRun]:
    """Steps of applying a run's model to all frames of a stack."""
    from napari_shiftvae.core.frames import Reading, encode_sequence
    from napari_shiftvae.core.runfile import load_run

    if options.output.is_file() or options.output.suffix == ".shiftvae":
        raise InputError(
            f"{options.image} is a stack, whose results are files in a folder: name a folder for "
            "--output."
        )
    table = _positions_in_frames(options.positions)
    return encode_sequence(
        load_run(options.run),
        stack.data,
        options.output,
        positions_tyx=None if table is None else table[["t", "y_px", "x_px"]].to_numpy(),
        given=column(table, options.condition, "--condition"),
        reading=Reading(
            resample=options.resample,
            own_intensity=options.own_intensity,
            device=options.device,
        ),
        calibration=stack.calibration,
    )


def export(options: argparse.Namespace) -> list[Path]:
    """Write what a run holds as files that other programs read."""
    from napari_shiftvae.core.export import export_run
    from napari_shiftvae.core.runfile import load_run

    run = load_run(options.run)
    return export_run(run, image_of(run, options.image), options.output)


def image_of(run: Run, path: Path | None) -> MicroscopeImage | None:
    """Read the image of a run again, where it is still the same."""
    from napari_shiftvae.core.images import checksum, read_image

    where = path or (Path(run.image.path) if run.image.path else None)
    if where is None or (path is None and not where.exists()):
        return None
    image = read_image(where)
    if checksum(image.data) == run.image.sha256:
        return image
    if path is None:
        return None
    raise InputError(f"{path} is not the image of this run: give the one that was analysed.")


def to_resume(options: argparse.Namespace, checkpoint: Path) -> Run | SpectraRun | None:
    """Open the run that is to be trained on, None where a new one is to be made."""
    from napari_shiftvae.core.runfile import load_run, load_spectra

    if options.resume is None:
        if checkpoint.exists():
            raise InputError(
                f"{checkpoint} holds a run that was interrupted: go on with --resume {checkpoint}, "
                "or remove it to begin anew."
            )
        return None
    if options.positions is not None:
        raise InputError("--positions and --resume exclude each other: a run has its own.")
    return (load_run if options.spectra is None else load_spectra)(options.resume)


def going_on(options: argparse.Namespace, run: Run) -> AnalysisConfig:
    """Settings of a run that is trained on; its own count, but for those of the training."""
    epochs = options.epochs or run.config.train.epochs
    return replace(
        run.config,
        train=replace(run.config.train, epochs=epochs),
        refine=not options.no_refine,
        device=options.device,
    )
