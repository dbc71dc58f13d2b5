"""The run file: a zip of ``atoms.csv``, ``run.json`` and ``model.safetensors``; no code in it.

``model.safetensors`` holds the weights and, under names that begin with ``training.``, what is
needed to train on.
"""

from __future__ import annotations

import json
import math
import platform
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import pandas as pd
from safetensors.torch import save as save_tensors

from napari_shiftvae.core.aside import written_aside
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.paused import check_paused, pause
from napari_shiftvae.core.runparts import STATE, ending_of, image_info, lengths, parts_of, refused
from napari_shiftvae.core.runs import Run, summary
from napari_shiftvae.core.spectra_run import CubeInfo, SpectraRun

FORMAT = "napari-shiftvae run"
FORMAT_VERSION = 2  # 2 since the state of the training is kept
MEMBERS = {"atoms.csv": 2**30, "run.json": 2**24, "model.safetensors": 2**30}  # largest sizes
DENSEST = 50  # times smaller than its contents; real files are some two to ten times
ATOM_COLUMNS = (
    *("y_px", "x_px", "shift_y_px", "shift_x_px", "shift_y_sd_px", "shift_x_sd_px"),
    *("atom_y_px", "atom_x_px", "atom_y_sd_px", "atom_x_sd_px", "residual", "set_aside"),
)
SPECTRA_COLUMNS = ("y_px", "x_px", "shift", "shift_sd", "residual", "set_aside")
PACKAGES = ("napari-shiftvae", "torch", "numpy", "scipy", "scikit-image", "pandas")


def save_run(run: Run | SpectraRun, path: str | Path) -> Path:
    """Write a run file: a zip of ``atoms.csv``, ``run.json`` and ``model.safetensors``.

    The file is written aside and renamed, so an older one stays whole if writing fails.

    Parameters
    ----------
    run : Run or SpectraRun
    path : str or Path
        ``.shiftvae`` is appended where it is missing.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".shiftvae":
        path = path.with_name(path.name + ".shiftvae")
    record: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "holds": "atoms" if isinstance(run, Run) else "spectra",
        "settings": asdict(run.config),
        "seed": run.config.train.seed,
        "model": asdict(run.model.config),
        "image": asdict(run.image),
        "diagnostics": asdict(run.diagnostics),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        **summary(run),
    }
    weights = {name: value.cpu().contiguous() for name, value in run.model.state_dict().items()}
    if isinstance(run, Run):
        record |= {
            "intensity": run.intensity,
            "trained_on": run.trained_on and asdict(run.trained_on),
            "ending": run.ending and asdict(run.ending),
        }
    training = run.training if isinstance(run, Run) else None
    paused = run.paused if training is None else pause(training)
    weights |= {STATE + name: value for name, value in (paused or {}).items()}
    members = {
        "atoms.csv": atoms_csv(run.atoms),
        "run.json": json.dumps(record, indent=1, allow_nan=False).encode(),
        "model.safetensors": save_tensors(weights),
    }
    written_aside(path, lambda file: _pack(file, members))
    return path


def _pack(file: IO[bytes], members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def atoms_csv(atoms: pd.DataFrame) -> bytes:
    """Contents of ``atoms.csv``: ten digits, and picks to the last, which all else follows from.

    Parameters
    ----------
    atoms : pandas.DataFrame
        As `Run.atoms`.

    Returns
    -------
    bytes
    """
    exact = {name: [repr(float(value)) for value in atoms[name]] for name in ("y_px", "x_px")}
    text: str = atoms.assign(**exact).to_csv(index=False, float_format="%.10g")
    return text.encode()


def load_run(path: str | Path) -> Run:
    """Read a run file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Run
        Without `training` and `fit`, but with the state of the training where the file has it.

    Raises
    ------
    InputError
        If the file is not a run file, is damaged, or was made by a newer version.
    """
    path = Path(path)
    with _opened(path) as (record, members):
        _check_kind(record, "atoms", path)
        parts = parts_of(record, members, ATOM_COLUMNS, path)
        intensity, source = record.get("intensity"), record.get("trained_on")
        run = Run(
            image=image_info(record["image"]),
            intensity=intensity and (float(intensity[0]), float(intensity[1])),
            trained_on=source and image_info(source),
            ending=ending_of(record.get("ending")),
            **parts,
        )
        _check_paused(run, path)
        return run


def load_spectra(path: str | Path) -> SpectraRun:
    """Read a run file of spectra.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    SpectraRun

    Raises
    ------
    InputError
        If the file is not a run file of spectra, is damaged, or was made by a newer version.
    """
    path = Path(path)
    with _opened(path) as (record, members):
        _check_kind(record, "spectra", path)
        image = record["image"]
        info = CubeInfo(**(image | {"shape": lengths(image["shape"])}))
        parts = parts_of(record, members, SPECTRA_COLUMNS, path)
        if len(parts["atoms"]) != math.prod(info.grid_shape):
            raise refused(path, "its table has not one row for each pixel")
        run = SpectraRun(image=info, **parts)
        _check_paused(run, path)
        return run


def _check_paused(run: Run | SpectraRun, path: Path) -> None:
    if run.paused is not None and not check_paused(run.paused, run.model, int(run.used.sum())):
        raise refused(path, "the state of its training does not fit its model")


def holds_spectra(path: str | Path) -> bool:
    """Tell a run file of spectra from one of an image.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    bool

    Raises
    ------
    InputError
        If the file is not a run file, is damaged, or was made by a newer version.
    """
    with _opened(Path(path)) as (record, _):
        return bool(record.get("holds", "atoms") == "spectra")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Record and members of a run file; whatever fails on them is said in one sentence."""
    try:
        members = _members(path)
        record = json.loads(members["run.json"])
        _check_version(record, path)
        yield record, members
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror or error}).") from error
    except Exception as error:
        raise refused(path, "it is damaged or incomplete") from error


def _check_version(record: dict[str, Any], path: Path) -> None:
    if record.get("format") != FORMAT:
        raise refused(path, "it was not written by napari-shiftvae")
    if record["format_version"] > FORMAT_VERSION:
        raise refused(path, "it was written by a newer version; update napari-shiftvae")


def _check_kind(record: dict[str, Any], expected: str, path: Path) -> None:
    if record.get("holds", "atoms") != expected:
        other = {"atoms": "an image", "spectra": "spectra"}[record["holds"]]
        raise refused(path, f"it is of {other}; open it as that")


def _members(path: Path) -> dict[str, bytes]:
    if not zipfile.is_zipfile(path):
        if not path.exists():
            raise InputError(f"There is no file {path}.")
        raise refused(path, "it is no run file, or only a part of one")
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if set(infos) != set(MEMBERS) or len(archive.infolist()) != len(MEMBERS):
            raise refused(path, f"it does not hold just {', '.join(MEMBERS)}")
        for name, limit in MEMBERS.items():
            if infos[name].file_size > limit:
                raise refused(path, f"its {name} is larger than any real one")
        claimed = sum(info.file_size for info in infos.values())
        if claimed > DENSEST * path.stat().st_size:
            raise refused(path, "it claims to unpack to more than any real one of its size")
        members = {}
        for name, info in infos.items():
            with archive.open(info) as member:
                members[name] = member.read(info.file_size + 1)
        return members
