"""Python code that does again what was done by hand, short enough to be read and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as fields_of
from importlib.metadata import version
from pathlib import Path
from typing import Any

from napari_shiftvae.core.edits import Edits
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.reproduce import steps_of
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.script_results import Classes, Fields, result_lines
from napari_shiftvae.core.settings import AnalysisConfig

__all__ = [
    "Applied",
    "atoms_script",
    "image_script",
    "put_together",
    "settings_code",
    "spectra_script",
]

CORE = "napari_shiftvae.core"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """How an image was read with a trained model.

    Attributes
    ----------
    model : Path
        Run file of the model.
    resample, own_intensity : bool
    device : str
        As `encode_image` takes them.
    """

    model: Path
    resample: bool
    own_intensity: bool
    device: str


def image_script(
    run: Run,
    *,
    image: Path,
    calibrated: bool,
    positions: Edits | Path | None,
    output: str,
    applied: Applied | None = None,
    earlier: Path | None = None,
    classes: Classes | None = None,
    fields: Fields | None = None,
) -> str:
    """Write the code of the analysis of one image.

    Parameters
    ----------
    run : Run
    image : Path
        Where its image is read from.
    calibrated : bool
        Whether that file gives the size of its pixels as the run has it.
    positions : Edits or Path or None
        How the picks came about: found and then edited, or from a table, or within the analysis.
    output : str
        File for the run.
    applied : Applied, optional
        For a run whose model comes from another one.
    earlier : Path, optional
        File of the run whose training this one went on with; it has the picks.
    classes : Classes, optional
    fields : Fields, optional
        What was read from the run.

    Returns
    -------
    str
        Python code.
    """
    uses = {("images", "read_image"), ("analyse", "finish"), ("runfile", "save_run")}
    lines = [f"image = read_image({str(image)!r})"]
    if not calibrated:
        uses.add(("images", "Calibration"))
        size = "None"
        if run.image.pixel_size_nm is not None:
            size = f"Calibration(pixel_size_nm={run.image.pixel_size_nm!r})"
        lines.append(f"image = replace(image, calibration={size})")
    picked, keywords = _picks(run, positions, uses)
    lines += picked
    picks = ", picks" if positions is not None else ""
    if applied is not None:
        uses |= {("apply", "encode_image"), ("runfile", "load_run")}
        names = {"resample": applied.resample, "own_intensity": applied.own_intensity}
        chosen = "".join(f", {name}=True" for name, value in names.items() if value)
        chosen += "" if applied.device == "auto" else f", device={applied.device!r}"
        given = ", given=table['given_class']" if "given=" in keywords else ""
        lines += [
            f"model = load_run({str(applied.model)!r})",
            f"steps = encode_image(model, image{picks}{given}{chosen})",
        ]
    else:
        uses |= {("analyse", "analyse"), ("settings", "AnalysisConfig")}
        if picks:
            picks = ", positions_yx=picks"
        resume = ""
        if earlier is not None:
            uses.add(("runfile", "load_run"))
            resume = ", resume=earlier"
            lines.append(f"earlier = load_run({str(earlier)!r})")
        lines += [
            f"config = {settings_code(run.config, uses)}",
            f"steps = analyse(image, config{picks}{keywords}{resume})",
        ]
    stopped = None if applied is not None or run.finished else steps_of(run)
    lines += _to_the_end(stopped, uses)
    lines += [f"save_run(run, {output!r})", "print(*run.diagnostics.sentences, sep='\\n')"]
    lines += result_lines(classes, fields, uses)
    return put_together(f"The analysis of '{run.image.name}'", lines, uses)


def atoms_script(
    config: AnalysisConfig, *, name: str, image: Path, positions: Edits, output: str
) -> str:
    """Write the code that finds atoms in an image, edited by hand; nothing is trained.

    Parameters
    ----------
    config : AnalysisConfig
        Says how they are found.
    name : str
        Of the image.
    image : Path
        Where it is read from.
    positions : Edits
    output : str
        File for the table of positions.

    Returns
    -------
    str
        Python code.
    """
    uses = {("images", "read_image"), ("positions", "write_positions")}
    lines = [f"image = read_image({str(image)!r})"]
    lines += _found(config, positions, uses)
    lines += [
        "table = pd.DataFrame(picks, columns=['y_px', 'x_px'])",
        f"write_positions(table, {output!r})",
        "print(f'{len(picks)} atoms')",
    ]
    return put_together(f"The atoms of '{name}'", lines, uses)


def spectra_script(
    config: AnalysisConfig,
    *,
    name: str,
    cube: Path,
    signal: int,
    axis: int,
    axis_scale: float,
    axis_unit: str,
    output: str,
) -> str:
    """Write the code of the analysis of spectra; the parameters are those of `analyse_spectra`.

    Parameters
    ----------
    cube : Path
        Where the spectra are read from.
    signal : int
        Which data set of that file they are.
    """
    uses = {
        ("formats", "read_signals"),
        ("analyse", "finish"),
        ("spectra_run", "analyse_spectra"),
        ("runfile", "save_run"),
        ("settings", "AnalysisConfig"),
    }
    lines = [
        f"cube = read_signals({str(cube)!r})[{signal}].data",
        f"config = {settings_code(config, uses)}",
        f"unit = {{'axis_scale': {axis_scale!r}, 'axis_unit': {axis_unit!r}}}",
        f"run = finish(analyse_spectra(cube, {axis}, config, **unit))",
        f"save_run(run, {output!r})",
        "print(*run.diagnostics.sentences, sep='\\n')",
    ]
    return put_together(f"The analysis of the spectra of '{name}'", lines, uses)


def _picks(
    run: Run, positions: Edits | Path | None, uses: set[tuple[str, str]]
) -> tuple[list[str], str]:
    """Lines that make `picks`, and what else is told of these to the analysis."""
    if positions is None:
        return [], ""
    if isinstance(positions, Path):
        uses.add(("positions", "read_positions"))
        lines = [
            f"table = read_positions({str(positions)!r})",
            "picks = table[['y_px', 'x_px']].to_numpy()",
        ]
        keywords = ""
        if "given_class" in run.atoms:
            keywords += ", given=table['given_class'].fillna('')"
        if "label" in run.atoms:
            keywords += ", labels=table['label'].fillna(-1).astype(int)"
        return lines, keywords
    return _found(run.config, positions, uses), ""


def _found(config: AnalysisConfig, positions: Edits, uses: set[tuple[str, str]]) -> list[str]:
    uses |= {("atoms", "find_atoms"), ("images", "as_float_image")}
    more = "".join(
        f", {name}={value!r}"
        for name, value in (
            ("separation_px", config.separation_px),
            ("threshold", config.threshold),
            ("dark", config.dark),
        )
        if value
    )
    lines = [f"picks = find_atoms(as_float_image(image.data){more}).positions_yx"]
    if positions.deleted:
        lines.append(f"picks = np.delete(picks, {list(positions.deleted)}, axis=0)  # by hand")
    if positions.before:
        places = ", ".join(str(list(place)) for place in positions.added_yx.tolist())
        lines += [
            "# clicked or moved by hand",
            f"picks = np.insert(picks, {list(positions.before)}, [{places}], axis=0)",
        ]
    return lines


def _to_the_end(stopped_at: int | None, uses: set[tuple[str, str]]) -> list[str]:
    if stopped_at is None:
        return ["run = finish(steps)"]
    uses.discard(("analyse", "finish"))
    return [
        f"# Training was stopped by hand, after step {stopped_at}.",
        "train.REPORT_EVERY_S = 0.0  # so that the step is not missed",
        "answer = None",
        "while True:",
        "    try:",
        "        report = steps.send(answer).report",
        "    except StopIteration as end:",
        "        run = end.value",
        "        break",
        f"    answer = 'stop' if report is not None and report.step == {stopped_at} else None",
    ]


def settings_code(value: Any, uses: set[tuple[str, str]]) -> str:
    """Code of a settings object, without what is as by default."""
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    kind = type(value)
    uses.add((kind.__module__.rpartition(".")[2], kind.__name__))
    plain = kind()
    changed = [
        f"{one.name}={settings_code(getattr(value, one.name), uses)}"
        for one in fields_of(value)
        if getattr(value, one.name) != getattr(plain, one.name)
    ]
    return f"{kind.__name__}({', '.join(changed)})"


def put_together(title: str, lines: Sequence[str], uses: set[tuple[str, str]]) -> str:
    """Put the code together."""
    body = "\n".join(lines)
    heads = [
        f"# {title}, as it was done in napari with napari-shiftvae {version('napari-shiftvae')}."
    ]
    if "replace(" in body:
        heads += ["", "from dataclasses import replace"]
    if "np." in body or "pd." in body:
        heads.append("")
    heads += [
        f"import {module} as {short}"
        for module, short in (("numpy", "np"), ("pandas", "pd"))
        if f"{short}." in body
    ]
    if "polygon2mask(" in body:
        heads.append("from skimage.draw import polygon2mask")
    heads.append("")
    if "train.REPORT" in body:
        heads.append(f"from {CORE} import train")
    by_module: dict[str, list[str]] = {}
    for module, name in sorted(uses):
        by_module.setdefault(module, []).append(name)
    heads += [f"from {CORE}.{module} import {', '.join(by_module[module])}" for module in by_module]
    code = "\n".join([*heads, "", body, ""])
    try:
        compile(code, title, "exec")
    except SyntaxError as error:  # a name with what no Python string may hold
        raise InputError(f"No script can be written of this ({error.msg}).") from error
    return code
