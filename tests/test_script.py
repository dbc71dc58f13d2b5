"""Code of what was done by hand: run as it is, it makes the same numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.draw import polygon2mask

from napari_shiftvae import jobs, script_jobs, sequence_jobs, spectra_jobs
from napari_shiftvae.core import train
from napari_shiftvae.core.edits import MOST_EDITS, edits
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration, read_image
from napari_shiftvae.core.manifold import patches_of
from napari_shiftvae.core.progress import finish
from napari_shiftvae.core.readout import Options, read_out
from napari_shiftvae.core.runfile import atoms_csv, load_run, load_spectra, save_run
from napari_shiftvae.core.script_results import Classes, Fields
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.spectra_simulation import peak_spectra
from napari_shiftvae.explore_jobs import ClassOrder, classify
from napari_shiftvae.fields_jobs import read
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import FindSettings, TrainSettings

NOTHING = script_jobs.Results()
TRAIN = TrainSettings(epochs=3, latent_dim=3, kl_content=2.0, seed=4, batch_size=32)


def write_image(folder: Path, seed: int = 0) -> Path:
    path = folder / f"im'age {seed}.tif"
    tifffile.imwrite(path, perovskite(rng=np.random.default_rng(seed), shape=(150, 160)).image)
    return path


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return read_image(write_image(tmp_path))


def ordered(image, **more) -> jobs.Order:
    settings = {"find": FindSettings(), "train": TRAIN, "picks": None, "resume": None}
    return jobs.Order(**{"image": image, "device": "cpu", **settings, **more})


def found(image) -> Picks:
    from napari_shiftvae.core.atoms import find_atoms

    return Picks.of(find_atoms(image.data).positions_yx, by_hand=False)


def numbers_of(code: str, name: str) -> bytes:
    """Run the code; the table of the run that it saves."""
    exec(compile(code, "copied", "exec"), {"__name__": "copied"})  # noqa: S102 - what is tested
    return atoms_csv(load_run(name).atoms)


def checked(order: jobs.Order) -> str:
    run = finish(jobs.analysis(order)).run
    code = script_jobs.of_image(run, order.image, order, NOTHING)
    assert numbers_of(code, f"{script_jobs._plain(order.image.name)}.shiftvae") == atoms_csv(
        run.atoms
    )
    return code


def test_quick_run(image) -> None:
    code = checked(ordered(image))
    assert "positions" not in code
    assert len(code.splitlines()) < 20
    config = "AnalysisConfig(latent_dim=3, train=TrainConfig(epochs=3, batch_size=32, "
    assert config + "kl_content=2.0, seed=4), device='cpu')" in code  # what was changed, no more


def test_atoms_edited_by_hand(image) -> None:
    picks = found(image).without([3, 7]).added((40.25, 51.5)).moved(5, (33.3, 44.4))
    settings = FindSettings(separation_px=14.0)
    code = checked(ordered(image, picks=picks, find=settings))
    assert "np.delete(picks, [3, 5, 7]" not in code  # another separation finds other atoms
    code = checked(ordered(image, picks=picks))
    assert "np.delete(picks, [3, 6, 7], axis=0)  # by hand" in code
    assert "[33.3, 44.4]" in code
    assert "[40.25, 51.5]" in code


def test_atoms_that_are_not_as_found_are_read_from_a_table(image) -> None:
    moved = found(image).positions_yx + 0.1 / 3
    code = checked(ordered(image, picks=Picks.of(moved, by_hand=False)))
    assert "picks.csv'" in code


def test_sublattices_that_the_model_knows(image) -> None:
    picks = found(image)
    names = np.where(np.arange(len(picks)) % 2, "A", "B")
    named = picks.with_measured(pd.DataFrame({"sublattice": names}))
    for use in ("given", "labels"):
        checked(ordered(image, picks=named, train=replace(TRAIN, sublattices=use)))


def test_windows_anywhere(image) -> None:
    find = FindSettings(sampling="random", count=300)
    assert "sampling='random'" in checked(ordered(image, find=find))


def test_calibration_that_was_typed(image) -> None:
    size = Calibration(pixel_size_nm=(0.015, 0.02))
    code = checked(ordered(replace(image, calibration=size)))
    assert "Calibration(pixel_size_nm=(0.015, 0.02))" in code


def test_image_of_no_file(image) -> None:
    assert ".npy'" in checked(ordered(replace(image, path=None)))


def test_training_stopped_by_hand(image, monkeypatch) -> None:
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)
    order = ordered(image, train=replace(TRAIN, epochs=50))
    steps, answer = jobs.analysis(order), None
    while True:
        try:
            progress = steps.send(answer)
        except StopIteration as end:
            run = end.value.run
            break
        report = getattr(progress, "report", None)
        answer = "stop" if report is not None and report.step >= 5 else None
    code = script_jobs.of_image(run, image, order, NOTHING)
    assert "Training was stopped by hand, after step 5" in code
    assert numbers_of(code, "im_age 0.shiftvae") == atoms_csv(run.atoms)


def test_training_that_went_on(image) -> None:
    first = finish(jobs.analysis(ordered(image))).run
    checked(ordered(image, resume=first, train=replace(TRAIN, epochs=5)))


@pytest.mark.filterwarnings("ignore:The pixels of:UserWarning")
@pytest.mark.parametrize("resample", [False, True])
def test_image_read_with_a_trained_model(image, tmp_path, resample) -> None:
    size = Calibration(pixel_size_nm=(0.015, 0.015))
    first = finish(jobs.analysis(ordered(replace(image, calibration=size)))).run
    path = save_run(first, tmp_path / "model.shiftvae") if resample else None
    size = Calibration(pixel_size_nm=(0.016, 0.016))
    second = replace(read_image(write_image(tmp_path, 1)), calibration=size)
    trained = jobs.Trained(run=first, path=path, resample=resample, own_intensity=True)
    code = checked(ordered(second, trained=trained))
    assert ("/model.shiftvae'" in code) is resample  # else it was saved for the purpose
    picks = found(second).added((40.0, 50.0))
    checked(ordered(second, trained=trained, picks=picks))


def test_run_from_a_file(image, tmp_path) -> None:
    """Nothing is known but what the run says."""
    picks = found(image).without([4])
    run = finish(jobs.analysis(ordered(image, picks=picks))).run
    opened = load_run(save_run(run, tmp_path / "a.shiftvae"))
    code = script_jobs.of_image(opened, image, None, NOTHING)
    assert numbers_of(code, "im_age 0.shiftvae") == atoms_csv(run.atoms)


def test_other_pixels_are_refused(image) -> None:
    order = ordered(image)
    run = finish(jobs.analysis(order)).run
    changed = replace(image, path=None, data=image.data + 1)
    with pytest.raises(InputError, match="not those that were analysed"):
        script_jobs.of_image(run, changed, order, NOTHING)


def test_atoms_alone(image) -> None:
    picks = found(image).without([3]).added((40.25, 51.5))
    code = script_jobs.of_atoms(image, picks, FindSettings())
    exec(code, {"__name__": "copied"})  # noqa: S102 - what is tested
    made = pd.read_csv("im_age 0 atoms.csv")
    np.testing.assert_array_equal(made, picks.positions_yx)
    with pytest.raises(InputError, match="use Export in the Atoms tab"):
        script_jobs.of_atoms(
            image, Picks.of(picks.positions_yx + 0.1, by_hand=False), FindSettings()
        )


@pytest.mark.parametrize("by_hand", [False, True])
def test_stack(tmp_path, monkeypatch, by_hand) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [perovskite(rng=np.random.default_rng(n), shape=(120, 130)) for n in range(2)]
    tifffile.imwrite("stack.tif", np.stack([one.image for one in frames]), photometric="minisblack")
    picks = None
    if by_hand:
        places = [one.truth[["y_px", "x_px"]].to_numpy() for one in frames]
        of_frame = np.repeat([0, 1], [len(one) for one in places])
        picks = Picks.of(np.concatenate(places), by_hand=False, t=of_frame)
    order = sequence_jobs.Order(
        stack=read_image("stack.tif", stacks=True),
        find=FindSettings(),
        train=TRAIN,
        device="cpu",
        picks=picks,
        share=0.5,
        folder=tmp_path / "by hand",
    )
    finish(sequence_jobs.analysis(order))
    code = script_jobs.of_stack(order, None, NOTHING)
    exec(code, {"__name__": "copied"})  # noqa: S102 - what is tested
    tables = [Path(folder, "atoms.csv").read_bytes() for folder in ("by hand", "stack frames")]
    assert tables[0] == tables[1]


@pytest.fixture
def sorted_stack(tmp_path, monkeypatch):
    """Two frames, and their true atoms with their sublattices."""
    monkeypatch.chdir(tmp_path)
    made = [perovskite(rng=np.random.default_rng(n), shape=(150, 150)) for n in range(2)]
    tifffile.imwrite("stack.tif", np.stack([one.image for one in made]), photometric="minisblack")
    truth = pd.concat([one.truth.assign(t=t) for t, one in enumerate(made)], ignore_index=True)
    return sequence_jobs.Order(
        stack=read_image("stack.tif", stacks=True),
        find=FindSettings(),
        train=replace(TRAIN, sublattices="given", check_seed=True),
        device="cpu",
        picks=Picks.read(truth, by_hand=True),
        share=0.5,
        folder=tmp_path / "by hand",
    )


@pytest.mark.parametrize("use", ["given", "examples", "trained"])
def test_stack_with_sublattices_and_what_was_read_from_a_frame(sorted_stack, use) -> None:
    """Also where its frames were read with a model of sublattices."""
    order = sorted_stack
    if use == "examples":
        order = replace(order, train=replace(TRAIN, sublattices="examples"))
    made = finish(sequence_jobs.analysis(order)).run
    if use == "trained":
        trained = jobs.Trained(run=made.run, path=None, resample=False, own_intensity=True)
        order = replace(order, trained=trained, folder=order.folder.with_name("second"))
        made = finish(sequence_jobs.analysis(order)).run
    frame = sequence_jobs.shown(made, order.stack, 1).run
    options = Options(vectors="polar displacement between sublattices", position="whole pattern")
    names = order.picks.sublattice[order.picks.t == 1]
    results = script_jobs.Results(
        fields=Fields(options=options), sublattice=names, positions_yx=frame.picks_yx
    )
    space = {"__name__": "copied"}
    exec(script_jobs.of_stack(order, 1, results), space)  # noqa: S102 - what is tested
    tables = [Path(folder, "atoms.csv") for folder in (order.folder, "stack frames")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    expected = read_out(frame, options, sublattice=names)
    np.testing.assert_array_equal(space["vectors"], expected.field.true_yx_px)


def test_classes_and_fields_of_an_image(image) -> None:
    """With a region drawn as the reference, and another size of a pixel."""
    order = ordered(image)
    run = finish(jobs.analysis(order)).run
    classes = Classes(
        columns=["z1", "z2"],
        method="gaussian mixture",
        criterion="icl",
        count=2,
        seed=4,
        split=True,
    )
    outline = [(20.0, 20.0), (20.0, 100.5), (110.0, 100.5), (110.0, 20.0)]
    options = Options(vectors="displacement from the lattice", trend="affine")
    fields = Fields(options=options, regions=[outline], pixel_size_nm=(0.02, 0.021))
    results = script_jobs.Results(classes=classes, fields=fields)
    space = {"__name__": "copied"}
    exec(script_jobs.of_image(run, image, order, results), space)  # noqa: S102 - what is tested
    patches = patches_of(run, image)
    sort = ClassOrder(
        method="gaussian mixture", criterion="icl", count=2, by_axes=False, split=True
    )
    found = classify(run, patches, run.atoms[["z1", "z2"]].to_numpy(), sort)
    np.testing.assert_array_equal(space["label"], found.run.atoms["class"])
    region = polygon2mask(image.data.shape, outline)
    _, expected = read(run, vars(options), region, {"pixel_size_nm": (0.02, 0.021)})
    np.testing.assert_array_equal(space["vectors"], expected.field.true_yx_px)


@pytest.mark.parametrize("saved", [False, True])
def test_spectra(tmp_path, monkeypatch, saved) -> None:
    monkeypatch.chdir(tmp_path)
    made = peak_spectra(rng=np.random.default_rng(0), count=120)
    cube = made.spectra.reshape(10, 12, -1)
    np.save("scan.npy", cube)
    order = spectra_jobs.Order(
        cube=cube,
        axis=2,
        axis_scale=0.5,
        axis_unit="eV",
        name="scan",
        path="scan.npy" if saved else "",
        train=TRAIN,
        device="cpu",
    )
    run = finish(spectra_jobs.analysis(order)).run
    exec(script_jobs.of_spectra(order), {"__name__": "copied"})  # noqa: S102 - what is tested
    again = load_spectra(tmp_path / "scan.shiftvae")
    pd.testing.assert_frame_equal(again.atoms, run.atoms, check_dtype=False)


def test_edits() -> None:
    rng = np.random.default_rng(0)
    all_found = rng.normal(size=(200, 2))
    picks = np.insert(np.delete(all_found, [5, 90, 199], axis=0), [0, 0, 50, 197], 7.5, axis=0)
    made = edits(all_found, picks)
    again = np.delete(all_found, made.deleted, axis=0)
    again = np.insert(again, made.before, made.added_yx, axis=0)
    np.testing.assert_array_equal(again, picks)
    assert edits(all_found, all_found[::-1]) is None
    assert edits(all_found, all_found[MOST_EDITS + 1 :]) is None
