"""Stacks and many images: one model, each frame's atoms against known truth, resumable."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.spatial import cKDTree

from napari_shiftvae.cli import main
from napari_shiftvae.core import frames
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.frames import FramesDone, encode_sequence
from napari_shiftvae.core.images import Calibration
from napari_shiftvae.core.progress import Progress, finish
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.sequence import analyse_sequence
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

CONFIG = AnalysisConfig(train=TrainConfig(epochs=60))
CALIBRATION = Calibration(pixel_size_nm=(0.015, 0.015))


@pytest.fixture(scope="module")
def made():
    return [perovskite(rng=np.random.default_rng(seed), shape=(170, 160)) for seed in range(4)]


@pytest.fixture(scope="module")
def stack(made):
    return np.stack([one.image for one in made])


def steps_of(stack, folder):
    return analyse_sequence(stack, CONFIG, folder, share=0.5, calibration=CALIBRATION)


@pytest.fixture(scope="module")
def whole(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "new"
    return finish(steps_of(stack, folder)), folder


def test_every_frame_is_read(whole, made):
    """Frames that the model has never seen no worse than those it learned from."""
    result, _ = whole
    assert result.learned_from == (0, 3)
    for t, one in enumerate(made):
        here = result.atoms[(result.atoms["t"] == t) & (result.atoms["set_aside"] == "")]
        found = here[["atom_y_px", "atom_x_px"]].to_numpy()
        assert len(found) > 30
        assert np.median(cKDTree(one.truth[["y_px", "x_px"]]).query(found)[0]) < 0.2
        np.testing.assert_allclose(here["y_nm"], 0.015 * here["y_px"], rtol=1e-8)


def test_files(whole):
    result, folder = whole
    assert sorted(path.name for path in folder.iterdir()) == [
        "atoms.csv",
        *(f"frame-0000{t}.csv" for t in range(4)),
        "model.shiftvae",
        "sequence.json",
    ]
    table = pd.read_csv(folder / "atoms.csv").fillna({"set_aside": ""})
    assert list(table.columns[:3]) == ["t", "y_px", "x_px"]
    pd.testing.assert_frame_equal(table, result.atoms, check_dtype=False, rtol=1e-9)
    assert load_run(folder / "model.shiftvae").finished


def test_interrupted_sequence_goes_on_without_repeating_frames(stack, whole, tmp_path, monkeypatch):
    result, _ = whole
    for progress in (steps := steps_of(stack, tmp_path)):
        if isinstance(progress, FramesDone) and progress.done == 2:
            break
    steps.close()
    encoded = []
    original = frames.encode_steps

    def counted(run, image, *more, **how):
        encoded.append(image.name)
        return original(run, image, *more, **how)

    monkeypatch.setattr(frames, "encode_steps", counted)
    again = finish(steps_of(stack, tmp_path))
    assert encoded == ["frame 2", "frame 3"]
    pd.testing.assert_frame_equal(again.atoms, result.atoms, check_dtype=False)


def test_interrupted_training_goes_on(stack, whole, tmp_path):
    result, _ = whole
    for progress in (steps := steps_of(stack, tmp_path)):
        if isinstance(progress, Progress) and progress.report is not None:
            break
    steps.close()
    assert (tmp_path / "model.checkpoint.shiftvae").exists()
    again = finish(steps_of(stack, tmp_path))
    pd.testing.assert_frame_equal(again.atoms, result.atoms, check_dtype=False)
    assert not (tmp_path / "model.checkpoint.shiftvae").exists()


@pytest.mark.parametrize("within", [False, True])
def test_stopped_sequence_ends_with_what_there_is_and_goes_on(stack, whole, tmp_path, within):
    """Whether asked to between two frames or while the next one is read."""
    result, _ = whole
    steps, answer, stopped, read = steps_of(stack, tmp_path), None, None, 0
    while stopped is None:
        try:
            progress = steps.send(answer)
        except StopIteration as end:
            stopped = end.value
        read += isinstance(progress, FramesDone)
        ended = isinstance(progress, FramesDone)
        answer = "stop" if read == 2 - within and ended is not within else None
    assert (stopped.frames, result.frames) == (2, 4)
    assert set(stopped.atoms["t"]) == {0, 1}
    again = finish(steps_of(stack, tmp_path))
    pd.testing.assert_frame_equal(again.atoms, result.atoms, check_dtype=False)


def test_positions_can_be_given(stack, made, tmp_path):
    """Here those of three frames; the one without is left out, and said."""
    picks = np.concatenate(
        [
            np.insert(one.truth[["y_px", "x_px"]].to_numpy(), 0, t, axis=1)
            for t, one in enumerate(made)
            if t != 2
        ]
    )
    config = AnalysisConfig(train=TrainConfig(epochs=5))
    result = finish(analyse_sequence(stack, config, tmp_path, positions_tyx=picks, share=0.5))
    np.testing.assert_allclose(result.atoms[["t", "y_px", "x_px"]], picks, rtol=1e-9)
    assert "Frame 2 was left out: there are no atoms in it." in result.sentences
    moved = np.add(picks, [0, 1, 1])
    with pytest.raises(InputError, match="holds another sequence"):
        finish(analyse_sequence(stack, config, tmp_path, positions_tyx=moved, share=0.5))
    with pytest.raises(InputError, match=r"are in frames that do not exist: .* frames 0 to 3"):
        finish(analyse_sequence(stack, config, tmp_path, positions_tyx=[[4, 30, 30]]))


def test_positions_on_the_command_line(stack, whole, tmp_path, capsys):
    """Those of the whole sequence, which makes them the same numbers again."""
    result, _ = whole
    np.save(tmp_path / "stack.npy", stack)
    result.atoms[["t", "y_px", "x_px"]].to_csv(tmp_path / "atoms.csv", index=False)
    result.atoms[["y_px", "x_px"]].to_csv(tmp_path / "no t.csv", index=False)
    options = ["--share", "0.5", "--epochs", "60", "--separation", str(result.run.separation_px)]
    options = [*options, "--pixel-size", "15", "--unit", "pm", "--output", str(tmp_path / "made")]
    command = ["sequence", str(tmp_path / "stack.npy"), *options, "--positions"]
    assert main([*command, str(tmp_path / "no t.csv")]) == 2
    assert "no t.csv has no column t" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "atoms.csv")]) == 0
    table = pd.read_csv(tmp_path / "made" / "atoms.csv").fillna({"set_aside": ""})
    pd.testing.assert_frame_equal(table, result.atoms, check_dtype=False)


def test_frame_that_cannot_be_read_is_left_out(stack, whole, tmp_path):
    result, _ = whole
    blank = stack.copy()
    blank[1] = 7
    made = finish(steps_of(blank, tmp_path))
    assert [s for s in made.sentences if s.startswith("Frame 1 was left out: The image is const")]
    expected = result.atoms[result.atoms["t"] != 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(made.atoms, expected, check_dtype=False)


def test_frames_are_read_one_at_a_time(stack, whole, tmp_path):
    """As of a zarr array: never the whole stack at once."""

    class Lazy:
        def __len__(self):
            return len(stack)

        def __getitem__(self, index):
            assert isinstance(index, int)
            return stack[index]

    made = finish(steps_of(Lazy(), tmp_path))
    pd.testing.assert_frame_equal(made.atoms, whole[0].atoms, check_dtype=False)


def test_other_settings_or_frames_need_another_folder(stack, whole):
    _, folder = whole
    with pytest.raises(InputError, match="holds another sequence"):
        finish(steps_of(stack + 1, folder))
    other = AnalysisConfig(latent_dim=3, train=CONFIG.train)
    with pytest.raises(InputError, match="holds another sequence"):
        finish(analyse_sequence(stack, other, folder, share=0.5))


def test_mistakes(stack, tmp_path):
    for share in (0.0, 1.5):
        with pytest.raises(InputError, match=f"share is {share:g}"):
            finish(analyse_sequence(stack, CONFIG, tmp_path, share=share))
    with pytest.raises(InputError, match="no frame"):
        finish(analyse_sequence(stack[:0], CONFIG, tmp_path))
    with pytest.raises(InputError, match="choose atoms as the sampling"):
        finish(analyse_sequence(stack, AnalysisConfig(sampling="grid"), tmp_path))
    blank = stack.copy()
    blank[0] = 1
    with pytest.raises(InputError, match="Frame 0: The image is constant"):
        finish(steps_of(blank, tmp_path / "blank"))


def test_command_line_takes_a_stack_or_many_files(stack, whole, tmp_path, capsys):
    result, _ = whole
    options = ["--share", "0.5", "--epochs", "60", "--pixel-size", "15", "--unit", "pm"]
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    files = []
    for t, frame in enumerate(stack):
        files.append(str(tmp_path / f"{t}.npy"))
        np.save(files[-1], frame)
    for images, folder in (([str(tmp_path / "stack.tif")], "one"), (files, "many")):
        assert main(["sequence", *images, "--output", str(tmp_path / folder), *options]) == 0
        assert "of 4 frames" in capsys.readouterr().out
        table = pd.read_csv(tmp_path / folder / "atoms.csv").fillna({"set_aside": ""})
        pd.testing.assert_frame_equal(table, result.atoms, check_dtype=False)


def with_classes(made):
    """True places of both kinds of atoms in all frames, and the kind of each."""
    truth = pd.concat([one.truth.assign(t=t) for t, one in enumerate(made)], ignore_index=True)
    return truth[["t", "y_px", "x_px"]].to_numpy(), truth["sublattice"].astype(str).to_numpy()


def test_trained_model_reads_a_stack_as_it_reads_each_image(stack, whole, tmp_path):
    """Resumable too: nothing is read twice, and other pixels are another sequence."""
    result, folder = whole
    run = load_run(folder / "model.shiftvae")
    images = stack[1:]
    for progress in (steps := encode_sequence(run, images, tmp_path, calibration=CALIBRATION)):
        if isinstance(progress, FramesDone):
            break
    steps.close()
    moment = (tmp_path / "frame-00000.csv").stat().st_mtime_ns
    made = finish(encode_sequence(run, images, tmp_path, calibration=CALIBRATION))
    assert (tmp_path / "frame-00000.csv").stat().st_mtime_ns == moment
    expected = result.atoms[result.atoms["t"] > 0].assign(t=lambda table: table["t"] - 1)
    pd.testing.assert_frame_equal(made.atoms, expected.reset_index(drop=True), rtol=1e-6, atol=1e-6)
    assert (made.learned_from, made.run) == ((), run)
    with pytest.raises(InputError, match="holds another sequence"):
        finish(encode_sequence(run, images + 1, tmp_path, calibration=CALIBRATION))
    other = finish(encode_sequence(run, images, tmp_path / "more", calibration=None))
    assert not any(sentence.startswith("The pixels") for sentence in other.sentences)


def test_encode_takes_a_stack_on_the_command_line(stack, whole, tmp_path, capsys):
    result, folder = whole
    np.save(tmp_path / "stack.npy", stack)
    command = ["encode", str(folder / "model.shiftvae"), str(tmp_path / "stack.npy"), "--output"]
    assert main([*command, str(tmp_path / "run.shiftvae")]) == 2
    assert "name a folder" in capsys.readouterr().err
    calibrated = ["--pixel-size", "15", "--unit", "pm"]
    assert main([*command, str(tmp_path / "made"), *calibrated, "--json"]) == 0
    assert '"frames": 4' in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "made" / "atoms.csv").fillna({"set_aside": ""})
    pd.testing.assert_frame_equal(table, result.atoms, check_dtype=False, rtol=1e-6, atol=1e-6)


def test_model_of_given_classes(stack, made, tmp_path):
    """Each frame is read with the classes of its own atoms, which the table has."""
    picks, given = with_classes(made)
    config = AnalysisConfig(train=TrainConfig(epochs=5))
    steps = analyse_sequence(stack, config, tmp_path / "a", positions_tyx=picks, given=given)
    result = finish(steps)
    assert result.run.model.config.given == ("A", "B")
    assert (result.atoms["given_class"] == given).all()
    again = encode_sequence(result.run, stack, tmp_path / "b", positions_tyx=picks, given=given)
    pd.testing.assert_frame_equal(finish(again).atoms, result.atoms, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="holds another sequence"):
        finish(analyse_sequence(stack, config, tmp_path / "a", positions_tyx=picks))
    with pytest.raises(InputError, match="give their positions too"):
        finish(analyse_sequence(stack, config, tmp_path / "c", given=given))


def test_labelled_atoms_of_one_frame_name_classes_in_all(stack, made, tmp_path):
    """The frame that holds them is learned from, whatever the share."""
    picks, kind = with_classes(made)
    labels = np.where(picks[:, 0] == 2, kind, "")
    config = AnalysisConfig(classes=2, train=TrainConfig(epochs=30))
    result = finish(
        analyse_sequence(stack, config, tmp_path, positions_tyx=picks, labels=labels, share=0.5)
    )
    assert result.learned_from == (0, 2, 3)
    table = result.atoms[result.atoms["set_aside"] == ""]
    named = np.array(["A", "B"])[table["class"]]
    assert np.mean(named == kind[table.index]) > 0.99
    assert any("0 A, 1 B" in sentence for sentence in result.run.diagnostics.sentences)


def test_sequence_has_the_options_of_run(stack, tmp_path):
    np.save(tmp_path / "stack.npy", stack)
    options = ["--decoder", "coordinate", "--invariances", "none", "--classes", "2"]
    options = [*options, "--smoothness", "1", "--check-seed", "--epochs", "2", "--no-refine"]
    command = ["sequence", str(tmp_path / "stack.npy"), *options, "--share", "0.25"]
    assert main([*command, "--output", str(tmp_path / "made")]) == 0
    run = load_run(tmp_path / "made" / "model.shiftvae")
    config = run.config
    assert (config.decoder, config.invariances, config.classes) == ("coordinate", (), 2)
    assert config.train.smoothness == 1
    assert run.diagnostics.seed_agreement is not None
    assert "class" in pd.read_csv(tmp_path / "made" / "atoms.csv")


UP_TO_FRAME_2 = """
import sys
import time
from napari_shiftvae.core import frames
from napari_shiftvae.cli import main
original = frames.encode_steps
def held(run, image, *arguments, **options):
    time.sleep(600 if image.name == "frame 2" else 0)
    return original(run, image, *arguments, **options)
frames.encode_steps = held
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_while_frames_are_read_it_goes_on(stack, whole, tmp_path):
    """A real process, by kill -9: no frame that was finished is read again, and none is lost."""
    result, _ = whole
    np.save(tmp_path / "stack.npy", stack)
    command = ["sequence", str(tmp_path / "stack.npy"), "--output", str(tmp_path / "made")]
    command += ["--share", "0.5", "--epochs", "60", "--pixel-size", "15", "--unit", "pm"]
    process = subprocess.Popen([sys.executable, "-c", UP_TO_FRAME_2, *command])  # noqa: S603
    second = tmp_path / "made" / "frame-00001.csv"
    deadline = time.monotonic() + 600
    while not second.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "made" / "atoms.csv").exists()
    moment = second.stat().st_mtime_ns
    assert main(command) == 0
    assert second.stat().st_mtime_ns == moment
    table = pd.read_csv(tmp_path / "made" / "atoms.csv").fillna({"set_aside": ""})
    pd.testing.assert_frame_equal(table, result.atoms, check_dtype=False)
