"""How far an analysis is, and how long its stages take."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.spectra_run import SpectraRun
    from napari_shiftvae.core.train import TrainReport

__all__ = ["Clock", "Progress", "Stage", "finish"]

Stage = Literal["find", "align", "train", "refine", "fields"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """Where an analysis stands.

    Attributes
    ----------
    stage : {"find", "align", "train", "refine", "fields"}
    fraction : float
        Done part of the stage, 0 to 1.
    message : str
        The same in words.
    positions_yx : (M, 2) array or None
        Picks [px], once there are any.
    separation_px : float or None
        Distance of neighbours that the analysis goes by [px], told with picks that it has found.
    index : (N,) int array or None
        Rows of the picks that have a patch; the rows of `report.latents`.
    report : TrainReport or None
        While training.
    hold : callable or None
        While training: copies what was learned so far, to be called before the next step. What it
        returns makes a run of the copy when it is called, in any thread.
    notes : tuple of str
        What the user should know before there is a result, in sentences.
    """

    stage: Stage
    fraction: float
    message: str
    positions_yx: NDArray[np.float64] | None = None
    separation_px: float | None = None
    index: NDArray[np.int64] | None = None
    report: TrainReport | None = None
    hold: Callable[[], Callable[[], Run | SpectraRun]] | None = None
    notes: tuple[str, ...] = ()

    @property
    def snapshot(self) -> Callable[[], Run | SpectraRun] | None:
        """While training: makes a run of what was learned so far, before the next step."""
        hold = self.hold
        if hold is None:
            return None

        def made() -> Run | SpectraRun:
            return hold()()

        return made


@dataclass(kw_only=True)
class Clock:
    """Seconds that each stage took, added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: Stage) -> Generator[None]:
        """Count the time inside for a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def total(self) -> None:
        """Add what all stages took together."""
        spent = [seconds for stage, seconds in self.seconds.items() if stage != "total"]
        self.seconds["total"] = sum(spent)


def finish(steps: Generator[Progress, str | None, Run]) -> Run:
    """Run an analysis to its end.

    Parameters
    ----------
    steps : generator
        From `analyse`.

    Returns
    -------
    Run
    """
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            run: Run = stop.value
            return run
