"""Classes that are given with the atoms: patterns, cage and gauge of each are its own."""

import numpy as np
import pandas as pd
import pytest
import torch

from napari_shiftvae import jobs
from napari_shiftvae.cli import main
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.apply import encode_image
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import Told, given_names
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.manifold import patches_of
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.rendering import rotated_axes
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import graphene, perovskite
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import FindSettings, TrainSettings

SITE = ["site_y_px", "site_x_px"]


def crystal(seed):
    made = perovskite(rng=np.random.default_rng(seed), shape=(260, 260))
    sublattice = made.truth["sublattice"].to_numpy().astype(str)
    return made, made.truth[SITE].to_numpy(), sublattice


def analysed(made, sites, given, **train):
    config = AnalysisConfig(separation_px=made.separation_px, train=TrainConfig(**train))
    image = MicroscopeImage(data=made.image, name="made")
    return finish(analyse(image, config, positions_yx=sites, given=given))


@pytest.fixture(scope="module")
def conditional():
    made, sites, sublattice = crystal(3)
    return analysed(made, sites, sublattice, seed=3), made, sites, sublattice


def against_cage_px(run, sites):
    """Central atom against the whole pattern (N, 2) [px], along the polar axis and across it."""
    whole = sites + run.atoms[["shift_y_px", "shift_x_px"]].to_numpy()
    return (run.atom_yx - whole) @ np.stack(rotated_axes(0.03)).T


def test_each_sublattice_moves_against_its_own_cage(conditional):
    run, made, sites, sublattice = conditional
    found = against_cage_px(run, sites)
    truth = made.truth["displacement_y_px"].to_numpy()
    common = against_cage_px(analysed(made, sites, None, seed=3), sites)
    constant = []
    for name in "AB":
        own = run.used & (sublattice == name)
        assert abs(np.corrcoef(found[own, 0], truth[own])[0, 1]) > 0.97
        # Nothing is displaced across the polar axis.
        constant.append([abs(each[own, 1].mean()) for each in (found, common)])
    worst = np.max(constant, axis=0)
    assert worst[0] < 0.002
    assert worst[1] > 5 * worst[0] + 0.01  # one cage for both is neither's


def test_a_model_reads_the_class_it_is_given(conditional):
    run = conditional[0]
    model, count = run.model, len(run.fit)
    assert model.config.given == ("A", "B")
    assert model.template.shape[0] == model.origin.shape[0] == 2
    z = torch.zeros(2, model.config.latent_dim)
    with torch.no_grad():
        patterns = model.decode(torch.cat([z, torch.eye(2)], dim=1))
        first = model.decode(z)
    middle = patterns.shape[1] // 2
    assert patterns[0, middle, middle] > patterns[1, middle, middle] + 0.3  # A is the brighter one
    torch.testing.assert_close(first[0], patterns[0])  # no class told: the first
    assert run.fit.content.shape == (count, model.config.latent_dim + 2)


def test_derivatives_by_latents_leave_the_class_alone():
    for decoder in ("fourier", "coordinate"):
        config = ModelConfig(
            patch_size_px=12, separation_px=6, decoder=decoder, given=("a", "b", "c")
        )
        model = ShiftVAE(config, torch.Generator().manual_seed(0)).double()
        z = torch.randn(3, 2, dtype=torch.float64)
        told, pose = torch.eye(3, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
        found = model.linearise(torch.cat([z, told], dim=1), pose).by_latent
        step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
        up, down = (model.decode(torch.cat([z + s, told], dim=1)) for s in (step, -step))
        assert found.shape[1] == 2
        torch.testing.assert_close(found[:, 0], (up - down) / 2e-5, rtol=1e-5, atol=1e-8)


def test_saved_loaded_and_gone_on_with(conditional, tmp_path):
    run, made, _, sublattice = conditional
    image = MicroscopeImage(data=made.image, name="made")
    loaded = load_run(save_run(run, tmp_path / "made.shiftvae"))
    assert loaded.model.config == run.model.config
    assert (loaded.atoms["given_class"] == sublattice).all()
    torch.testing.assert_close(patches_of(loaded, image).given, run.training.patches.given)
    on = AnalysisConfig(train=TrainConfig(epochs=run.epochs + 2))
    longer = finish(analyse(image, on, resume=loaded))
    assert longer.epochs == run.epochs + 2
    assert (longer.atoms["given_class"] == sublattice).all()


def test_another_image_is_read_with_or_without_its_classes(conditional):
    run = conditional[0]
    made, sites, sublattice = crystal(4)
    image = MicroscopeImage(data=made.image, name="other")
    told = finish(encode_image(run, image, sites, given=sublattice))
    guessed = finish(encode_image(run, image, sites))
    used = guessed.used
    assert (guessed.atoms["given_class"] == sublattice)[used].mean() > 0.99
    np.testing.assert_allclose(guessed.atom_yx[used], told.atom_yx[used], atol=0.05)
    with pytest.raises(InputError, match=r"No atom is of a class that the model knows \(A, B\)"):
        finish(encode_image(run, image, sites, given=np.full(len(sites), "C")))


def test_atoms_of_no_class_are_set_aside_and_counted():
    made, sites, sublattice = crystal(5)
    given = np.where(np.arange(len(sites)) % 50 == 0, "", sublattice)
    run = analysed(made, sites, given, epochs=1)
    apart = run.atoms["set_aside"].to_numpy()[given == ""]
    assert set(apart) <= {"no class", "border"}
    assert "no class" in apart
    assert any("which are of no class" in each for each in run.diagnostics.sentences)
    assert run.atoms.loc[given == "", "z1"].isna().all()


def test_what_cannot_be_given_is_said():
    with pytest.raises(InputError, match=r"only one class \(A\): group them into sublattices"):
        given_names(np.array(["A"] * 40 + [""]))
    with pytest.raises(InputError, match="Class B has 3 atoms and the model needs at least 16"):
        given_names(np.array(["A"] * 40 + ["B"] * 3))
    with pytest.raises(InputError, match="give one class for each of the 4 atoms"):
        Told.of_picks(4, ["A"], None)
    with pytest.raises(InputError, match="name 2 to 64 different classes"):
        ModelConfig(patch_size_px=16, separation_px=8, given=("A", "A"))


def table_of(made, tmp_path, **columns):
    path = tmp_path / "atoms.csv"
    sites = made.truth[SITE].to_numpy()
    pd.DataFrame({"y_px": sites[:, 0], "x_px": sites[:, 1], **columns}).to_csv(path, index=False)
    image = tmp_path / "image.npy"
    np.save(image, made.image)
    return image, path


def test_given_classes_on_the_command_line(tmp_path, capsys):
    made, _, sublattice = crystal(6)
    image, csv = table_of(made, tmp_path, column=sublattice)
    output, others = tmp_path / "a.shiftvae", tmp_path / "b.shiftvae"
    options = ["run", image, "--positions", csv, "--epochs", 2, "--condition", "column"]
    assert main([str(one) for one in [*options, "--output", output]]) == 0
    assert load_run(output).model.config.given == ("A", "B")
    options = ["encode", output, image, "--positions", csv, "--condition", "column"]
    assert main([str(one) for one in [*options, "--output", others]]) == 0
    export = ["export", output, "--output", tmp_path / "out"]
    assert main([str(one) for one in export]) == 0
    capsys.readouterr()
    options = ["run", image, "--positions", csv, "--output", output, "--condition", "kind"]
    assert main([str(one) for one in options]) == 2
    assert "no column kind: --condition can be column." in capsys.readouterr().err
    options = ["run", image, "--output", output, "--labels", "kind"]
    assert main([str(one) for one in options]) == 2
    assert "--labels names a column of --positions: give both." in capsys.readouterr().err


def test_labels_on_the_command_line(tmp_path, capsys):
    made = graphene(rng=np.random.default_rng(7), shape=(200, 200))
    kind = made.truth["kind"].to_numpy().astype(str)
    first = np.concatenate([np.flatnonzero(kind == name)[:5] for name in np.unique(kind)])
    label = np.where(np.isin(np.arange(len(kind)), first), kind, "")
    image, csv = table_of(made, tmp_path, kind=label)
    output = tmp_path / "a.shiftvae"
    options = ["run", image, "--positions", csv, "--epochs", 3, "--labels", "kind"]
    assert main([str(one) for one in [*options, "--output", output]]) == 0
    assert "Classes, by the labels: 0 carbon, 1 dopant, 2 vacancy." in capsys.readouterr().out
    run = load_run(output)
    assert run.model.config.classes == 3
    number = np.array([{"carbon": 0, "dopant": 1, "vacancy": 2}.get(each, -1) for each in label])
    known = run.used & (number >= 0)
    assert (run.atoms["class"].to_numpy()[known] == number[known]).all()
    np.testing.assert_array_equal(run.atoms["label"].fillna(-1), number)


def ordered(made, sublattice, use):
    """Analyse as the dock does, with one epoch."""
    picks = Picks.of(made.truth[SITE].to_numpy(), by_hand=False)
    picks.table["sublattice"] = sublattice
    order = jobs.Order(
        image=MicroscopeImage(data=made.image, name="made"),
        find=FindSettings(),
        train=TrainSettings(epochs=1, sublattices=use),
        device="cpu",
        picks=picks,
        resume=None,
    )
    steps = jobs.analysis(order)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.run


def test_sublattices_of_the_dock_are_given_or_are_examples(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_shiftvae.core.checkpoint.runs_folder", lambda: tmp_path)
    made, _, sublattice = crystal(8)
    assert ordered(made, sublattice, "given").model.config.given == ("A", "B")
    few = np.where(np.arange(len(sublattice)) % 30 == 0, sublattice, "")
    run = ordered(made, few, "examples")
    assert run.model.config.classes == 2
    assert run.model.config.patch_size_px < made.separation_px
    assert (run.atoms["label"].notna() == (few != "")).all()
    with pytest.raises(InputError, match="The atoms are in no sublattices: group them"):
        ordered(made, np.full(len(few), ""), "given")
