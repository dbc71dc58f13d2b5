"""The analysis once more with another seed, from the command line and through run files."""

import json

import numpy as np

from napari_shiftvae.cli import main
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.seeds import with_seed_check
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig


def test_latents_that_do_not_depend_on_the_seed():
    made = perovskite(rng=np.random.default_rng(5), shape=(300, 300))
    image = MicroscopeImage(data=made.image, name="made")
    config = AnalysisConfig(latent_dim=1, train=TrainConfig(seed=4))
    plain = finish(analyse(image, config))
    checked = finish(with_seed_check(analyse(image, config), image))
    (r2,) = checked.diagnostics.seed_agreement
    assert 0.9 < r2 < 1 - 1e-6  # sublattices; and the second run is another one
    assert checked.diagnostics.sentences[-1].startswith("Another seed gives the same latents")
    # All else is as without the check.
    assert checked.atoms.equals(plain.atoms)
    assert plain.diagnostics.seed_agreement == ()


def test_training_that_was_stopped_is_not_repeated():
    made = perovskite(rng=np.random.default_rng(5), shape=(200, 200))
    image = MicroscopeImage(data=made.image, name="made")
    steps = with_seed_check(analyse(image, AnalysisConfig()), image)
    sent, seen = None, []
    while True:
        try:
            progress = steps.send(sent)
        except StopIteration as end:
            run = end.value
            break
        seen.append(progress.message)
        sent = "stop" if progress.report is not None else None
    assert run.diagnostics.seed_agreement == ()
    assert not any("another seed" in message for message in seen)


def test_asked_for_on_the_command_line(tmp_path, capsys):
    made = perovskite(rng=np.random.default_rng(6), shape=(200, 200))
    np.save(tmp_path / "image.npy", made.image)
    output = tmp_path / "a.shiftvae"
    options = ["run", tmp_path / "image.npy", "--output", output, "--epochs", 2, "--check-seed"]
    assert main([str(one) for one in [*options, "--json"]]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Another seed gives the same latents to") for line in printed)
    assert json.loads(printed[-1])["epochs"] == 2
    diagnostics = load_run(output).diagnostics
    assert len(diagnostics.seed_agreement) == max(1, diagnostics.active_latents)
