"""The state of a training between two steps, as tensors that a file can hold."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.runs import POLISHED, Run, Training, kept_buffers
from napari_shiftvae.core.stopping import Pace
from napari_shiftvae.core.train import TrainConfig, TrainState, start

__all__ = ["check_paused", "pause", "paused", "resumed", "taken_up"]

MOMENTS = ("exp_avg", "exp_avg_sq")  # as torch names those of Adam
NUMBERS = ("step", "seconds", "noise_sigma")
BATCHES = ("order", "order_sizes", "generator")
# Of the held-out patches, in one tensor as some may be NaN: `Pace`, and the last bound on them.
PACE = 7
AVERAGE = "averages."


def pause(training: Training) -> dict[str, Tensor]:
    """Copy what training needs to go on as if it had not been interrupted.

    Parameters
    ----------
    training : Training

    Returns
    -------
    dict of str to tensor
        ``moments.<parameter>.<moment>`` and ``steps.<parameter>`` of Adam, ``buffers.<name>`` of
        the model as training left them, ``generator``, the batches left of the epoch (``order``,
        one after the other, and ``order_sizes``), ``step``, ``seconds``, ``noise_sigma`` and, of
        the held-out patches, ``pace`` and ``averages.<parameter>`` of the decoder; ``goals`` where
        there were such.
    """
    tensors = paused(training.model, training.state, training.buffers, training.noise_sigma)
    return tensors | ({"goals": torch.tensor(training.goals)} if training.goals else {})


def paused(
    model: ShiftVAE, state: TrainState, buffers: Mapping[str, Tensor], noise_sigma: float
) -> dict[str, Tensor]:
    """Do as `pause` does with what a `Training` is made of."""
    tensors = {
        "step": torch.tensor(state.step),
        "seconds": torch.tensor(state.seconds, dtype=torch.float64),
        "noise_sigma": torch.tensor(noise_sigma, dtype=torch.float64),
        "generator": state.generator.get_state(),
        "order": torch.cat([torch.zeros(0, dtype=torch.int64), *state.order]),
        "order_sizes": torch.tensor([len(rows) for rows in state.order], dtype=torch.int64),
        "pace": _pace(state),
    }
    for name, moments, steps in _of_parameters(model, state):
        if steps:  # a parameter that was never used has none
            tensors |= moments | {f"steps.{name}": steps}
    for name, value in buffers.items():
        tensors[f"buffers.{name}"] = value
    names = [AVERAGE + name for name, _ in model.decoder.named_parameters()]
    tensors |= dict(zip(names, state.averages, strict=False))  # none where nothing is to be judged
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def check_paused(tensors: Mapping[str, Tensor], model: ShiftVAE, count: int) -> bool:
    """Tell whether tensors, such as those of a stranger's file, are a state of this model.

    Parameters
    ----------
    tensors : mapping of str to tensor
        As `pause` makes them.
    model : ShiftVAE
    count : int
        Number of patches.

    Returns
    -------
    bool
    """
    if not {*NUMBERS, *BATCHES, "pace"} <= set(tensors):
        return False
    expected = {
        f"buffers.{name}": value
        for name, value in kept_buffers(model).items()
        # files of earlier versions have no second output layer
        if f"buffers.{name}" in tensors or not name.startswith(POLISHED)
    }
    for name, parameter in model.named_parameters():
        if f"steps.{name}" in tensors:  # a parameter that was never used has none
            expected |= {f"moments.{name}.{key}": parameter for key in MOMENTS}
            expected[f"steps.{name}"] = torch.zeros(())
    expected["pace"] = torch.zeros(PACE, dtype=torch.float64)
    if any(name.startswith(AVERAGE) for name in tensors):
        expected |= {
            AVERAGE + name: value.detach() for name, value in model.decoder.named_parameters()
        }
    order, sizes = tensors["order"], tensors["order_sizes"]
    goals = tensors.get("goals", torch.ones(1, dtype=torch.int64))
    return (
        set(tensors) - {"goals"} == {*expected, *NUMBERS, *BATCHES}
        and goals.dtype == torch.int64
        and goals.ndim == 1
        and bool((goals >= 0).all())
        and all(
            tensors[name].shape == value.shape and tensors[name].dtype == value.dtype
            for name, value in expected.items()
        )
        and all(tensors[name].numel() == 1 for name in NUMBERS)
        and all(bool(tensors[name].isfinite().all()) for name in tensors if name != "pace")
        and int(tensors["step"]) >= 0
        and order.dtype == sizes.dtype == torch.int64
        and order.ndim == sizes.ndim == 1
        and bool((sizes > 0).all())
        and int(sizes.sum()) == len(order)
        and bool(((order >= 0) & (order < count)).all())
        and tensors["generator"].dtype == torch.uint8
    )


def resumed(run: Run, patches: Patches, device: torch.device) -> Training:
    """Take the training of a run up again where its file left it.

    Parameters
    ----------
    run : Run
        With its state `paused`; stays as it is.
    patches : Patches
        Those of the run.
    device : torch.device

    Returns
    -------
    Training
        With new random numbers where the device is of another kind than before.

    Raises
    ------
    InputError
        If the file holds no such state, or not one of these patches.
    """
    tensors = run.paused
    if tensors is None or not check_paused(tensors, run.model, len(patches)):
        raise InputError(
            "The state of the training does not fit the run's model and patches: run the analysis "
            "anew."
        )
    model, state = taken_up(run.model, tensors, run.config.train, device)
    return Training(
        model=model,
        patches=patches,
        state=state,
        noise_sigma=float(tensors["noise_sigma"]),
        goals=run.goals,
    )


def taken_up(
    model: ShiftVAE, tensors: Mapping[str, Tensor], config: TrainConfig, device: torch.device
) -> tuple[ShiftVAE, TrainState]:
    """Copy a model as training left it, and the state of its training, from checked tensors."""
    model = copy.deepcopy(model).to(device)
    state = start(model, config)
    buffers = {name[8:]: value for name, value in tensors.items() if name.startswith("buffers.")}
    model.load_state_dict(buffers, strict=False)
    for name, moments, steps in _of_parameters(model, state):
        if f"steps.{name}" in tensors:
            for key, value in (moments | {f"steps.{name}": steps}).items():
                value.copy_(tensors[key])
    state.step, state.seconds = int(tensors["step"]), float(tensors["seconds"])
    _set_pace(state, tensors["pace"].tolist())
    names = [AVERAGE + name for name, _ in model.decoder.named_parameters()]
    state.averages = [tensors[name].to(device, copy=True) for name in names if name in tensors]
    state.order = list(tensors["order"].split(tensors["order_sizes"].tolist()))
    if tensors["generator"].shape == state.generator.get_state().shape:
        try:
            state.generator.set_state(tensors["generator"])
        except RuntimeError as error:
            raise InputError(
                "The run's random numbers cannot be taken up again: run the analysis anew."
            ) from error
    else:
        state.generator.manual_seed(config.seed + state.step)
    return model, state


def _of_parameters(
    model: ShiftVAE, state: TrainState
) -> Iterator[tuple[str, dict[str, Tensor], Tensor]]:
    """Name, moments by their names in a file, and count of steps of each parameter."""
    adam, names = state.optimiser, [name for name, _ in model.named_parameters()]
    for name, *moments, steps in zip(names, adam.mean, adam.square, adam.steps, strict=True):
        keys = [f"moments.{name}.{moment}" for moment in MOMENTS]
        yield name, dict(zip(keys, moments, strict=True)), steps


def _pace(state: TrainState) -> Tensor:
    pace = state.pace
    numbers = (
        *(pace.waited, pace.waiting, pace.over, pace.stale),
        *(pace.loss, pace.gain, state.validation),
    )
    return torch.tensor(numbers, dtype=torch.float64)


def _set_pace(state: TrainState, numbers: list[float]) -> None:
    waited, waiting, over, stale, loss, gain, state.validation = numbers
    steps = max(0, int(waited)) if math.isfinite(waited) else 0
    state.pace = Pace(
        waited=min(steps, state.step),
        waiting=waiting == 1,
        over=over == 1,
        stale=int(stale > 0),
        loss=loss,
        gain=gain,
    )
