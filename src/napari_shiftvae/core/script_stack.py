"""Python code that does again what was done with a stack of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_shiftvae.core.script import Applied, put_together, settings_code
from napari_shiftvae.core.script_results import Classes, Fields, result_lines
from napari_shiftvae.core.settings import AnalysisConfig

__all__ = ["OfFrame", "Stack", "stack_script"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Frames, and their picks.

    Attributes
    ----------
    name : str
    path : Path
        Where the frames are read from.
    pixel_size_nm : (float, float) or None
        (y, x).
    positions : Path or None
        Table of the picks, None where they are found.
    told : sequence of {"given", "labels"}
        What the column ``sublattice`` of that table is to the model.
    """

    name: str
    path: Path
    pixel_size_nm: tuple[float, float] | None
    positions: Path | None
    told: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class OfFrame:
    """What was read from one frame."""

    frame: int
    classes: Classes | None
    fields: Fields | None


def stack_script(
    config: AnalysisConfig,
    stack: Stack,
    *,
    share: float,
    check_seed: bool = False,
    output: str,
    applied: Applied | None = None,
    read: OfFrame | None = None,
) -> str:
    """Write the code of the analysis of a stack of frames.

    Parameters
    ----------
    config : AnalysisConfig
    stack : Stack
    share : float
        Of the frames, that are learned from.
    check_seed : bool
    output : str
        A folder.
    applied : Applied, optional
        Where the frames were read with a trained model.
    read : OfFrame, optional
        What was read from the frame that was shown.

    Returns
    -------
    str
        Python code.
    """
    uses = {("images", "read_image"), ("analyse", "finish")}
    lines = [f"stack = read_image({str(stack.path)!r}, stacks=True)"]
    more = []
    if stack.positions is not None:
        uses.add(("positions", "read_positions"))
        lines.append(f"table = read_positions({str(stack.positions)!r})")
        more.append("positions_tyx=table[['t', 'y_px', 'x_px']]")
        more += [f"{one}=table['sublattice'].fillna('')" for one in stack.told]
    if stack.pixel_size_nm is not None:
        uses.add(("images", "Calibration"))
        lines.append(f"size = Calibration(pixel_size_nm={stack.pixel_size_nm!r})")
        more.append("calibration=size")
    if applied is None:
        uses |= {("sequence", "analyse_sequence"), ("settings", "AnalysisConfig")}
        more = [f"share={share!r}", *(["check_seed=True"] if check_seed else []), *more]
        lines += [
            f"config = {settings_code(config, uses)}",
            f"steps = analyse_sequence(stack.data, config, {output!r}, {', '.join(more)})",
        ]
    else:
        uses |= {("frames", "Reading"), ("frames", "encode_sequence"), ("runfile", "load_run")}
        how = [f"{one}=True" for one in ("resample", "own_intensity") if getattr(applied, one)]
        how += [] if applied.device == "auto" else [f"device={applied.device!r}"]
        more.append(f"reading=Reading({', '.join(how)})")
        lines += [
            f"model = load_run({str(applied.model)!r})",
            f"steps = encode_sequence(model, stack.data, {output!r}, {', '.join(more)})",
        ]
    lines += [
        "made = finish(steps)  # interrupted and begun again, it goes on",
        "print(made.atoms.groupby('t')['z1'].describe())",
    ]
    if read is not None:
        uses |= {("frame_run", "run_of_frame"), ("images", "MicroscopeImage")}
        size = "" if stack.pixel_size_nm is None else ", calibration=size"
        lines += [
            "# the frame that was shown; others in the same way",
            f"frame = {read.frame}",
            f"image = MicroscopeImage(data=np.asarray(stack.data[frame]), name='frame'{size})",
            "run = run_of_frame(made, frame, image)",
            *result_lines(read.classes, read.fields, uses),
        ]
    return put_together(f"The analysis of the frames of '{stack.name}'", lines, uses)
