"""The commands that take a run file: ``encode`` and ``export``, and ``run --resume``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_shiftvae.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_shiftvae.core.analyse import Progress
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run


def add_encode(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``encode``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="whose model to use")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN2", help="*.shiftvae")
    parser.add_argument(
        "--positions", type=Path, metavar="CSV", help="atoms to use, with columns y_px,x_px"
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


def encoding(
    options: argparse.Namespace, image: MicroscopeImage
) -> Generator[Progress, str | None, Run]:
    """Steps of applying a run's model to another image."""
    from napari_shiftvae.core.apply import encode_image
    from napari_shiftvae.core.positions import read_positions
    from napari_shiftvae.core.runfile import load_run

    run = load_run(options.run)
    positions = None
    if options.positions is not None:
        positions = read_positions(options.positions)[["y_px", "x_px"]].to_numpy()
    return encode_image(
        run,
        image,
        positions,
        resample=options.resample,
        own_intensity=options.own_intensity,
        device=options.device,
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


def to_resume(options: argparse.Namespace, checkpoint: Path) -> Run | None:
    """Open the run that is to be trained on; its settings count, but for those of the training."""
    from napari_shiftvae.core.runfile import load_run

    if options.resume is None:
        if checkpoint.exists():
            raise InputError(
                f"{checkpoint} holds a run that was interrupted: go on with --resume {checkpoint}, "
                "or remove it to begin anew."
            )
        return None
    if options.positions is not None:
        raise InputError("--positions and --resume exclude each other: a run has its own.")
    run = load_run(options.resume)
    epochs = options.epochs or run.config.train.epochs
    config = replace(
        run.config,
        train=replace(run.config.train, epochs=epochs),
        refine=not options.no_refine,
        device=options.device,
    )
    return replace(run, config=config)
