"""What "Copy as Python" has done in a thread: the code, and the files that it reads. No Qt.

Images that are of no file, and picks that are too many to be written down, go into files beside
the runs that save themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image, checksum, read_image
from napari_shiftvae.jobs import config_for, known_classes, with_sublattices
from napari_shiftvae.settings import FindSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae import jobs, sequence_jobs, spectra_jobs
    from napari_shiftvae.core.checkpoint import Autosave
    from napari_shiftvae.core.edits import Edits
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.script_results import Classes, Fields
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.picks import Picks

MOST_SAVED_BYTES = 2**31


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What the Explore and the Fields tab have made of a run.

    Attributes
    ----------
    classes : Classes or None
    fields : Fields or None
        Without the file of sublattices, which are here.
    sublattice : (N,) array or None
    positions_yx : (N, 2) array
        Of the atoms that these are of.
    """

    classes: Classes | None = None
    fields: Fields | None = None
    sublattice: NDArray[np.object_] | None = None
    positions_yx: NDArray[np.float64] | None = None

    def as_code(self, aside: Autosave) -> Fields | None:
        """Keep the sublattices in a file, which the code can read."""
        if self.fields is None or self.sublattice is None:
            return self.fields
        table = pd.DataFrame(self.positions_yx, columns=["y_px", "x_px"])
        where = aside.folder / f"{aside.name} sublattices.csv"
        from napari_shiftvae.core.positions import write_positions

        path = write_positions(table.assign(sublattice=self.sublattice), where)
        return replace(self.fields, sublattice=path)


def of_image(
    run: Run,
    image: MicroscopeImage,
    order: jobs.Order | None,
    results: Results,
    folder: Path | None = None,
) -> str:
    """Write the code of a run.

    Parameters
    ----------
    run : Run
    image : MicroscopeImage
        That of the run.
    order : Order or None
        How the dock made it; None where it did not.
    results : Results
    folder : Path, optional
        For files that the code reads, where there are none yet.

    Returns
    -------
    str
    """
    from napari_shiftvae.core.runfile import save_run
    from napari_shiftvae.core.script import image_script

    aside = _aside(image.name, folder)
    source = _image_file(image, run.image.sha256, aside)
    in_file = read_image(source).calibration
    size = None if in_file is None else in_file.pixel_size_nm
    earlier = None if order is None else order.resume
    if earlier is not None:  # trained on with another goal, it is not as if trained at once
        kept = save_run(earlier, aside.folder / f"{aside.name} earlier.shiftvae")
    by_itself = order is not None and (order.picks is None or earlier is not None)
    positions = None
    if not by_itself and run.config.sampling == "atoms":
        positions = _positions(run, image, aside)
    return image_script(
        run,
        image=source,
        calibrated=size == run.image.pixel_size_nm,
        positions=positions,
        output=f"{_plain(image.name)}.shiftvae",
        applied=_applied(run, order, aside),
        earlier=None if earlier is None else kept,
        classes=results.classes,
        fields=results.as_code(aside),
    )


def of_atoms(
    image: MicroscopeImage, picks: Picks, find: FindSettings, folder: Path | None = None
) -> str:
    """Write the code that finds atoms in an image, with what was edited by hand."""
    from napari_shiftvae.core.script import atoms_script
    from napari_shiftvae.settings import TrainSettings

    config = config_for(find, TrainSettings(), device="auto")
    made = _edits(image, config, picks.positions_yx)
    if made is None:
        raise InputError(
            "These atoms are not what is found with the settings as they are, with a few edits: "
            "use Export in the Atoms tab to keep them."
        )
    return atoms_script(
        config,
        name=image.name,
        image=_image_file(image, checksum(image.data), _aside(image.name, folder)),
        positions=made,
        output=f"{_plain(image.name)} atoms.csv",
    )


def of_stack(
    order: sequence_jobs.Order,
    frame: int | None,
    results: Results,
    folder: Path | None = None,
) -> str:
    """Write the code of the analysis of a stack, and of what was read from the frame shown."""
    from napari_shiftvae.core.script import Applied
    from napari_shiftvae.core.script_stack import OfFrame, Stack, stack_script

    stack, aside = order.stack, _aside(order.stack.name, folder)
    config = config_for(order.find, order.train, device=order.device)
    picks, trained, applied = order.picks, order.trained, None
    if trained is None:
        config, said = with_sublattices(config, order.train, picks)
        told = tuple(said)
    else:
        told = () if known_classes(picks, trained.run) is None else ("given",)
        applied = Applied(
            model=_model_file(trained, aside),
            resample=trained.resample,
            own_intensity=trained.own_intensity,
            device=order.device,
        )
    table = None
    if picks is not None:
        columns = ["t", "y_px", "x_px", *(["sublattice"] if told else [])]
        table = _kept(picks.table[columns], aside)
    read = None
    if frame is not None:
        read = OfFrame(frame=frame, classes=results.classes, fields=results.as_code(aside))
    return stack_script(
        config,
        Stack(
            name=stack.name,
            path=_stack_file(stack, aside),
            pixel_size_nm=stack.calibration.pixel_size_nm if stack.calibration else None,
            positions=table,
            told=told,
        ),
        share=order.share,
        check_seed=order.train.check_seed,
        output=f"{_plain(stack.name)} frames",
        applied=applied,
        read=read,
    )


def of_spectra(order: spectra_jobs.Order, folder: Path | None = None) -> str:
    """Write the code of the analysis of spectra."""
    from napari_shiftvae.core.formats import read_signals
    from napari_shiftvae.core.script import spectra_script

    cube, number = Path(order.path), None
    if order.path and cube.exists():
        found = [signal.data for signal in read_signals(cube)]
        number = next((n for n, data in enumerate(found) if _same(data, order.cube)), None)
    if number is None:
        cube, number = _saved(order.cube, _aside(order.name, folder)), 0
    return spectra_script(
        config_for(FindSettings(), order.train, device=order.device),
        name=order.name,
        cube=cube,
        signal=number,
        axis=order.axis,
        axis_scale=order.axis_scale,
        axis_unit=order.axis_unit,
        output=f"{_plain(order.name)}.shiftvae",
    )


def _positions(run: Run, image: MicroscopeImage, aside: Autosave) -> Edits | Path:
    """How to come by the picks of a run."""
    told = [name for name in ("given_class", "label") if name in run.atoms]
    if not told and run.trained_on is None:
        made = _edits(image, run.config, run.picks_yx)
        if made is not None:
            return made
    table = pd.DataFrame(run.picks_yx, columns=["y_px", "x_px"])
    return _kept(table.assign(**{name: run.atoms[name].to_numpy() for name in told}), aside)


def _edits(
    image: MicroscopeImage, config: AnalysisConfig, picks_yx: np.ndarray[Any, Any]
) -> Edits | None:
    from napari_shiftvae.core.atoms import find_atoms
    from napari_shiftvae.core.edits import edits

    try:
        found = find_atoms(
            as_float_image(image.data),
            separation_px=config.separation_px,
            threshold=config.threshold,
            dark=config.dark,
        )
    except InputError:  # nothing repeats in the image, and all was clicked
        return None
    return edits(found.positions_yx, picks_yx)


def _applied(run: Run, order: jobs.Order | None, aside: Autosave) -> Any:
    """Where the model of a run is that comes from another one."""
    from napari_shiftvae.core.script import Applied

    if run.trained_on is None:
        return None
    trained = None if order is None else order.trained
    if trained is None:
        raise InputError(
            "This run was read with a model that the file does not name: read the image with it "
            "once more, then copy."
        )
    return Applied(
        model=_model_file(trained, aside),
        resample=trained.resample,
        own_intensity=trained.own_intensity,
        device=order.device,
    )


def _model_file(trained: jobs.Trained, aside: Autosave) -> Path:
    from napari_shiftvae.core.runfile import save_run

    if trained.path is not None and trained.path.exists():
        return trained.path
    return save_run(trained.run, aside.folder / f"{aside.name} model.shiftvae")


def _image_file(image: MicroscopeImage, sha256: str, aside: Autosave) -> Path:
    """File that reads as the image; made where there is none."""
    if image.path is not None and image.path.exists():
        try:
            if checksum(read_image(image.path).data) == sha256:
                return image.path
        except InputError:  # the layer is one of several things in the file
            pass
    if checksum(image.data) != sha256:
        raise InputError(
            f"The pixels of '{image.name}' are not those that were analysed: analyse it once more."
        )
    return _saved(image.data, aside)


def _stack_file(stack: MicroscopeImage, aside: Autosave) -> Path:
    if stack.path is not None and stack.path.exists():
        try:
            if _same(read_image(stack.path, stacks=True).data, stack.data):
                return stack.path
        except InputError:
            pass
    return _saved(stack.data, aside)


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same, judged by their first and last frames."""
    return one.shape == other.shape and all(
        checksum(one[frame]) == checksum(other[frame]) for frame in (0, -1)
    )


def _saved(data: Any, aside: Autosave) -> Path:
    if int(np.prod(data.shape)) * data.dtype.itemsize > MOST_SAVED_BYTES:
        raise InputError(
            "The data are of no file that could be named in the code, and too large to be copied: "
            "save them, as zarr for example, and open them from there."
        )
    path = aside.folder / f"{aside.name}.npy"
    try:
        np.save(path, np.asarray(data))
    except OSError as error:
        raise InputError(f"{path} could not be written ({error.strerror or error}).") from error
    return path


def _kept(table: pd.DataFrame, aside: Autosave) -> Path:
    from napari_shiftvae.core.positions import write_positions

    return write_positions(table, aside.folder / f"{aside.name} picks.csv")


def _aside(name: str, folder: Path | None) -> Autosave:
    """Names for files beside the runs that save themselves."""
    from napari_shiftvae.core.checkpoint import Autosave

    aside = Autosave.of(name, folder)
    try:
        aside.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{aside.folder} could not be made ({error.strerror or error})."
        ) from error
    return aside


def _plain(name: str) -> str:
    """Name that a file may have."""
    return "".join(sign if sign.isalnum() or sign in " -_+" else "_" for sign in name).strip()
