"""What the dock has done with spectra in a thread. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_shiftvae.jobs import config_for
from napari_shiftvae.settings import FindSettings

if TYPE_CHECKING:
    from pathlib import Path

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.spectra_run import SpectraRun
    from napari_shiftvae.settings import TrainSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which spectra to analyse and how; the fields are those of `analyse_spectra`.

    The run is saved in `folder`, or in the default one.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """An analysis, and the file that it was saved to; None where that was not possible."""

    run: SpectraRun
    saved: Path | None


def analysis(order: Order) -> Generator[Progress, str | None, Finished]:
    """Analyse the spectra of a scan, and save what comes of it."""
    from napari_shiftvae.core.checkpoint import Autosave, save_at_end
    from napari_shiftvae.core.spectra_run import analyse_spectra

    config = config_for(FindSettings(), order.train, device=order.device)
    run = yield from analyse_spectra(
        order.cube,
        order.axis,
        config,
        axis_scale=order.axis_scale,
        axis_unit=order.axis_unit,
        name=order.name,
        path=order.path,
    )
    return Finished(run=run, saved=save_at_end(run, Autosave.of(order.name, order.folder)))
