"""The state of one analysis in the viewer: picks, settings, progress, result. No Qt, no layers.

Panels and layers listen to a `Session` and never to each other, so that all of what the dock does
can be tested without a window.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from psygnal import Signal

from napari_shiftvae.picks import SUBLATTICE, Picks

if TYPE_CHECKING:
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run

Activity = Literal["idle", "finding", "running", "stopping"]
UNDO_STEPS = 200
UNDO_ROWS = 2_000_000  # in all steps together: bounds the memory they take
# Of sublattices; none near the colour of atoms that are set aside.
COLOURS = ("#00e5ff", "#ff9f1c", "#7bf1a8", "#b388ff", "#ffe45e", "#4d8dff", "#ffffff", "#c8a27a")


@dataclass(kw_only=True)
class _Analysis:
    """What belongs to one image and waits while another one is chosen."""

    picks: Picks = field(default_factory=Picks.none)
    undo: list[Picks] = field(default_factory=list)
    redo: list[Picks] = field(default_factory=list)
    # while it stays the same, changes make one step for undo (a slider being dragged)
    step: str = ""
    separation_px: float | None = None
    colours: dict[str, str] = field(default_factory=dict)  # of sublattices
    run: Run | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One point of the training curve.

    Attributes
    ----------
    step, epoch : int
        Finished steps and epochs.
    reconstruction : float
        Root mean square residual over the standard deviation of the patches.
    kl : float
        Kullback-Leibler terms of shift and latents together, per patch [nat].
    """

    step: int
    epoch: int
    reconstruction: float
    kl: float


class Session:
    """State of the analysis of the chosen image.

    Signals
    -------
    image_changed
        Another image was chosen (or none).
    picks_changed
        The picks are others than before.
    colours_changed
        A sublattice has another colour.
    activity_changed
        ``"idle"``, ``"finding"``, ``"running"`` or ``"stopping"``.
    progressed
        A `Progress` of the analysis at work.
    run_changed
        A `Run` was finished, restored or, with None, there is none for this image.
    said
        A sentence for the user, and whether it is about something wrong.
    """

    image_changed = Signal()
    picks_changed = Signal(Picks)
    colours_changed = Signal()
    activity_changed = Signal(str)
    progressed = Signal(object)
    run_changed = Signal(object)
    said = Signal(str, bool)

    def __init__(self) -> None:
        self._shelf: dict[Hashable, _Analysis] = {}
        self._now = _Analysis()
        self._key: Hashable = None
        self._activity: Activity = "idle"
        self.losses: list[Loss] = []
        self.last_progress: Progress | None = None

    # -- image ---------------------------------------------------------------------------------

    @property
    def key(self) -> Hashable:
        """What the chosen image is known by, None where there is none."""
        return self._key

    def choose(self, key: Hashable) -> None:
        """Turn to an image; its picks and its run are as they were left."""
        if key == self._key:
            return
        self._key = key
        self._now = _Analysis() if key is None else self._shelf.setdefault(key, _Analysis())
        self.image_changed.emit()
        self.picks_changed.emit(self.picks)
        self.run_changed.emit(self.run)

    def keys(self) -> set[Hashable]:
        """Return what the images are known by of which anything is known."""
        return set(self._shelf)

    def forget(self, key: Hashable) -> None:
        """Drop all that is known about an image that is gone."""
        self._shelf.pop(key, None)
        if key == self._key:
            self.choose(None)

    # -- picks ---------------------------------------------------------------------------------

    @property
    def picks(self) -> Picks:
        """The picks as they are now."""
        return self._now.picks

    @property
    def separation_px(self) -> float | None:
        """Distance between neighbouring atoms in pixels, as last estimated or typed."""
        return self._now.separation_px

    def change_picks(
        self, picks: Picks, *, step: str = "", separation_px: float | None = None
    ) -> None:
        """Replace the picks, undoably; changes that share a named step are undone together.

        With the distance of neighbours [px] where they were found by one.
        """
        now = self._now
        now.separation_px = separation_px or now.separation_px
        if not step or step != now.step:
            now.undo = _latest([*now.undo, now.picks])
        now.step = step
        now.redo = []
        now.picks = picks
        self.picks_changed.emit(picks)

    def put_found(
        self,
        found: Picks,
        separation_px: float,
        *,
        frame: int | None = None,
        step: str = "find",
    ) -> None:
        """Take over what an automatic step found, in one frame or all, beside picks by hand."""
        picks = self.picks.with_found(found, separation_px / 2, frame)
        self.change_picks(picks, step=step, separation_px=separation_px)

    def in_step(self, step: str) -> bool:
        """Whether the last change belongs to a named step."""
        return step == self._now.step

    def begin_step(self, step: str) -> Picks:
        """Return the picks that changes of a named step start from, each anew."""
        return self._now.undo[-1] if self.in_step(step) else self.picks

    def end_step(self) -> None:
        """Let the next change be a step of its own for undo."""
        self._now.step = ""

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._now.undo)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to make again."""
        return bool(self._now.redo)

    def undo(self) -> None:
        """Take back the last change of the picks."""
        if self.can_undo:
            self._now.redo.append(self.picks)
            self._restore(self._now.undo.pop())

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        if self.can_redo:
            self._now.undo.append(self.picks)
            self._restore(self._now.redo.pop())

    def _restore(self, picks: Picks) -> None:
        self._now.picks = picks
        self._now.step = ""
        self.picks_changed.emit(picks)

    # -- sublattices ---------------------------------------------------------------------------

    def colour_of(self, sublattice: str) -> str:
        """Colour of a sublattice, as ``#rrggbb``; the first colour for atoms in none."""
        if sublattice in self._now.colours:
            return self._now.colours[sublattice]
        names = self.picks.sublattices
        place = names.index(sublattice) if sublattice in names else 0
        return COLOURS[place % len(COLOURS)]

    def set_colour(self, sublattice: str, colour: str) -> None:
        """Give a sublattice a colour."""
        self._now.colours[sublattice] = colour
        self.colours_changed.emit()

    def rename(self, sublattice: str, name: str) -> None:
        """Give a sublattice another name, undoably; one that exists takes its atoms in."""
        names = self.picks.sublattice
        colour = self.colour_of(sublattice)
        if name not in self.picks.sublattices:
            self._now.colours[name] = colour
        column = np.where(names == sublattice, name, names)
        self.change_picks(self.picks.with_measured(pd.DataFrame({SUBLATTICE: column})))

    # -- analysis ------------------------------------------------------------------------------

    @property
    def activity(self) -> Activity:
        """What is being done at the moment."""
        return self._activity

    @activity.setter
    def activity(self, activity: Activity) -> None:
        if activity != self._activity:
            self._activity = activity
            self.activity_changed.emit(activity)

    @property
    def run(self) -> Run | None:
        """The last finished analysis of the chosen image."""
        return self._now.run

    def begin(self, *, keep_losses: bool = False) -> None:
        """Get ready for a new analysis; a resumed one continues its curve."""
        if not keep_losses:
            self.losses = []
        self.last_progress = None
        self.activity = "running"

    def take_progress(self, progress: Progress) -> None:
        """Note how far the analysis is."""
        report = progress.report
        if report is not None:
            kl = float(report.kl_shift + np.sum(report.kl_latents))
            self.losses.append(
                Loss(
                    step=report.step,
                    epoch=report.epoch,
                    reconstruction=float(report.reconstruction),
                    kl=kl,
                )
            )
        self.last_progress = progress
        self.progressed.emit(progress)

    def finish(self, run: Run, key: Hashable) -> None:
        """Keep the result with the image it belongs to, which need not be the chosen one."""
        if key == self._key:
            self._now.run = run
            self.run_changed.emit(run)
        elif key in self._shelf:
            self._shelf[key] = replace(self._shelf[key], run=run)

    def replace_run(self, run: Run | None) -> None:
        """Take another run of the same analysis: one that says more, or that of another frame."""
        self._now.run = run
        self.run_changed.emit(run)

    def say(self, sentence: str, *, wrong: bool = False) -> None:
        """Tell the user something, in one sentence."""
        self.said.emit(sentence, wrong)


def _latest(steps: list[Picks]) -> list[Picks]:
    """Return the last steps, as many as may be kept; the last one always."""
    rows = np.cumsum([len(picks) for picks in reversed(steps)])
    many = int(np.searchsorted(rows, UNDO_ROWS, side="right"))
    return steps[-max(1, min(many, UNDO_STEPS)) :]
