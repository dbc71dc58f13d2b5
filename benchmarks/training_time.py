"""Where the time of training goes: by part, batch size, torch threads, and thread it runs in.

python benchmarks/training_time.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest import mock

import torch

from factor_task import Case, mosaic
from machine import on_this_machine, print_table
from napari_shiftvae.core.band import InBand
from napari_shiftvae.core.gauge import fix_gauge
from napari_shiftvae.core.infer import encode, refine
from napari_shiftvae.core.model import Encoded, ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import Patches, extract_patches
from napari_shiftvae.core.polish import polish
from napari_shiftvae.core.reading import read
from napari_shiftvae.core.spectrum import power_spectrum
from napari_shiftvae.core.train import TrainConfig, start, train

WARM_UP_EPOCHS = 1


@dataclass(kw_only=True)
class Stopwatch:
    """Seconds spent in each of several functions."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Time all calls of a function under a name."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - began

        return timed


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How to train."""

    batch: int
    threads: int
    in_worker: bool


def prepared(case: Case) -> tuple[ShiftVAE, Patches]:
    """Make untrained model and patches as `core.analyse` does."""
    image, centres = mosaic(case.make())
    patches = extract_patches(image, centres, case.patch_size_px, normalisation="global")
    config = ModelConfig(
        patch_size_px=case.patch_size_px,
        separation_px=case.half_diagonal_px,
        shift_prior_px=case.shift_sd_px,
        band_limit=power_spectrum(patches).band_limit,
    )
    return ShiftVAE(config, torch.Generator().manual_seed(case.seed)), patches


def timed_training(case: Case, setting: Setting, epochs: int) -> dict[str, float]:
    """Seconds per epoch of each part of `train`, of the best epoch by total time."""
    model, patches = prepared(case)
    config = TrainConfig(epochs=WARM_UP_EPOCHS + epochs, batch_size=setting.batch)
    state = start(model, config)
    watch = Stopwatch()
    boundary = [0.0]

    def at_encoder(gradient: torch.Tensor) -> None:
        del gradient
        boundary[0] = time.perf_counter()

    encode = ShiftVAE.encode

    def watched_encode(*args: Any, **kwargs: Any) -> Encoded:
        encoded = encode(*args, **kwargs)
        if encoded.z.requires_grad:
            encoded.z.register_hook(at_encoder)
        return encoded

    backward = torch.Tensor.backward

    def split_backward(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        backward(tensor, *args, **kwargs)
        ended = time.perf_counter()
        watch.seconds["decoder, backward"] += boundary[0] - began
        watch.seconds["encoder, backward"] += ended - boundary[0]

    found: list[dict[str, float]] = []
    with (
        mock.patch.object(InBand, "gather", watch.around("gather", InBand.gather)),
        mock.patch.object(ShiftVAE, "encode", watch.around("encoder", watched_encode)),
        mock.patch.object(ShiftVAE, "decode", watch.around("decoder", ShiftVAE.decode)),
        mock.patch.object(state.optimiser, "step", watch.around("optimiser", state.optimiser.step)),
        mock.patch.object(torch.Tensor, "backward", split_backward),
        mock.patch("napari_shiftvae.core.train.REPORT_EVERY_S", 0.0),
    ):
        steps = -(-len(patches) // config.batch_for(len(patches)))
        began = time.perf_counter()
        for report in train(model, patches, config, state):
            if report.step % steps:
                continue
            now = time.perf_counter()
            found.append({**watch.seconds, "total": now - began})
            watch.seconds.clear()
            began = time.perf_counter()
    best = min(found[WARM_UP_EPOCHS:], key=lambda parts: parts["total"])
    rest = best["total"] - sum(best[name] for name in best if name != "total")
    floor = steps * seconds_of_products(model, setting.batch)
    return {"steps": float(steps), **best, "rest": rest, "(floor)": floor}


def seconds_of_products(model: ShiftVAE, batch: int, repeats: int = 50) -> float:
    """Seconds that the matrix products of the two networks alone take in one step."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    pairs = [
        (torch.randn(batch, layer.in_features), torch.randn(layer.in_features, layer.out_features))
        for layer in layers
    ]

    def once() -> float:
        began = time.perf_counter()
        for values, weights in pairs:
            product = values @ weights
            _ = product @ weights.T, values.T @ product
        return time.perf_counter() - began

    return min(once() for _ in range(repeats))


def in_thread(job: Callable[[], Any], threads: int, *, worker: bool) -> Any:
    """Run a job with a number of torch threads, in this thread or in one of its own."""
    result: list[Any] = []

    def task() -> None:
        torch.set_num_threads(threads)  # each thread has an OpenMP team of its own
        result.append(job())

    if worker:
        thread = threading.Thread(target=task)
        thread.start()
        thread.join()
    else:
        task()
    return result[0]


def timed_rest(case: Case) -> dict[str, float]:
    """Seconds of each step after training, on a model trained for a few epochs."""
    model, patches = prepared(case)
    for _ in train(model, patches, TrainConfig(epochs=10)):
        pass
    model.eval()
    watch = Stopwatch()
    fit = watch.around("encode", encode)(model, patches)
    *_, fit = watch.around("polish", lambda: list(polish(model, patches, fit)))()
    *_, fit = watch.around("refine", lambda: list(refine(model, patches, fit)))()
    fit = watch.around("fix the gauge", fix_gauge)(model, patches, fit)
    watch.around("read positions", read)(model, patches, fit)
    return {**watch.seconds, "total": sum(watch.seconds.values())}


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the default setting only")
    parser.add_argument("--epochs", type=int, default=8, help="of which the fastest counts")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> None:
    """Measure and print."""
    cores = os.cpu_count() or 1
    case = Case()
    settings = [
        Setting(batch=batch, threads=threads, in_worker=in_worker)
        for batch in ((64,) if chosen.quick else (64, 128, 256))
        for threads in ((max(1, cores - 1),) if chosen.quick else sorted({1, cores}))
        for in_worker in (False, True)
    ]
    rows = []
    for setting in settings:
        parts = in_thread(
            lambda setting=setting: timed_training(case, setting, chosen.epochs),
            setting.threads,
            worker=setting.in_worker,
        )
        row = {
            "batch": str(setting.batch),
            "threads": str(setting.threads),
            "in": "worker" if setting.in_worker else "main thread",
            "steps": f"{parts.pop('steps'):.0f}",
            "s/epoch": f"{parts.pop('total'):.3f}",
        }
        rows.append(row | {name: f"{1e3 * spent:.0f}" for name, spent in parts.items()})
    print_table("One epoch of 2,000 patches of 40 px; parts in ms, fastest of some epochs", rows)
    print("\n(floor): matrix products of the two networks alone. An analysis leaves one core free.")
    repeats = [
        in_thread(lambda: timed_rest(case), max(1, cores - 1), worker=False)
        for _ in range(1 if chosen.quick else 3)
    ]
    best = min(repeats, key=lambda parts: parts["total"])
    print_table(
        "After training, 2,000 patches, seconds",
        [{name: f"{spent:.2f}" for name, spent in best.items()}],
    )


if __name__ == "__main__":
    chosen = options()
    with on_this_machine():
        main(chosen)
