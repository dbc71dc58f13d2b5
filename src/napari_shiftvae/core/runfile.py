"""The run file: a zip of ``atoms.csv``, ``run.json`` and ``model.safetensors``; no code in it.

``model.safetensors`` holds the weights and, under names that begin with ``training.``, what is
needed to train on.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from napari_shiftvae.core.diagnostics import Diagnostics
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import GIVEN
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.paused import check_paused, pause
from napari_shiftvae.core.runs import ImageInfo, Run, summary
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.spectra_run import CubeInfo, SpectraRun
from napari_shiftvae.core.train import TrainConfig

FORMAT = "napari-shiftvae run"
FORMAT_VERSION = 2  # 2 since the state of the training is kept
TEXT = ("class_name", "set_aside")  # columns of the table that hold words
MEMBERS = {"atoms.csv": 2**30, "run.json": 2**24, "model.safetensors": 2**30}  # largest sizes
MOST_PIXELS = 2**30  # of an image that maps are drawn for
DENSEST = 50  # times smaller than its contents; real files are some two to ten times
ATOM_COLUMNS = (
    *("y_px", "x_px", "shift_y_px", "shift_x_px", "shift_y_sd_px", "shift_x_sd_px"),
    *("atom_y_px", "atom_x_px", "atom_y_sd_px", "atom_x_sd_px", "residual", "set_aside"),
)
SPECTRA_COLUMNS = ("y_px", "x_px", "shift", "shift_sd", "residual", "set_aside")
STATE = "training."  # begins the names of tensors that are no weights
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
        }
        paused = run.paused if run.training is None else pause(run.training)
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


def written_aside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name and rename it, so that an older one stays whole.

    Parameters
    ----------
    path : Path
    write : callable
        Writes the contents into the file that it is given.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    # Not `tempfile`: its files are for their owner's eyes only, and would stay so.
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        try:
            with aside.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path} could not be written ({reason}): choose another folder or free some space."
        ) from error


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
        parts = _parts(record, members, ATOM_COLUMNS, path)
        intensity, source = record.get("intensity"), record.get("trained_on")
        run = Run(
            image=_image_info(record["image"]),
            intensity=intensity and (float(intensity[0]), float(intensity[1])),
            trained_on=source and _image_info(source),
            **parts,
        )
        if run.paused is not None and not check_paused(run.paused, run.model, int(run.used.sum())):
            raise _refused(path, "the state of its training does not fit its model")
        return run


def _image_info(record: dict[str, Any]) -> ImageInfo:
    size = record["pixel_size_nm"]
    if size is not None and not (len(size) == 2 and all(0 < one < math.inf for one in size)):
        raise ValueError("its pixels have no size")
    if not all(isinstance(record[name], str) for name in ("name", "path", "dtype", "sha256")):
        raise ValueError("its image has no name")
    height, width = _lengths(record["shape"])
    if height * width > MOST_PIXELS:
        raise ValueError("its image is larger than any real one")
    return ImageInfo(**(record | {"shape": (height, width), "pixel_size_nm": size and tuple(size)}))


def _lengths(shape: list[Any]) -> tuple[int, ...]:
    lengths = tuple(int(length) for length in shape)
    if min(lengths) < 1:
        raise ValueError(f"{shape} is no shape of an array")
    return lengths


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
        info = CubeInfo(**(image | {"shape": _lengths(image["shape"])}))
        parts = _parts(record, members, SPECTRA_COLUMNS, path)
        del parts["paused"]
        if len(parts["atoms"]) != math.prod(info.grid_shape):
            raise _refused(path, "its table has not one row for each pixel")
        return SpectraRun(image=info, **parts)


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
        raise _refused(path, "it is damaged or incomplete") from error


def _parts(
    record: dict[str, Any], members: dict[str, bytes], columns: tuple[str, ...], path: Path
) -> dict[str, Any]:
    """What runs of images and of spectra have in common."""
    settings = record["settings"]
    seconds = {str(stage): float(spent) for stage, spent in record["seconds"].items()}
    peak = record["peak_memory_mb"]
    tensors = load_tensors(members["model.safetensors"])
    weights = {name: value for name, value in tensors.items() if not name.startswith(STATE)}
    paused = {name.removeprefix(STATE): tensors[name] for name in tensors if name not in weights}
    model = _model(ModelConfig(**record["model"]), weights, path)
    return {
        "atoms": _atoms(members["atoms.csv"], columns, model.config.latent_dim, path),
        "model": model,
        "paused": paused or None,
        "config": AnalysisConfig(**(settings | {"train": TrainConfig(**settings["train"])})),
        "diagnostics": _diagnostics(record["diagnostics"]),
        "epochs": int(record["epochs"]),
        "device": str(record["device"]),
        "seconds": {"total": seconds["total"]} | seconds,
        "peak_memory_mb": None if peak is None else float(peak),
    }


def _diagnostics(record: dict[str, Any]) -> Diagnostics:
    def floats(values: list[Any]) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    numbers = {name: float(record[name]) for name in ("noise_sigma", "noise_sigma_independent")}
    counts = {name: int(record[name]) for name in ("active_latents", "outliers", "period_jumps")}
    lists = {
        "kl_latents": floats(record["kl_latents"]),
        "leakage": floats(record["leakage"]),
        "sentences": tuple(str(sentence) for sentence in record["sentences"]),
        # Files of the first version do not tell of another seed.
        "seed_agreement": floats(record.get("seed_agreement", [])),
    }
    reasons = {str(reason): int(count) for reason, count in record["set_aside"].items()}
    return Diagnostics(**(record | numbers | counts | lists | {"set_aside": reasons}))


def _refused(path: Path, reason: str) -> InputError:
    return InputError(f"{path.name or path} cannot be opened as a run file: {reason}.")


def _check_version(record: dict[str, Any], path: Path) -> None:
    if record.get("format") != FORMAT:
        raise _refused(path, "it was not written by napari-shiftvae")
    if record["format_version"] > FORMAT_VERSION:
        raise _refused(path, "it was written by a newer version; update napari-shiftvae")


def _check_kind(record: dict[str, Any], expected: str, path: Path) -> None:
    if record.get("holds", "atoms") != expected:
        other = {"atoms": "an image", "spectra": "spectra"}[record["holds"]]
        raise _refused(path, f"it is of {other}; open it as that")


def _members(path: Path) -> dict[str, bytes]:
    if not zipfile.is_zipfile(path):
        if not path.exists():
            raise InputError(f"There is no file {path}.")
        raise _refused(path, "it is no run file, or only a part of one")
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if set(infos) != set(MEMBERS) or len(archive.infolist()) != len(MEMBERS):
            raise _refused(path, f"it does not hold just {', '.join(MEMBERS)}")
        for name, limit in MEMBERS.items():
            if infos[name].file_size > limit:
                raise _refused(path, f"its {name} is larger than any real one")
        claimed = sum(info.file_size for info in infos.values())
        if claimed > DENSEST * path.stat().st_size:
            raise _refused(path, "it claims to unpack to more than any real one of its size")
        members = {}
        for name, info in infos.items():
            with archive.open(info) as member:
                members[name] = member.read(info.file_size + 1)
        return members


def _model(config: ModelConfig, weights: dict[str, torch.Tensor], path: Path) -> ShiftVAE:
    with torch.device("meta"):  # settings may ask for more memory than there is
        expected = ShiftVAE(config).state_dict()
    same = set(weights) == set(expected) and all(
        weights[name].shape == value.shape and weights[name].dtype == value.dtype
        for name, value in expected.items()
    )
    if not same:
        raise _refused(path, "its weights do not fit its settings")
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise _refused(path, "its weights are not finite")
    model = ShiftVAE(config)
    model.load_state_dict(weights)
    return model.eval()


def _atoms(content: bytes, columns: tuple[str, ...], latent_dim: int, path: Path) -> pd.DataFrame:
    header = content.split(b"\n", 1)[0].decode().strip().split(",")
    words = {*TEXT, GIVEN} & set(header)
    numbers = [name for name in header if name not in words]
    latents = [f"z{k}{end}" for k in range(1, latent_dim + 1) for end in ("", "_sd")]
    if len(set(header)) < len(header) or not {*columns, *latents} <= set(header):
        raise _refused(path, "its table of atoms lacks columns")
    exact = ("y_px", "x_px")  # pandas may miss the last digit of a number
    table = pd.read_csv(
        io.BytesIO(content),
        keep_default_na=False,
        na_values={name: [""] for name in numbers if name not in exact},
        dtype=dict.fromkeys(numbers, np.float64) | dict.fromkeys((*exact, *words), object),
    )
    return table.assign(**{name: [float(value) for value in table[name]] for name in exact})
