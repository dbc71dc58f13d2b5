"""One frame of a sequence as a run of its own, for what is done with the run of an image."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from napari_shiftvae.core.diagnostics import count_outliers
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.frames import SequenceRun
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runs import ImageInfo, Run

__all__ = ["run_of_frame"]


def run_of_frame(sequence: SequenceRun, index: int, image: MicroscopeImage) -> Run:
    """Take what was made of one frame as a run, to work out fields, classes or figures of it.

    Parameters
    ----------
    sequence : SequenceRun
    index : int
        Of the frame.
    image : MicroscopeImage
        The frame.

    Returns
    -------
    Run
        With the model of the sequence; it cannot be trained on.

    Raises
    ------
    InputError
        If the frame has no atoms.

    Examples
    --------
    >>> frame = MicroscopeImage(data=stack[7], name="frame 7")  # doctest: +SKIP
    >>> run = run_of_frame(made, 7, frame)  # doctest: +SKIP
    """
    atoms = sequence.atoms
    atoms = atoms[atoms["t"] == index].drop(columns="t").reset_index(drop=True)
    used = (atoms["set_aside"] == "").to_numpy()
    if not used.any():
        raise InputError(f"Frame {index} has no atoms that were read: choose another one.")
    run = sequence.run
    diagnostics = replace(
        run.diagnostics,
        outliers=count_outliers(atoms["residual"].to_numpy(dtype=np.float64)[used]),
        sentences=sequence.findings,
    )
    return replace(
        run,
        atoms=atoms,
        model=copy.deepcopy(run.model),  # runs are told apart by their models
        image=ImageInfo.of(image),
        diagnostics=diagnostics,
        trained_on=run.trained_on or run.image,
        training=None,
        paused=None,
        fit=None,
    )
