"""Makes, names and compares classes of atoms for the Explore tab."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_shiftvae import explore_jobs
from napari_shiftvae.colouring import class_colour, class_names
from napari_shiftvae.layers import CLASS
from napari_shiftvae.picks import SUBLATTICE
from napari_shiftvae.widgets.classes_box import ClassRow
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.model import ShiftVAE
    from napari_shiftvae.core.patches import Patches
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.script_results import Classes
    from napari_shiftvae.explore_jobs import ClassOrder
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.explore_panel import ExplorePanel


class ClassesControl(QObject):
    """Connects the part on classes with a run and its layers.

    Parameters
    ----------
    panel : ExplorePanel
    overlay : Overlay
    patches_of : callable
        Gives the patches of a run, None where its image is not there.
    selected : callable
        Gives the rows of the atoms that are selected.
    """

    chosen = Signal(object)  # rows of a class

    def __init__(
        self,
        panel: ExplorePanel,
        overlay: Overlay,
        patches_of: Callable[[Run], Patches | None],
        selected: Callable[[], list[int]],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._box = panel.classes
        self._overlay = overlay
        self._session = overlay.session
        self._patches_of = patches_of
        self._selected = selected
        self._compared: tuple[object, Any] | None = None  # atoms and the comparison shown of them
        self._recipes: WeakKeyDictionary[ShiftVAE, Classes] = WeakKeyDictionary()
        self._runner = Runner(self)
        box = self._box
        self._runner.disable_meanwhile(box.find, box.assign, box.clear)
        box.asked.connect(self._on_asked)
        box.assign_asked.connect(self._on_assign)
        box.clear_asked.connect(self._on_clear)
        box.row_chosen.connect(self._on_row)
        box.renamed.connect(self._on_renamed)
        box.use_asked.connect(self._on_use)
        self._runner.succeeded.connect(self._on_classified)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(lambda error: self._refuse(f"Finding classes failed: {error}"))

    def close(self) -> None:
        """End the thread."""
        self._runner.close()

    def show_run(self, run: Run | None) -> None:
        """Compare the classes of a run, where it has any."""
        if run is None or CLASS not in run.atoms:
            self._compared = None
            self._box.show_classes([], [])
            self._box.say("")
        elif self._compared is None or self._compared[0] is not run.atoms:
            self._start(run, explore_jobs.described, "")  # opened from a file, or another image's

    # -- what is asked for ---------------------------------------------------------------------

    def _on_asked(self, order: ClassOrder) -> None:
        from napari_shiftvae.core.script_results import Classes

        run = self._session.run
        if run is None:
            return
        latents = [f"z{k}" for k in range(1, run.model.config.latent_dim + 1)]
        columns = list(dict.fromkeys(self._panel.axes())) if order.by_axes else latents
        values = self._panel.table[columns].to_numpy(dtype=float)
        self._start(run, explore_jobs.classify, values, order)
        self._recipes[run.model] = Classes(
            columns=columns,
            method=order.method,
            criterion=order.criterion,
            count=order.count,
            seed=run.config.train.seed,
            split=order.split,
        )

    def recipe(self, run: Run) -> Classes | None:
        """How the classes of a run were found; None where there are none, or some are by hand."""
        return self._recipes.get(run.model) if CLASS in run.atoms else None

    def _on_assign(self, name: str) -> None:
        run, rows = self._session.run, self._selected()
        if not rows:
            self._refuse("No atom is selected: draw around some dots or atoms first.")
        elif run is not None:
            self._recipes.pop(run.model, None)
            self._start(run, explore_jobs.add_class, rows, name)

    def _on_clear(self) -> None:
        run = self._session.run
        if run is not None and CLASS in run.atoms:
            bare = explore_jobs.with_classes(run, np.full(len(run.atoms), -1), {})
            self._replace(bare)

    def _on_renamed(self, number: int, name: str) -> None:
        run = self._session.run
        if run is None or CLASS not in run.atoms:
            return
        names = class_names(run.atoms)
        if name in {other for each, other in names.items() if each != number}:
            self._refuse(f"Another class is called {name}: choose a name of its own.")
            name = names[number]
        labels = run.atoms[CLASS].to_numpy(dtype=int)
        named = explore_jobs.with_classes(run, labels, {**names, number: name})
        if self._compared is not None:
            self._compared = (named.atoms, self._compared[1])
        self._replace(named)
        self._show_table(named)

    def _on_use(self) -> None:
        """Make the classes the sublattices of the picks."""
        run, picks = self._session.run, self._session.picks
        if run is None or CLASS not in run.atoms:
            self._refuse("There are no classes yet: find some, or make one of a selection.")
            return
        if not np.array_equal(picks.positions_yx, run.picks_yx):
            self._refuse(
                "The atoms of the Atoms tab are no longer those of this run: undo the changes "
                "there, or run the analysis again."
            )
            return
        names = class_names(run.atoms)
        called = {
            number: f"class {name}" * (name == str(number)) or name
            for number, name in names.items()
        }
        column = [called.get(int(label), "") for label in run.atoms[CLASS]]
        table = pd.DataFrame({SUBLATTICE: np.array(column, dtype=object)})
        self._session.change_picks(picks.with_measured(table))
        self._session.say(
            "The classes are sublattices now: tick in the Atoms tab which of them to analyse, or "
            "choose in the Train tab what they are to the model."
        )

    def _on_row(self, number: int) -> None:
        run = self._session.run
        if run is not None and CLASS in run.atoms:
            self.chosen.emit(np.flatnonzero(run.atoms[CLASS].to_numpy() == number))

    # -- what comes of it ----------------------------------------------------------------------

    def _start(self, run: Run, job: Callable[..., Any], *more: Any) -> None:
        if self._runner.busy:
            return
        patches = self._patches_of(run)
        if patches is not None:
            self._session.say("Sorting atoms into classes ...")
            self._runner.start("finding classes", job, run, patches, *more)

    def _on_classified(self, result: explore_jobs.Classified) -> None:
        before = self._session.run
        if before is None or before.model is not result.run.model:
            return  # another run came meanwhile
        self._compared = (result.run.atoms, result)
        if result.run.atoms is not before.atoms:
            self._replace(result.run)
            self._panel.colour.setCurrentText(CLASS)
            count = len(result.table)
            self._session.say(
                f"{count} class{'' if count == 1 else 'es'} of atoms: see their table in Explore."
            )
        self._box.say(result.sentence)
        self._show_table(result.run)

    def _replace(self, run: Run) -> None:
        before = self._session.run
        assert before is not None  # noqa: S101 - callers have looked
        self._overlay.runs.replace(before, run)
        self._session.replace_run(run)
        self._overlay.runs.colour_atoms(run, self._panel.colour.currentText())

    def _show_table(self, run: Run) -> None:
        if self._compared is None:
            return
        result = self._compared[1]
        latents = [f"z{k}" for k in range(1, run.model.config.latent_dim + 1)]
        names = class_names(run.atoms)
        rows = [
            ClassRow(
                number=int(number),
                name=names[int(number)],
                colour=class_colour(int(number)),
                count=int(row["count"]),
                means=row[latents].tolist(),
                errors=row[[f"{name} se" for name in latents]].tolist(),
                spreads=row[[f"{name} sd" for name in latents]].tolist(),
                pattern=_pattern(result.patterns, int(number)),
            )
            for number, row in result.table.iterrows()
        ]
        self._box.show_classes(rows, latents)

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)


def _pattern(patterns: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """Mean patch of a class; NaN where none of its atoms has a patch."""
    if number < len(patterns):
        return patterns[number]
    return np.full(patterns.shape[1:], np.nan, dtype=np.float32)
