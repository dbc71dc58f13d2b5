"""Runs analyses for the dock: start, stop, resume, progress, end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from napari.utils.notifications import notification_manager, show_warning
from qtpy.QtCore import QObject, Signal

from napari_shiftvae import jobs
from napari_shiftvae.picks import Picks
from napari_shiftvae.widgets.activity import ActivityBar
from napari_shiftvae.widgets.pace import Pace, hold_still
from napari_shiftvae.widgets.turns import Turns
from napari_shiftvae.widgets.worker import Runner, one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from qtpy.QtWidgets import QWidget

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.session import Session

# Where each stage begins and ends on the progress bar.
STAGES = {
    "find": (0.0, 0.05),
    "align": (0.05, 0.12),
    "train": (0.12, 0.9),
    "refine": (0.9, 0.98),
    "fields": (0.98, 1.0),
}


class Training(QObject):
    """The analysis that is at work, if any.

    `progressed` comes as often as what it changes can be painted, not for each progress.
    """

    progressed = Signal(object)  # Progress
    fraction_changed = Signal(float)
    ended = Signal()

    def __init__(self, session: Session, overlay: Overlay, parent: QWidget) -> None:
        super().__init__(parent)
        self._session = session
        self._overlay = overlay
        self._runner = Runner(self)
        self._checkpoints = one_thread("writing checkpoints")
        self._pace = Pace(self._show, parent)
        self._preparing = Turns(self)
        self._turns = Turns(self)
        self._turns.ended.connect(self._on_concluded)
        self._bar = ActivityBar(self)
        self._bar.cancelled.connect(self.cancel)
        self._bar.made.connect(lambda: hold_still(parent.window()))
        self._fraction = 0.0
        self.device = ""
        self._finds = False
        self._taken: NDArray[np.float64] | None = None
        self._cancelled = False
        self._prepared = False  # the layers, for what is learned
        self._result: jobs.Finished | None = None
        self._order: jobs.Order | None = None
        # by the model: a run that says more of the same analysis has the same one
        self._orders: WeakKeyDictionary[object, jobs.Order] = WeakKeyDictionary()
        self._runner.progressed.connect(self._on_progress)
        self._runner.succeeded.connect(self._on_success)
        self._runner.refused.connect(self._on_refused)
        self._runner.failed.connect(self._on_failed)
        self._runner.ended.connect(self._on_ended)

    def start(self, order: jobs.Order) -> None:
        """Start an analysis; atoms are found first where the order holds none."""
        target = self._overlay.at_work.begin(order.picks or self._session.picks)
        self._result, self._order = None, order
        self._cancelled = self._prepared = False
        self._finds = order.picks is None and not len(self._session.picks)
        self._session.begin(keep_losses=order.resume is not None)
        self._session.say(f"Analysing '{target.name}' ...")
        self._fraction = 0.0
        self._bar.start(target.name)
        order = replace(order, executor=self._checkpoints)
        self._runner.start(f"shift-VAE analysis of '{target.name}'", jobs.analysis, order)

    def stop(self) -> None:
        """End training; results come from what was learned so far."""
        if self._runner.busy:
            self._session.activity = "stopping"
            self._session.say("Stopping; results come from what was learned so far.")
            self._runner.send("stop")

    def cancel(self) -> None:
        """End the analysis without a result."""
        if self._runner.busy:
            self._cancelled = True
            self._pace.forget()  # it would hide what is said now
            self._session.activity = "stopping"
            self._session.say("Cancelled; no result was kept.")
            self._runner.cancel()

    def order_of(self, run: Run) -> jobs.Order | None:
        """How a run was made, None where it was not made here."""
        return self._orders.get(run.model)

    def close(self) -> None:
        """End the thread before the dock goes."""
        self._runner.close()
        self._checkpoints.shutdown()
        self._bar.end()
        with suppress(RuntimeError):  # Qt may have deleted them before
            self._pace.forget()
        for turns in (self._preparing, self._turns):
            with suppress(RuntimeError):
                turns.forget()

    def _on_progress(self, progress: Progress | jobs.Started) -> None:
        if self._cancelled:
            return
        if isinstance(progress, jobs.Started):
            self.device = progress.device
            return
        for note in progress.notes:
            show_warning(note)
        self._take_positions(progress)
        self._session.take_progress(progress)
        begin, end = STAGES[progress.stage]
        self._fraction = begin + (end - begin) * progress.fraction
        self._bar.show(self._fraction)
        self._pace.offer(progress)

    def _show(self, progress: Progress) -> None:
        if progress.report is not None and not self._prepared:
            self._prepared = True  # layers of an earlier run stay until there is something newer
            self._preparing.start(self._overlay.at_work.prepare())
        self._overlay.at_work.recolour(progress)
        self.progressed.emit(progress)
        self.fraction_changed.emit(self._fraction)  # a progress bar paints the window at once

    def _take_positions(self, progress: Progress) -> None:
        """Show the picks that the analysis makes, unless the user's are there."""
        positions, picks = progress.positions_yx, self._session.picks
        if positions is None or not len(positions) or not self._finds:
            return
        if positions is self._taken:  # since then the user may have edited them
            return
        self._taken = positions
        if not np.array_equal(positions, picks.positions_yx):
            found = Picks.of(positions, by_hand=False)
            separation_px = progress.separation_px
            self._session.change_picks(found, step="analysis", separation_px=separation_px)

    def _on_success(self, result: jobs.Finished) -> None:
        self._result = result

    def _on_refused(self, sentence: str) -> None:
        self._pace.forget()  # as in `cancel`
        self._session.say(sentence, wrong=True)
        show_warning(sentence)

    def _on_failed(self, error: Exception) -> None:
        self._pace.forget()
        self._session.say(f"The analysis failed: {error}", wrong=True)

    def _on_ended(self) -> None:
        self._preparing.finish()
        self._bar.end()
        self._pace.catch_up()
        self.fraction_changed.emit(0.0)
        result, self._result = self._result, None
        self._turns.start(self._concluding(result, self._session.key))

    def _concluding(self, result: jobs.Finished | None, key: object) -> Iterator[None]:
        replaced, missing = self._overlay.at_work.replaced, ""
        try:
            yield from self._overlay.at_work.end(None if result is None else result.run)
        except Exception as error:  # noqa: BLE001 - by napari, or whoever listens to its layers
            notification_manager.receive_error(type(error), error, error.__traceback__)
            missing = f" Not all layers of it could be made ({error}); save it in the Fields tab."
        if result is None:
            return
        yield
        run = result.run
        self._orders[run.model] = self._order
        self._session.finish(run, key)
        self._session.say(
            f"Done: {_what(run)}, {run.seconds['total']:.1f} s on {run.device}."
            + ("" if result.saved is None else f" Saved: {result.saved.name}")
            + (" The image was changed meanwhile: this is of it as it was." * replaced)
            + missing,
            wrong=bool(missing),
        )

    def _on_concluded(self) -> None:
        self._session.activity = "idle"
        self.ended.emit()


def _what(run: Run) -> str:
    """Say what was made."""
    used, all_of_them = int(run.used.sum()), len(run.atoms)
    used = f"{used}" if used == all_of_them else f"{used} of {all_of_them}"
    if run.trained_on is not None:
        return f"{used} atoms read with the model of '{run.trained_on.name}'"
    return f"{used} atoms, {run.epochs} epochs"
