"""What the dock has done with spectra in a thread. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_shiftvae.jobs import config_for
from napari_shiftvae.settings import FindSettings

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.spectra_run import SpectraRun
    from napari_shiftvae.settings import TrainSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which spectra to analyse and how; the fields are those of `analyse_spectra`.

    The run is saved in `folder`, or in the default one; `continues` is the checkpoint that `resume`
    is from. Checkpoints are written in `executor`, or, where that is None, between two steps.
    """

    cube: Any
    axis: int
    axis_scale: float
    axis_unit: str
    name: str
    path: str
    train: TrainSettings
    device: str
    folder: Path | None = None
    resume: SpectraRun | None = None
    continues: Path | None = None
    executor: Executor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """An analysis, and the file that it was saved to; None where that was not possible."""

    run: SpectraRun
    saved: Path | None


def analysis(order: Order) -> Generator[Progress, str | None, Finished]:
    """Analyse the spectra of a scan, and save what comes of it."""
    from napari_shiftvae.core.checkpoint import Autosave, autosaved
    from napari_shiftvae.core.spectra_run import analyse_spectra

    config = config_for(FindSettings(), order.train, device=order.device)
    steps = analyse_spectra(
        order.cube,
        order.axis,
        config,
        axis_scale=order.axis_scale,
        axis_unit=order.axis_unit,
        name=order.name,
        path=order.path,
        resume=order.resume,
    )
    where = Autosave.of(order.name, order.folder)
    run = yield from autosaved(steps, where, continues=order.continues, executor=order.executor)
    return Finished(run=run, saved=where.finished if where.finished.exists() else None)
