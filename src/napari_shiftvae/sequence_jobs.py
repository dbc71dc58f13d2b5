"""What the dock has done with a stack of frames in a thread. No Qt, no layers."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage, checksum, read_pixels
from napari_shiftvae.jobs import (
    Started,
    calibration_in,
    config_for,
    known_classes,
    with_sublattices,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.frames import FramesDone, SequenceRun
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.jobs import Trained
    from napari_shiftvae.picks import Picks
    from napari_shiftvae.settings import FindSettings, TrainSettings

DRAW_AT_ONCE_BYTES = 2**28  # larger maps are drawn when their frame is shown


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which frames to analyse and how.

    Attributes
    ----------
    stack : MicroscopeImage
        Data (T, H, W).
    find : FindSettings
    train : TrainSettings
    device : str
    picks : Picks or None
        Atoms to analyse; they are found where None.
    share : float
        Of the frames to learn from.
    trained : Trained or None
        Model to read the frames with; nothing is trained then.
    folder : Path or None
        Where the tables go; one among the user's runs by default, the same for the same order.
    runs_folder : Path or None
        Where the user's runs are; the default folder where None.
    """

    stack: MicroscopeImage
    find: FindSettings
    train: TrainSettings
    device: str
    picks: Picks | None
    share: float
    folder: Path | None
    trained: Trained | None = None
    runs_folder: Path | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """An analysed sequence.

    Attributes
    ----------
    run : SequenceRun
    folder : Path
    maps : dict of str to array
        Of each latent (T, H, W), NaN where there are no atoms; lazy (dask) where they are large.
    """

    run: SequenceRun
    folder: Path
    maps: dict[str, Any]


def analysis(order: Order) -> Generator[Progress | FramesDone | Started, Any, Finished]:
    """Train on some frames, or take a trained model; read all, and have the maps drawn."""
    from napari_shiftvae.core.computer import choose_device

    stack = order.stack
    if stack.calibration is None and stack.path is not None:
        # the same as the command line knows, even if Run was pressed before the file was read
        stack = replace(stack, calibration=calibration_in(stack.path)[1])
    yield Started(device=str(choose_device(order.device)))
    steps, folder = _steps(replace(order, stack=stack))
    run = yield from steps
    return Finished(run=run, folder=folder, maps=maps(run, stack.data.shape))


def _steps(
    order: Order,
) -> tuple[Generator[Progress | FramesDone, str | None, SequenceRun], Path]:
    """The core's call, and the folder where the results go."""
    from napari_shiftvae.core.frames import Reading, encode_sequence, fingerprint
    from napari_shiftvae.core.sequence import analyse_sequence

    stack, picks, trained = order.stack, order.picks, order.trained
    positions = None if picks is None else picks.positions_tyx
    if trained is not None:
        reading = Reading(
            resample=trained.resample,
            own_intensity=trained.own_intensity,
            device=order.device,
        )
        given = known_classes(picks, trained.run)
        classes = None if given is None else given.tolist()
        folder = order.folder or _folder(order, (fingerprint(trained.run), reading, classes))
        return encode_sequence(
            trained.run,
            stack.data,
            folder,
            positions_tyx=positions,
            given=given,
            reading=reading,
            calibration=stack.calibration,
        ), folder
    config = config_for(order.find, order.train, device=order.device)
    config, told = with_sublattices(config, order.train, picks)
    said = [(name, values.tolist()) for name, values in told.items()]
    folder = order.folder or _folder(order, (config, order.share, order.train.check_seed, said))
    return analyse_sequence(
        stack.data,
        config,
        folder,
        positions_tyx=positions,
        share=order.share,
        check_seed=order.train.check_seed,
        calibration=stack.calibration,
        **told,
    ), folder


def _folder(order: Order, how: Any) -> Path:
    """Folder of its own for every sequence and all settings, so that each goes on where it was."""
    from napari_shiftvae.core.checkpoint import runs_folder

    stack = order.stack
    picks = None if order.picks is None else checksum(order.picks.positions_tyx)
    known = (how, stack.data.shape, checksum(read_pixels(stack.data, 0)), picks)
    plain = "".join(sign if sign.isalnum() or sign in " -_+" else "_" for sign in stack.name)
    digest = hashlib.sha256(repr(known).encode()).hexdigest()[:10]
    return (order.runs_folder or runs_folder()) / f"{plain.strip()[:80] or 'stack'} {digest}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One frame of an analysed stack, as the Explore and the Fields tab take it.

    Attributes
    ----------
    sequence : SequenceRun
    frame : int
    run : Run or None
        What was made of the frame; None where it has no atoms, of which `sentence` tells.
    image : MicroscopeImage
        The frame.
    sentence : str
    """

    sequence: SequenceRun
    frame: int
    run: Run | None
    image: MicroscopeImage
    sentence: str = ""


def shown(sequence: SequenceRun, stack: MicroscopeImage, frame: int) -> Shown:
    """Read one frame of a stack, and take what was made of it as a run."""
    from napari_shiftvae.core.frame_run import run_of_frame

    image = MicroscopeImage(
        data=read_pixels(stack.data, frame),
        name=f"{stack.name} frame {frame}",
        calibration=stack.calibration,
    )
    try:
        run = run_of_frame(sequence, frame, image)
    except InputError as error:
        return Shown(sequence=sequence, frame=frame, run=None, image=image, sentence=str(error))
    _ = run.maps  # drawn here rather than when they are shown
    return Shown(sequence=sequence, frame=frame, run=run, image=image)


def maps(run: SequenceRun, shape: tuple[int, ...]) -> dict[str, Any]:
    """Draw the latents of all frames.

    Parameters
    ----------
    run : SequenceRun
    shape : (int, int, int)
        Of the stack.

    Returns
    -------
    dict of str to array (T, H, W)
        A numpy array, or one of dask where all together would take more than 256 MiB.
    """
    latents = [f"z{k}" for k in range(1, run.run.model.config.latent_dim + 1)]
    tables = dict(list(run.atoms[run.atoms["set_aside"] == ""].groupby("t")))

    def drawn(frame: int) -> NDArray[np.float32]:
        from napari_shiftvae.core.fields import pixel_maps

        if frame not in tables:
            return np.full((len(latents), *shape[1:]), np.nan, dtype=np.float32)
        table = tables[frame]
        places, values = table[["y_px", "x_px"]].to_numpy(), table[latents].to_numpy()
        return pixel_maps(places, values, (shape[1], shape[2]), nearest=True)

    if 4 * len(latents) * int(np.prod(shape)) <= DRAW_AT_ONCE_BYTES:
        whole: Any = np.stack([drawn(frame) for frame in range(shape[0])])
    else:
        import dask
        import dask.array

        size = (len(latents), *shape[1:])
        frames = [dask.delayed(drawn)(frame) for frame in range(shape[0])]
        whole = dask.array.stack(
            [dask.array.from_delayed(frame, size, dtype=np.float32) for frame in frames]
        )
    return {name: whole[:, place] for place, name in enumerate(latents)}
