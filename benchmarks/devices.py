"""The same analyses on every device that torch has here: times, errors, differences from the CPU.

python benchmarks/devices.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from factor_task import Case, mosaic, settings_for
from machine import on_this_machine, print_table
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.diagnostics import seed_agreement
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.pose_simulation import pose_patches
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import factor_patches, graphene, perovskite
from napari_shiftvae.core.spectra_run import SpectraRun, analyse_spectra
from napari_shiftvae.core.spectra_simulation import peak_spectra
from napari_shiftvae.core.train import TrainConfig

# The noise of training differs between devices, so they differ as two seeds do; of the bound.
MOST_DIFFERENCE = 0.25
LEAST_R2 = 0.99

Floats = NDArray[np.float64]
AnyRun = Run | SpectraRun


@dataclass(frozen=True, kw_only=True)
class Task:
    """One analysis.

    Attributes
    ----------
    run : callable
        Analyses on the device of that name.
    places : callable
        What is compared, (M, D) [px], of a run.
    truth : (M, D) array or None
        The same without error; constant parts do not count.
    bound : float
        Of its error [px]; NaN where the truth is not known.
    """

    run: Callable[[str], AnyRun]
    places: Callable[[AnyRun], Floats]
    truth: Floats | None = None
    bound: float = np.nan


def columns(*names: str) -> Callable[[AnyRun], Floats]:
    """Read columns of the table of a run, (M, D)."""
    return lambda run: run.atoms[list(names)].to_numpy(dtype=np.float64)


SHIFT = columns("shift_y_px", "shift_x_px")


def factors(count: int) -> Task:
    """Make the reference task: shift, intensity and displacement."""
    case = Case(patches=count)
    task = case.make()
    image, centres = mosaic(task)

    def run(device: str) -> Run:
        config = settings_for(case, device=device)
        return finish(
            analyse(MicroscopeImage(data=image, name="mosaic"), config, positions_yx=centres)
        )

    return Task(run=run, places=SHIFT, truth=task.shift_yx_px, bound=task.bound_shift_px)


def coordinates(_: int) -> Task:
    """Make a small task for the coordinate decoder, which does not reach its bound so soon."""
    case = Case(patches=100, patch_size_px=24, half_diagonal_px=9.0)
    task = case.make()
    image, centres = mosaic(task)

    def run(device: str) -> Run:
        config = replace(
            settings_for(case, device=device), decoder="coordinate", train=TrainConfig(epochs=20)
        )
        return finish(
            analyse(MicroscopeImage(data=image, name="mosaic"), config, positions_yx=centres)
        )

    return Task(run=run, places=SHIFT)


def poses(count: int) -> Task:
    """Turned motifs; compared is the shift."""
    task = pose_patches(rng=np.random.default_rng(0), count=count)
    # `mosaic` needs nothing but the patches.
    image, centres = mosaic(
        replace(factor_patches(rng=np.random.default_rng(0), count=1), patches=task.patches)
    )

    def run(device: str) -> Run:
        config = AnalysisConfig(
            patch_size_px=task.patches.shape[1],
            separation_px=12.0,
            shift_prior_px=1.5,
            normalisation="global",
            invariances=("shift", "rotation"),
            latent_dim=1,
            device=device,
        )
        return finish(
            analyse(MicroscopeImage(data=image, name="mosaic"), config, positions_yx=centres)
        )

    return Task(run=run, places=SHIFT, truth=task.truth[:, :2], bound=task.bound(0, 1))


def classes(_: int) -> Task:
    """Kinds of atoms on graphene."""
    made = graphene(rng=np.random.default_rng(0), shape=(300, 300))
    sites = made.truth[["site_y_px", "site_x_px"]].to_numpy()

    def run(device: str) -> Run:
        config = AnalysisConfig(
            patch_size_px=10,
            separation_px=made.separation_px,
            latent_dim=1,
            classes=3,
            normalisation="global",
            device=device,
        )
        return finish(
            analyse(MicroscopeImage(data=made.image, name="sheet"), config, positions_yx=sites)
        )

    return Task(run=run, places=SHIFT)


def smooth(_: int) -> Task:
    """Neighbours that are alike; the B columns of a perovskite."""
    made = perovskite(rng=np.random.default_rng(0), shape=(500, 500), noise=0.3)
    truth = made.truth[made.truth["sublattice"] == "B"]
    sites = truth[["site_y_px", "site_x_px"]].to_numpy()

    def run(device: str) -> Run:
        config = AnalysisConfig(
            separation_px=made.separation_px,
            latent_dim=1,
            train=TrainConfig(smoothness=1.0),
            device=device,
        )
        return finish(
            analyse(MicroscopeImage(data=made.image, name="made"), config, positions_yx=sites)
        )

    return Task(run=run, places=SHIFT)


def spectra(count: int) -> Task:
    """Peaks of one dimension; px are points."""
    task = peak_spectra(rng=np.random.default_rng(0), count=count - count % 50)
    cube = task.spectra.reshape(50, -1, task.spectra.shape[1])
    return Task(
        run=lambda device: finish(analyse_spectra(cube, 2, AnalysisConfig(device=device))),
        places=columns("shift"),
        truth=(task.centre / task.step)[:, None],
        bound=task.bound_centre / task.step,
    )


TASKS: dict[str, Callable[[int], Task]] = {
    "factors": factors,
    "rotation": poses,
    "classes": classes,
    "smoothness": smooth,
    "spectra": spectra,
    "coordinate decoder": coordinates,
}


def rms(values: Floats) -> float:
    """Root mean square of what is finite, constant part taken off."""
    return float(np.sqrt(np.nanmean((values - np.nanmean(values, axis=0)) ** 2)))


def latents(run: AnyRun) -> Floats:
    """Latents (M, K) of those that carry something."""
    active = range(1, max(1, run.diagnostics.active_latents) + 1)
    return columns(*(f"z{k}" for k in active))(run)


def same_classes(first: AnyRun, second: AnyRun) -> str:
    """Share of the atoms that two runs put into the same class."""
    if "class" not in first.atoms:
        return ""
    one, other = (run.atoms.loc[run.used, "class"].to_numpy() for run in (first, second))
    return f"{np.mean(one == other):.4f}"


def devices() -> list[str]:
    """Devices that are here, the CPU first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return ["cpu", *(name for name, found in there.items() if found)]


def main(count: int, names: list[str]) -> None:
    """Measure and print."""
    if len(devices()) == 1:
        print("\n  There is no other device here.")
        return
    rows: list[dict[str, str]] = []
    worst, least = 0.0, 1.0
    for name in devices():
        if name == "cuda":
            print(f"cuda is {torch.cuda.get_device_name()}")
        TASKS["classes"](0).run(name)  # what is loaded at the first use of a device counts for none
    for task_name in names:
        task = TASKS[task_name](count)
        reference: AnyRun | None = None
        for device in devices():
            run, again = task.run(device), task.run(device)
            places = task.places(run)
            reference = reference or run
            apart = rms(places - task.places(reference))
            error = np.nan if task.truth is None else rms(places - task.truth)
            # Without a truth, the posterior deviation stands in for the bound.
            bound = task.bound
            if not np.isfinite(bound):
                bound = float(np.nanmedian(columns("shift_y_sd_px")(run)))
            r2 = min(seed_agreement(latents(reference), latents(run)).r2)
            if task_name != "coordinate decoder":
                worst, least = max(worst, apart / bound), min(least, r2)
            rows.append(
                {
                    "task": task_name,
                    "device": run.device,
                    "s/epoch": f"{run.seconds['train'] / run.epochs:.4f}",
                    "train s": f"{run.seconds['train']:.2f}",
                    "refine s": f"{run.seconds['refine']:.2f}",
                    "total s": f"{run.seconds['total']:.2f}",
                    "error / bound": f"{error / bound:.4f}" if np.isfinite(error) else "",
                    "from CPU px": f"{apart:.5f}",
                    "/ bound": f"{apart / bound:.3f}",
                    "latents R2": f"{r2:.5f}",
                    "same class": same_classes(reference, run),
                    "twice the same": "yes"
                    if places.tobytes() == task.places(again).tobytes()
                    else f"{rms(places - task.places(again)):.1e} px",
                }
            )
    print_table(
        "The same on each device. 'from CPU': RMS difference of the shifts; '/ bound': over the "
        "Cramer-Rao bound,\nor over the posterior deviation where that is not known",
        rows,
    )
    for text, value, met in (
        (f"difference <= {MOST_DIFFERENCE:g} x bound", worst, worst <= MOST_DIFFERENCE),
        (f"R2 of latents >= {LEAST_R2:g}", least, least >= LEAST_R2),
    ):
        print(f"  {text}: worst {value:.4g}, {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    chosen = parser.parse_args()
    with on_this_machine():
        main(chosen.patches, chosen.tasks)
