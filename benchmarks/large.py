"""Large data: 100,000 atoms of one image, and a stack of 1,000 frames that is never all in memory.

python benchmarks/large.py [image] [stack]
python benchmarks/large.py image --side 5800     200,000 atoms

Each is analysed in a process of its own, which its peak memory is that of. Times are those of the
clock and, in brackets, of the processor: the latter do not grow when other programs run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from machine import on_this_machine, print_table
from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.computer import peak_memory_mb
from napari_shiftvae.core.frames import FramesDone
from napari_shiftvae.core.images import read_image
from napari_shiftvae.core.readout import Options, read_out
from napari_shiftvae.core.runfile import save_run
from napari_shiftvae.core.sequence import analyse_sequence
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite

MOST_SECONDS, MOST_MB = 120.0, 2000.0
PIXEL_SIZE_NM = 0.0219  # two atoms in 18.3 x 18.3 px: 100,000 in 4096 x 4096
SIDE_PX, FRAMES, FRAME_PX = 4096, 1000, 512


@dataclass(kw_only=True)
class Stages:
    """Time of the clock and of the processor, and peak memory so far, of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    _clock: float = field(default_factory=time.perf_counter)
    _processor: float = field(default_factory=time.process_time)

    def reached(self, stage: str) -> None:
        """Count the time since the last call for a stage."""
        clock, processor = time.perf_counter(), time.process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + clock - self._clock
        self.processor[stage] = self.processor.get(stage, 0.0) + processor - self._processor
        self.peak_mb[stage] = peak_memory_mb() or np.nan
        self._clock, self._processor = clock, processor


def followed(steps: Any, stages: Stages) -> Any:
    """Run an analysis to its end; what comes before a report belongs to that report's stage."""
    stage, reading = "", False
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            stages.reached(stage)
            return end.value
        if isinstance(progress, FramesDone):
            reading = True
            quarter = min(4, 1 + 4 * progress.frame // progress.total)
            stage = f"frames, quarter {quarter}"
        elif not reading:
            stage = progress.stage
        stages.reached(stage)


def errors(atoms: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Compare central atoms with where they are [px], and count those that were missed."""
    found = atoms.loc[atoms["set_aside"] == "", ["atom_y_px", "atom_x_px"]].to_numpy(float)
    found = found[np.isfinite(found).all(axis=1)]
    there = truth[["y_px", "x_px"]].to_numpy()
    apart, nearest = KDTree(there).query(found)
    near = apart < 3.0
    return {
        "atoms": len(atoms),
        "in the image": len(there),
        "read": len(found),
        "wrong": int((~near).sum()),
        "missed": len(there) - len(np.unique(nearest[near])),
        "rms_px": float(np.sqrt(np.mean(apart[near] ** 2) / 2)),
    }


def image_process(folder: Path) -> dict[str, Any]:
    """Analyse the image, and read its fields and draw the strain."""
    stages = Stages()
    stages.reached("start")
    image = read_image(folder / "large.npy")
    stages.reached("read")
    run = followed(analyse(image, AnalysisConfig()), stages)
    fields = read_out(run, Options(vectors="displacement from the lattice"))
    fields.scalars["exx"].on_pixels(run)
    stages.reached("strain")
    save_run(run, folder / "large")
    stages.reached("save")
    return stages.__dict__ | {"errors": errors(run.atoms, pd.read_csv(folder / "truth.csv"))}


def stack_process(folder: Path) -> dict[str, Any]:
    """Analyse the stack frame by frame."""
    stages = Stages()
    stages.reached("start")
    stack = read_image(folder / "stack.zarr", stacks=True).data
    stages.reached("read")
    made = followed(analyse_sequence(stack, AnalysisConfig(), folder / "movie"), stages)
    last = pd.read_csv(folder / "movie" / f"frame-{len(stack) - 1:05d}.csv").fillna(
        {"set_aside": ""}
    )
    found = errors(last, pd.read_csv(folder / "truth.csv"))
    return stages.__dict__ | {"errors": found | {"atoms of all frames": made.count}}


PROCESSES = {"image": image_process, "stack": stack_process}


def make_image(folder: Path, side: int) -> str:
    """Draw the image that is analysed, and keep its truth."""
    made = perovskite(rng=np.random.default_rng(0), shape=(side, side), pixel_size_nm=PIXEL_SIZE_NM)
    np.save(folder / "large.npy", made.image)
    made.truth.to_csv(folder / "truth.csv", index=False)
    return f"{len(made.truth):,} atoms in {side} x {side} px, noise 8 % of the peak"


def make_stack(folder: Path, frames: int) -> str:
    """Write the stack frame by frame: one image with noise of its own in each."""
    import zarr

    rng = np.random.default_rng(0)
    shape = (FRAME_PX, FRAME_PX)
    made = perovskite(rng=rng, shape=shape, noise=0.0, pixel_size_nm=PIXEL_SIZE_NM)
    made.truth.to_csv(folder / "truth.csv", index=False)
    stack = zarr.create_array(
        folder / "stack.zarr", shape=(frames, *shape), chunks=(1, *shape), dtype="float32"
    )
    for index in range(frames):
        stack[index] = made.image + rng.normal(0.0, 0.08, shape).astype(np.float32)
    return (
        f"{frames:,} frames of {FRAME_PX} x {FRAME_PX} px ({stack.nbytes / 1e6:,.0f} MB), "
        f"{len(made.truth):,} atoms in each"
    )


@contextmanager
def analysed(which: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Analyse in a process of its own."""
    command = [sys.executable, __file__, "--process", which, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    yield json.loads(done.stdout.splitlines()[-1])


def show(title: str, made: dict[str, Any]) -> None:
    """Print stages, errors and what was aimed at."""
    rows = [
        {
            "": stage,
            "s": f"{seconds:.1f} ({made['processor'][stage]:.1f})",
            "peak MB": f"{made['peak_mb'][stage]:.0f}",
        }
        for stage, seconds in made["seconds"].items()
    ]
    print_table(title, rows)
    print("  " + ", ".join(f"{name} {value:,.6g}" for name, value in made["errors"].items()))
    seconds, peak = sum(made["seconds"].values()), max(made["peak_mb"].values())
    processor = sum(made["processor"].values())
    print(f"  {seconds:.1f} s ({processor:.1f} s of the processor), peak {peak:.0f} MB")


def main() -> None:
    """Make, analyse, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("which", nargs="*", metavar="image|stack", help="both by default")
    parser.add_argument("--side", type=int, default=SIDE_PX, metavar="PX", help="of the image")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--process", nargs=2, metavar=("WHICH", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.process:
        which, folder = chosen.process
        made = PROCESSES[which](Path(folder))
        print(json.dumps({name: value for name, value in made.items() if name[0] != "_"}))
        return
    with on_this_machine():
        for which in chosen.which or PROCESSES:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                image = which == "image"
                title = (
                    make_image(folder, chosen.side) if image else make_stack(folder, chosen.frames)
                )
                with analysed(which, folder) as made:
                    show(title, made)


if __name__ == "__main__":
    main()
