"""The command line: the same core calls as the dock, so the same numbers."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_shiftvae import __version__, cli_atoms, cli_model, cli_runs
from napari_shiftvae.core.errors import OUT_OF_MEMORY, InputError, is_out_of_memory

if TYPE_CHECKING:
    from napari_shiftvae.core.frames import SequenceRun
    from napari_shiftvae.core.images import Calibration, MicroscopeImage
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.spectra_run import SpectraRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        0, or 2 for bad input, with one line on standard error that says what to do.
    """
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            options.command(options)
    except InputError as error:
        print(f"napari-shiftvae: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"napari-shiftvae: {OUT_OF_MEMORY}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        left = str(error) or "nothing was written"
        print(f"napari-shiftvae: interrupted; {left}.", file=sys.stderr)
        return 130
    return 0


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"napari-shiftvae: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-shiftvae",
        description="Find order parameters in atomic-resolution images.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="analyse an image and write a run file")
    run.set_defaults(command=_run)
    run.add_argument("image", type=Path, metavar="IMAGE", help="TIFF, PNG, npy, zarr, dm3, sxm ...")
    run.add_argument("--output", type=Path, required=True, metavar="RUN", help="*.shiftvae")
    run.add_argument(
        "--positions", type=Path, metavar="CSV", help="atoms to use, with columns y_px,x_px"
    )
    run.add_argument("--sampling", choices=("atoms", "grid", "random"), default="atoms")
    run.add_argument("--count", type=int, metavar="N", help="windows for grid or random sampling")
    cli_model.add_arguments(run)
    run.add_argument(
        "--spectra",
        type=int,
        metavar="AXIS",
        help="one spectrum per pixel along this axis of the file, counted from 0",
    )
    run.add_argument(
        "--resume", type=Path, metavar="RUN", help="train on from a run file or a checkpoint"
    )
    run.add_argument("--json", action="store_true", help="end with one line of JSON")

    atoms = commands.add_parser("atoms", help="find, refine and sort atoms, and write a table")
    atoms.set_defaults(command=_atoms)
    cli_atoms.add_arguments(atoms)

    encode = commands.add_parser("encode", help="apply the model of a run to another image")
    encode.set_defaults(command=_encode)
    cli_runs.add_encode(encode)

    export = commands.add_parser("export", help="write tables, maps, figures and a script")
    export.set_defaults(command=_export)
    cli_runs.add_export(export)

    sequence = commands.add_parser("sequence", help="one model for a stack or for many images")
    sequence.set_defaults(command=_sequence)
    cli_runs.add_sequence(sequence)

    info = commands.add_parser("info", help="say what a run file holds")
    info.set_defaults(command=_info)
    info.add_argument("run", type=Path, metavar="RUN")

    simulate = commands.add_parser("simulate", help="make an image with known truth")
    simulate.set_defaults(command=_simulate)
    simulate.add_argument(
        "kind",
        choices=("perovskite", "graphene", "stm"),
        metavar="KIND",
        help="perovskite, graphene or stm",
    )
    simulate.add_argument("--output", type=Path, required=True, metavar="FILE", help="*.tif")
    simulate.add_argument("--seed", type=int, default=0, metavar="S")

    demo = commands.add_parser("demo", help="open napari on sample data with a finished analysis")
    demo.set_defaults(command=_demo)
    demo.add_argument("--screenshot", type=Path, metavar="PNG", help="write a picture and close")
    return parser


def _run(options: argparse.Namespace) -> None:
    from napari_shiftvae.core.checkpoint import checkpoint_beside, with_checkpoints

    _check_output(options.output)
    checkpoint = checkpoint_beside(options.output)
    resume: Any = cli_runs.to_resume(options, checkpoint)
    steps: Any
    if options.spectra is not None:
        steps = with_checkpoints(cli_model.spectra(options, resume), checkpoint)
    else:
        steps = _image_steps(options, resume, checkpoint)
    try:
        run = _with_progress(steps)
    except KeyboardInterrupt as error:
        steps.close()
        if checkpoint.exists():
            raise KeyboardInterrupt(f"go on with --resume {checkpoint}") from error
        raise
    _finish(run, options)
    checkpoint.unlink(missing_ok=True)


def _image_steps(
    options: argparse.Namespace, resume: Run | None, checkpoint: Path
) -> Generator[Progress, str | None, Run]:
    from napari_shiftvae.core.analyse import analyse
    from napari_shiftvae.core.checkpoint import with_checkpoints
    from napari_shiftvae.core.images import read_image
    from napari_shiftvae.core.positions import read_positions
    from napari_shiftvae.core.seeds import with_seed_check

    if options.positions is not None and options.sampling != "atoms":
        raise InputError(
            f"--positions and --sampling {options.sampling} exclude each other: leave one out."
        )
    image = _calibrated(read_image(options.image), options)
    table = None if options.positions is None else read_positions(options.positions)
    labels = cli_model.column(table, options.labels, "--labels")
    config = cli_model.config_from(options, labels)
    steps = analyse(
        image,
        config if resume is None else cli_runs.going_on(options, resume),
        positions_yx=None if table is None else table[["y_px", "x_px"]].to_numpy(),
        given=cli_model.column(table, options.condition, "--condition"),
        labels=labels,
        resume=resume,
    )
    steps = with_checkpoints(steps, checkpoint)
    return with_seed_check(steps, image) if options.check_seed else steps


def _finish(run: Run | SpectraRun, options: argparse.Namespace) -> None:
    from napari_shiftvae.core.runfile import save_run
    from napari_shiftvae.core.runs import summary

    path = save_run(run, options.output)
    for sentence in run.diagnostics.sentences:
        print(sentence)
    print(f"Wrote {path}")
    if options.json:
        print(json.dumps(summary(run)))


def _encode(options: argparse.Namespace) -> None:
    from napari_shiftvae.core.images import read_image

    image = _calibrated(read_image(options.image, stacks=True), options)
    if image.data.ndim == 3:
        _say_frames(_with_progress(cli_runs.encoding_frames(options, image)), options)
        return
    _check_output(options.output, options.run)
    _finish(_with_progress(cli_runs.encoding(options, image)), options)


def _export(options: argparse.Namespace) -> None:
    for path in cli_runs.export(options):
        print(f"Wrote {path}")


def _sequence(options: argparse.Namespace) -> None:
    from napari_shiftvae.core.images import read_image

    first = _calibrated(read_image(options.images[0], stacks=True), options)
    _say_frames(_with_progress(cli_runs.sequence(options, first)), options)


def _say_frames(made: SequenceRun, options: argparse.Namespace) -> None:
    for sentence in made.sentences:
        print(sentence)
    print(f"Wrote {made.count} atoms of {made.frames} frames to {made.table}")
    if options.json:
        print(json.dumps({"n_patches": made.count, "frames": made.frames}))


def _check_output(path: Path, *inputs: Path) -> None:
    """Refuse before hours of work what could not, or must not, be written after them."""
    whole = path.resolve()
    written = {whole, whole.parent / f"{whole.name}.shiftvae"}
    if any(one.resolve() in written for one in inputs):
        raise InputError(f"--output is {path}, which is read from: choose another name.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it, such as {path / 'run.shiftvae'}.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist: make it first.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"The folder {path.parent} may not be written to: choose another.")


def _with_progress(steps: Any) -> Any:
    """Run the analysis, keeping one line on a terminal up to date."""
    shown = sys.stderr.isatty()
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            if shown:
                print("\r\033[K", end="", file=sys.stderr)
            return stop.value
        if shown:
            print(f"\r\033[K{progress.message}", end="", file=sys.stderr, flush=True)


def _calibrated(image: MicroscopeImage, options: argparse.Namespace) -> MicroscopeImage:
    from dataclasses import replace

    cli_model.tell_missing(image.path)
    if (options.pixel_size is None) != (options.unit is None):
        raise InputError("--pixel-size and --unit go together, as in --pixel-size 15 --unit pm.")
    if options.pixel_size is None:
        return image
    size_nm = options.pixel_size * cli_model.NM_PER_UNIT[options.unit]
    return replace(image, calibration=_calibration(size_nm))


def _calibration(size_nm: float) -> Calibration:
    from napari_shiftvae.core.images import Calibration

    return Calibration(pixel_size_nm=(size_nm, size_nm))


def _atoms(options: argparse.Namespace) -> None:
    from napari_shiftvae.core.images import read_image

    _check_output(options.output, options.image)
    cli_atoms.atoms(options, _calibrated(read_image(options.image, stacks=True), options))


def _info(options: argparse.Namespace) -> None:
    from napari_shiftvae.core.runfile import holds_spectra, load_run, load_spectra

    run: Run | SpectraRun
    if holds_spectra(options.run):
        run = load_spectra(options.run)
        shape = " x ".join(str(length) for length in run.image.shape)
        print(f"spectra     {run.image.name}, {shape}, along axis {run.image.axis}")
        unit = run.image.axis_unit or "unit not known"
        print(f"axis        {run.image.axis_scale:.6g} a step ({unit})")
        print(f"pixels      {int(run.used.sum())} used of {len(run.atoms)}")
    else:
        run = load_run(options.run)
        size = run.image.pixel_size_nm
        print(f"image       {run.image.name}, {run.image.shape[0]} x {run.image.shape[1]} px")
        known = "not calibrated" if size is None else f"{size[0]:.6g} x {size[1]:.6g} nm"
        print(f"pixel size  {known}")
        print(f"atoms       {int(run.used.sum())} used of {len(run.atoms)} picked")
        patch = run.model.config.patch_size_px
        print(f"patch       {patch} px, spacing {run.separation_px:.2f} px")
    print(f"path        {run.image.path or 'not from a file'}")
    print(
        f"model       {run.model.config.latent_dim} latents, {run.model.config.decoder} decoder, "
        f"{run.epochs} epochs, seed {run.config.train.seed}"
    )
    print(f"noise       {run.diagnostics.noise_sigma:.6g} (unit of the data)")
    print(f"time        {run.seconds['total']:.1f} s on {run.device}")
    for sentence in run.diagnostics.sentences:
        print(sentence)


def _simulate(options: argparse.Namespace) -> None:
    import numpy as np
    import tifffile

    from napari_shiftvae.core.aside import written_aside
    from napari_shiftvae.core.positions import write_positions
    from napari_shiftvae.core.simulate import SIMULATIONS

    if options.output.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"--output is {options.output}: name a TIFF file, ending in .tif.")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}: choose zero or a positive number.")
    _check_output(options.output)
    made = SIMULATIONS[options.kind](rng=np.random.default_rng(options.seed))
    size_um = made.pixel_size_nm / 1000
    truth = options.output.with_name(options.output.name + ".truth.csv")
    metadata = {
        "axes": "YX",
        "PhysicalSizeX": size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": size_um,
        "PhysicalSizeYUnit": "µm",
    }
    written_aside(
        options.output,
        lambda file: tifffile.imwrite(file, made.image, ome=True, metadata=metadata),
    )
    write_positions(made.truth, truth)
    print(f"Wrote {options.output} and {truth}")


def _demo(options: argparse.Namespace) -> None:
    try:
        from napari_shiftvae.demo import demo
    except ImportError as error:
        raise InputError(
            f"napari is not complete here ({error}): pip install 'napari-shiftvae[all]'."
        ) from error
    demo(options.screenshot)


if __name__ == "__main__":
    sys.exit(main())
