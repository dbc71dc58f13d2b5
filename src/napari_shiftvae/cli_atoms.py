"""The command ``napari-shiftvae atoms``: what the Atoms tab does, for scripts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_shiftvae.core.errors import InputError

if TYPE_CHECKING:
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.picks import Picks

CRITERIA = ("place", "intensity", "shape")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of the command."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image, or a stack of frames")
    parser.add_argument("--output", type=Path, required=True, metavar="CSV")
    parser.add_argument(
        "--positions", type=Path, metavar="CSV", help="use these instead of finding atoms"
    )
    parser.add_argument("--dark", action="store_true", help="atoms are darker than what is around")
    parser.add_argument("--separation", type=float, metavar="PX", help="of neighbouring atoms")
    parser.add_argument("--threshold", type=float, metavar="T", help="lowest strength, 0 to 1")
    parser.add_argument(
        "--like",
        type=_place,
        action="append",
        metavar="Y,X",
        help="find places that look like the one at these pixels; may be given several times",
    )
    parser.add_argument("--score", type=float, metavar="R", help="lowest correlation with --like")
    parser.add_argument("--no-refine", action="store_true", help="do not fit Gaussians")
    parser.add_argument(
        "--sublattices",
        metavar="BY",
        help="sort atoms by some of place,intensity,shape, separated by commas",
    )
    parser.add_argument(
        "--lattice", action="store_true", help="fit a lattice, and add each atom's place on it"
    )
    parser.add_argument(
        "--beneath", action="store_true", help="find a weaker sublattice beneath the atoms, too"
    )
    parser.add_argument("--pixel-size", type=float, metavar="VALUE", help="instead of the file's")
    parser.add_argument("--unit", choices=("nm", "pm", "angstrom"), help="of --pixel-size")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def atoms(options: argparse.Namespace, image: MicroscopeImage) -> None:
    """Find atoms, refine them, sort them, and write the table."""
    from napari_shiftvae.core.positions import write_positions

    by = _criteria(options.sublattices)
    if options.score is not None and not options.like:
        raise InputError("--score goes with --like: say what the atoms should look like.")
    work = _Work(image=image, dark=options.dark, separation_px=options.separation)
    picks = work.first_picks(options)
    if not len(picks):
        raise InputError(
            "No atoms were found: lower --threshold, choose --dark, or give --separation."
        )
    if not options.no_refine:
        picks = work.refined(picks)
    if options.beneath:
        picks = work.beneath(picks)
        if not options.no_refine:
            picks = work.refined(picks)
    if by:
        picks = work.grouped(picks, by)
    if options.lattice:
        picks = work.on_lattice(picks)
    table = picks.for_file(image.calibration, stack=image.data.ndim == 3)
    print(f"Wrote {write_positions(table, options.output)}")
    if options.json:
        counts = {name: int((picks.sublattice == name).sum()) for name in picks.sublattices}
        flagged = int((picks.table["flag"] != "").sum()) if "flag" in picks.table else 0
        figures = {
            "n_atoms": len(picks),
            "flagged": flagged,
            "separation_px": work.separation_px,
            "sublattices": counts,
        }
        print(json.dumps(figures))


@dataclass(kw_only=True)
class _Work:
    """The steps of the Atoms tab on one image, each with a line about what came of it."""

    image: MicroscopeImage
    dark: bool
    separation_px: float | None

    def first_picks(self, options: argparse.Namespace) -> Picks:
        """Positions from a file, like an example, or found."""
        from napari_shiftvae import atom_jobs
        from napari_shiftvae.core.positions import read_positions
        from napari_shiftvae.picks import Picks
        from napari_shiftvae.settings import FindSettings

        if options.positions is not None:
            picks = Picks.read(read_positions(options.positions), by_hand=True)
            atom_jobs.check_frames(self.image, picks)
            return picks
        if options.like:
            return self._like(options.like, options.score)
        settings = FindSettings(
            dark=self.dark, separation_px=self.separation_px, threshold=options.threshold
        )
        found = _result(atom_jobs.find(self.image, settings, None, None))
        self.separation_px = found.separation_px
        print(
            f"Found {len(found.picks)} atoms, separation {found.separation_px:.2f} px, "
            f"threshold {found.threshold:.2f}"
        )
        return found.picks

    def _like(self, examples: list[tuple[float, float]], score: float | None) -> Picks:
        import numpy as np

        from napari_shiftvae import measure_jobs
        from napari_shiftvae.core.similar import automatic_score, choose_similar
        from napari_shiftvae.picks import Picks

        if self.image.data.ndim != 2:
            raise InputError("--like takes a single image: give one frame of the stack.")
        similar = measure_jobs.similar(self.image, 0, np.array(examples), self.separation_px)
        lowest = automatic_score(similar) if score is None else score
        places = choose_similar(similar, lowest)
        print(f"Found {len(places)} similar places, score {lowest:.2f} or more")
        return Picks.of(places, by_hand=False)

    def refined(self, picks: Picks) -> Picks:
        """Fit a Gaussian to every atom."""
        from napari_shiftvae import measure_jobs

        return _said(measure_jobs.refine(self.image, picks, self.separation_px, self.dark))

    def beneath(self, picks: Picks) -> Picks:
        """Find the weaker sublattice that is left when these are taken out."""
        from napari_shiftvae import measure_jobs

        return _said(measure_jobs.beneath(self.image, picks, self.separation_px, self.dark))

    def grouped(self, picks: Picks, by: list[str]) -> Picks:
        """Sort the atoms into sublattices."""
        from napari_shiftvae import measure_jobs

        return _said(measure_jobs.group(self.image, picks, self.separation_px, self.dark, by))

    def on_lattice(self, picks: Picks) -> Picks:
        """Fit a lattice to the atoms."""
        from napari_shiftvae import measure_jobs

        if self.image.data.ndim != 2:
            raise InputError("--lattice takes a single image: give one frame of the stack.")
        return _said(measure_jobs.lattice(self.image, picks, self.separation_px, self.dark, 0))


def _criteria(text: str | None) -> list[str]:
    by = [] if text is None else [word.strip() for word in text.split(",")]
    if set(by) - set(CRITERIA):
        raise InputError(f"--sublattices is {text}: choose from {', '.join(CRITERIA)}.")
    return by


def _place(text: str) -> tuple[float, float]:
    try:
        y, x = (float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no place: give it as Y,X in pixels") from None
    return y, x


def _said(steps: Generator[Any, None, Any]) -> Picks:
    changed = _result(steps)
    print(changed.sentence)
    picks: Picks = changed.picks
    return picks


def _result(steps: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
