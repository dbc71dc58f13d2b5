"""What a run file holds, checked: a stranger's file may hold anything."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load as load_tensors

from napari_shiftvae.core.diagnostics import Diagnostics
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import GIVEN
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.runs import ImageInfo
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.stopping import Ending
from napari_shiftvae.core.train import TrainConfig

__all__ = ["STATE", "image_info", "lengths", "parts_of", "refused"]

TEXT = ("class_name", "set_aside")  # columns of the table that hold words
MOST_PIXELS = 2**30  # of an image that maps are drawn for
STATE = "training."  # begins the names of tensors that are no weights


def refused(path: Path, reason: str) -> InputError:
    """Say why a file is not opened as a run file."""
    return InputError(f"{path.name or path} cannot be opened as a run file: {reason}.")


def image_info(record: dict[str, Any]) -> ImageInfo:
    """Describe the image of a run; ValueError where the record describes none."""
    size = record["pixel_size_nm"]
    if size is not None and not (len(size) == 2 and all(0 < one < math.inf for one in size)):
        raise ValueError("its pixels have no size")
    if not all(isinstance(record[name], str) for name in ("name", "path", "dtype", "sha256")):
        raise ValueError("its image has no name")
    height, width = lengths(record["shape"])
    if height * width > MOST_PIXELS:
        raise ValueError("its image is larger than any real one")
    return ImageInfo(**(record | {"shape": (height, width), "pixel_size_nm": size and tuple(size)}))


def ending_of(record: dict[str, Any] | None) -> Ending | None:
    """Tell how long a training was to be, where held-out patches decided."""
    if record is None:
        return None
    counts = {name: int(record[name]) for name in ("epochs", "added", "held_out")}
    gain = record["gain_nat"]
    decided = bool(record["decided"])
    return Ending(**counts, gain_nat=None if gain is None else float(gain), decided=decided)


def lengths(shape: list[Any]) -> tuple[int, ...]:
    """Shape of an array; ValueError where the record gives none."""
    found = tuple(int(length) for length in shape)
    if min(found) < 1:
        raise ValueError(f"{shape} is no shape of an array")
    return found


def parts_of(
    record: dict[str, Any], members: dict[str, bytes], columns: tuple[str, ...], path: Path
) -> dict[str, Any]:
    """What runs of images and of spectra have in common."""
    settings = record["settings"]
    train = {name: value for name, value in settings["train"].items() if name != "patience"}  # gone
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
        "config": AnalysisConfig(**(settings | {"train": TrainConfig(**train)})),
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


def _model(config: ModelConfig, weights: dict[str, torch.Tensor], path: Path) -> ShiftVAE:
    with torch.device("meta"):  # settings may ask for more memory than there is
        expected = ShiftVAE(config).state_dict()
    same = set(weights) == set(expected) and all(
        weights[name].shape == value.shape and weights[name].dtype == value.dtype
        for name, value in expected.items()
    )
    if not same:
        raise refused(path, "its weights do not fit its settings")
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise refused(path, "its weights are not finite")
    model = ShiftVAE(config)
    model.load_state_dict(weights)
    return model.eval()


def _atoms(content: bytes, columns: tuple[str, ...], latent_dim: int, path: Path) -> pd.DataFrame:
    header = content.split(b"\n", 1)[0].decode().strip().split(",")
    words = {*TEXT, GIVEN} & set(header)
    numbers = [name for name in header if name not in words]
    latents = [f"z{k}{end}" for k in range(1, latent_dim + 1) for end in ("", "_sd")]
    if len(set(header)) < len(header) or not {*columns, *latents} <= set(header):
        raise refused(path, "its table of atoms lacks columns")
    exact = ("y_px", "x_px")  # pandas may miss the last digit of a number
    table = pd.read_csv(
        io.BytesIO(content),
        keep_default_na=False,
        na_values={name: [""] for name in numbers if name not in exact},
        dtype=dict.fromkeys(numbers, np.float64) | dict.fromkeys((*exact, *words), object),
    )
    return table.assign(**{name: [float(value) for value in table[name]] for name in exact})
