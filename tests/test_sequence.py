"""Stacks and many images: one model, each frame's atoms against known truth, resumable."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.spatial import cKDTree

from napari_shiftvae.cli import main
from napari_shiftvae.core import sequence
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration
from napari_shiftvae.core.progress import finish
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.sequence import FramesDone, analyse_sequence
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
    original = sequence.encode_steps
    monkeypatch.setattr(
        sequence,
        "encode_steps",
        lambda run, image, *more: encoded.append(image.name) or original(run, image, *more),
    )
    again = finish(steps_of(stack, tmp_path))
    assert encoded == ["frame 2", "frame 3"]
    pd.testing.assert_frame_equal(again.atoms, result.atoms, check_dtype=False)


def test_interrupted_training_goes_on(stack, whole, tmp_path):
    result, _ = whole
    for progress in (steps := steps_of(stack, tmp_path)):
        if isinstance(progress, sequence.Progress) and progress.report is not None:
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
    steps, answer, stopped, frames = steps_of(stack, tmp_path), None, None, 0
    while stopped is None:
        try:
            progress = steps.send(answer)
        except StopIteration as end:
            stopped = end.value
        frames += isinstance(progress, FramesDone)
        ended = isinstance(progress, FramesDone)
        answer = "stop" if frames == 2 - within and ended is not within else None
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
