"""A script that makes the numbers of a run again."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import torch

from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runs import Run

__all__ = ["reproducing_script"]

SCRIPT = '''"""Makes the numbers of atoms.csv beside this file again, into reproduced.csv.

    python reproduce.py [IMAGE]

The image was {name}. Made by napari-shiftvae {version} with torch {torch}; the same versions on
the same machine give the same digits, others the same numbers to within rounding.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from napari_shiftvae.core import train
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import Told
from napari_shiftvae.core.images import Calibration, checksum, read_image
from napari_shiftvae.core.runfile import atoms_csv
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

HERE = Path(__file__).parent
IMAGE = {image}
SHA256 = "{sha256}"
PIXEL_SIZE_NM = {pixel_size_nm}  # (y, x)
GOALS = {goals}  # epochs at which training was at its end before it was given more; 0: 'auto'
STOPPED_AT = {stopped_at}  # step at which training was stopped by hand
CONFIG = {config}


def main() -> int:
    try:
        image = read_image(sys.argv[1] if len(sys.argv) > 1 else IMAGE)
    except InputError as error:
        sys.exit(f"{{error}} Give its path: python reproduce.py IMAGE")
    if checksum(image.data) != SHA256:
        sys.exit(f"{{image.path}} is not the image that was analysed")
    calibration = PIXEL_SIZE_NM and Calibration(pixel_size_nm=PIXEL_SIZE_NM)
    atoms = pd.read_csv(HERE / "atoms.csv", dtype=str, keep_default_na=False)
    picks, told = atoms[["y_px", "x_px"]].to_numpy().astype(float), Told.of_table(atoms)
    if STOPPED_AT is not None:
        train.REPORT_EVERY_S = 0.0  # so that the step is not missed
    image = replace(image, calibration=calibration)
    more = {{"positions_yx": picks, "given": told.given, "labels": told.labels}}
    for epochs in GOALS:
        config = replace(CONFIG, train=replace(CONFIG.train, epochs=epochs or None))
        more = {{"resume": finish(analyse(image, config, **more))}}
    steps = analyse(image, CONFIG, **more)
    answer = None
    while True:
        try:
            progress = steps.send(answer)
        except StopIteration as end:
            made = atoms_csv(end.value.atoms)
            break
        report = progress.report
        answer = "stop" if report is not None and report.step == STOPPED_AT else None
    (HERE / "reproduced.csv").write_bytes(made)
    same = made == (HERE / "atoms.csv").read_bytes()
    print("The same to the last digit." if same else "Not the same digits: compare the files.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
'''


def reproducing_script(run: Run, image: MicroscopeImage | None) -> str:
    """Write the script.

    Parameters
    ----------
    run : Run
    image : MicroscopeImage or None
        That of the run. It is read from its file; from ``image.npy`` beside the script where it
        is of none; and is to be named on the command line where it is None and its file unknown.

    Returns
    -------
    str
        Python code.
    """
    path = (
        str(image.path.absolute())
        if image is not None and image.path is not None
        else run.image.path
    )
    if image is not None and image.path is None:
        where = 'HERE / "image.npy"'
    else:
        where = repr(path or "name the image on the command line")
    config = replace(
        run.config,
        # The picks are given, whatever way they were found; what follows from them is fixed.
        sampling="atoms",
        count=None,
        separation_px=run.separation_px,
        patch_size_px=run.model.config.patch_size_px,
    )
    return SCRIPT.format(
        name=run.image.name.replace("\\", "/").replace('"', "'"),
        version=version("napari-shiftvae"),
        torch=torch.__version__,
        image=where,
        sha256=run.image.sha256,
        pixel_size_nm=run.image.pixel_size_nm,
        goals=run.goals,
        stopped_at=None if run.finished else steps_of(run),
        config=repr(config).replace("AnalysisConfig(", "AnalysisConfig(\n    ", 1),
    )


def steps_of(run: Run) -> int | None:
    """Training steps that a run has made, None where it does not say."""
    if run.training is not None:
        return run.training.state.step
    return None if run.paused is None else int(run.paused["step"])
