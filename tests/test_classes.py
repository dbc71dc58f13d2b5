"""Classes: found without labels, found better with a few, and their part of the bound is exact."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.classes import LABEL_WEIGHT, ClassPrior, Labels, class_of
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import Told
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import graphene
from napari_shiftvae.core.train import TrainConfig

KINDS = ["carbon", "dopant", "vacancy"]


def sheet(seed):
    """Graphene, all its sites, vacancies too, and what is on them."""
    made = graphene(rng=np.random.default_rng(seed), shape=(300, 300))
    kind = np.searchsorted(KINDS, made.truth["kind"].to_numpy().astype(str))
    return made, made.truth[["site_y_px", "site_x_px"]].to_numpy(), kind


def classified(made, sites, *, size, latents=1, labels=None, **train):
    config = AnalysisConfig(
        patch_size_px=size,
        separation_px=made.separation_px,
        latent_dim=latents,
        classes=3,
        normalisation="global",
        train=TrainConfig(**train),
    )
    image = MicroscopeImage(data=made.image, name="made")
    return finish(analyse(image, config, positions_yx=sites, labels=labels))


def few_labels(kind, run_used, rng, each=5):
    label = np.full(len(kind), -1)
    for number in range(3):
        label[rng.permutation(np.flatnonzero(run_used & (kind == number)))[:each]] = number
    return label


@pytest.fixture(scope="module")
def unsupervised():
    made, sites, kind = sheet(0)
    return classified(made, sites, size=10), kind


def test_kinds_of_atoms_are_found_without_labels(unsupervised):
    run, kind = unsupervised
    found = run.atoms["class"].to_numpy()
    assert adjusted_rand_score(kind[run.used], found[run.used]) >= 0.98
    assert (np.diff(np.bincount(found[run.used])) <= 0).all()  # 0 is the largest


def test_kinds_are_found_with_all_else_at_its_default():
    """The window holds one atom, and the latents to spare have no say in the classes."""
    made, sites, kind = sheet(2)
    config = AnalysisConfig(separation_px=made.separation_px, latent_dim=3, classes=3)
    run = finish(analyse(MicroscopeImage(data=made.image, name="made"), config, positions_yx=sites))
    assert run.model.config.patch_size_px < made.separation_px
    assert adjusted_rand_score(kind[run.used], run.atoms["class"][run.used]) >= 0.98


def test_five_labels_a_class_are_enough():
    """In windows that hold neighbours, where without labels the sublattices are found instead."""
    made, sites, kind = sheet(1)
    inside = ((sites > 9) & (sites < 290)).all(axis=1)
    label = few_labels(kind, inside, np.random.default_rng(1))
    run = classified(made, sites, size=14, latents=2, labels=label)
    asked = run.used & (label < 0)
    found = run.atoms["class"].to_numpy()
    assert adjusted_rand_score(kind[asked], found[asked]) >= 0.995
    assert (found == kind)[run.used].mean() > 0.999  # and they bear the numbers of the labels


def test_table_holds_classes_and_their_probabilities(unsupervised, tmp_path):
    run, _ = unsupervised
    probability = run.atoms[[f"class_{number}_probability" for number in range(3)]].to_numpy()
    assert run.atoms.columns[-1] == "set_aside"
    np.testing.assert_allclose(probability[run.used].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(
        probability[run.used].argmax(axis=1), run.atoms["class"].to_numpy()[run.used]
    )
    assert np.isnan(probability[~run.used]).all()
    assert (run.atoms["class"].to_numpy()[~run.used] == -1).all()
    save_run(run, tmp_path / "sorted.shiftvae")
    again = load_run(tmp_path / "sorted.shiftvae")
    assert (again.atoms["class"].to_numpy() == run.atoms["class"].to_numpy()).all()
    assert torch.equal(again.model.classes.mean, run.model.classes.mean)


def test_divergence_is_that_of_the_mixture():
    """For a posterior much narrower than the classes: minus the log density, up to its entropy."""
    prior = ClassPrior(2, 2)
    prior.weight.copy_(torch.tensor([0.3, 0.7]))
    prior.mean.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0]]))
    prior.covariance.copy_(torch.tensor([[[1.0, 0.5], [0.5, 2.0]], [[0.5, 0.0], [0.0, 0.1]]]))
    z = torch.tensor([[0.3, 0.4], [1.9, -1.2], [5.0, 5.0]])
    log_sd = torch.full_like(z, -6.0)
    parts = [
        weight.log() + torch.distributions.MultivariateNormal(mean, cov).log_prob(z)
        for weight, mean, cov in zip(prior.weight, prior.mean, prior.covariance, strict=True)
    ]
    joint = torch.stack(parts, 1)
    entropy = (log_sd + 0.5 * np.log(2 * np.pi * np.e)).sum(dim=1)
    unknown = torch.full((3,), -1)
    found, wrong = prior.divergence(z, log_sd, unknown)
    expected = -(torch.logsumexp(joint, 1) + entropy).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    assert wrong == 0
    found, wrong = prior.divergence(z, log_sd, torch.tensor([1, 1, 1]))
    assert float(found) == pytest.approx(float(-(joint[:, 1] + entropy).mean()), rel=1e-4)
    miss = (torch.logsumexp(joint, 1) - joint[:, 1]).mean()
    assert float(wrong) == pytest.approx(LABEL_WEIGHT * float(miss), rel=1e-3)


def test_mixture_follows_rare_classes():
    rng = np.random.default_rng(0)
    number = rng.choice(3, size=3000, p=[0.97, 0.02, 0.01])
    means = np.array([[0.0, 0.0], [2.0, 1.0], [-2.0, 1.5]])
    z = torch.from_numpy(means[number] + 0.2 * rng.standard_normal((3000, 2))).float()
    prior = ClassPrior(3, 2)
    assert not prior.ready
    prior.follow(z, torch.full_like(z, 1e-4), torch.full((3000,), -1))
    assert prior.ready
    order = torch.argsort(prior.weight, descending=True)
    np.testing.assert_allclose(prior.weight[order], np.bincount(number) / 3000, atol=2e-3)
    np.testing.assert_allclose(prior.mean[order], means, atol=0.2)


def test_latents_that_carry_nothing_have_no_say():
    """Their means are far below their deviation, yet apart so that classes could follow them."""
    rng = np.random.default_rng(1)
    number = rng.choice(3, size=2000, p=[0.97, 0.02, 0.01])
    z = np.column_stack([np.array([0.0, 3.0, -3.0])[number], rng.choice([-0.15, 0.15], 2000)])
    z += [0.3, 0.01] * rng.standard_normal((2000, 2))
    variance = torch.tensor([[0.3**2, 0.98]]).expand(2000, -1)
    prior = ClassPrior(3, 2)
    latents = torch.from_numpy(z).float()
    prior.follow(latents, variance, torch.full((2000,), -1))
    found = prior.shares(latents, variance, torch.full((2000,), -1)).argmax(dim=1)
    assert adjusted_rand_score(number, found) >= 0.98


def test_classes_are_asked_for_in_words():
    rows = np.arange(3)
    assert Labels.of_picks(None, 2, rows) is None
    assert Labels.of_picks(np.array([1, 0, -1]), 2, rows[1:]).number.tolist() == [0, -1]
    with pytest.raises(InputError, match=r"labels has the shape \(3,\); give one name or whole"):
        Told.of_picks(4, None, [0, 1, -1])
    with pytest.raises(InputError, match="labels reach from -1 to 2; with 2 classes give -1"):
        Labels.of_picks(np.array([0, 2, -1]), 2, rows)
    with pytest.raises(InputError, match="There are labels and no classes to learn"):
        Labels.of_picks(np.array([0, 1, -1]), 0, rows)
    with pytest.raises(InputError, match="classes is 17"):
        AnalysisConfig(classes=17)
    model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8))
    with pytest.raises(InputError, match="The model has no classes"):
        class_of(model, None)


def test_labels_are_not_led_astray_by_what_is_frequent():
    """Two labelled classes, and a third crowd between them that belongs to the first."""
    rng = np.random.default_rng(0)
    means = np.repeat([[0.0], [3.0], [1.2]], [800, 10, 190], axis=0)
    z = torch.from_numpy(means + 0.1 * rng.standard_normal(means.shape)).float()
    label = torch.full((1000,), -1)
    label[:5], label[800:805] = 0, 1
    prior = ClassPrior(2, 1)
    for bring_up_to_date in (prior.follow, prior.settle):
        bring_up_to_date(z, torch.full_like(z, 1e-4), label)
        share = prior.shares(z, torch.full_like(z, 1e-4), label)
        assert (share.argmax(dim=1).numpy() == (means[:, 0] == 3.0)).all()


def test_all_atoms_say_how_wide_a_labelled_class_is():
    """Five labels of a crowd that is wider than the rare classes tell its width badly."""
    count, wrong = np.array([1350, 28, 14]), {"labels": 0, "all atoms": 0}
    number = np.repeat([0, 1, 2], count)
    mean = np.repeat([[1.3, 0.3], [4.6, 0.2], [-3.8, -0.2]], count, axis=0)
    sd = np.repeat([[0.7, 0.4], [0.17, 0.3], [0.15, 0.2]], count, axis=0)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        z = torch.from_numpy(mean + sd * rng.standard_normal(mean.shape)).float()
        variance = torch.full_like(z, 0.05)
        label = torch.full((len(z),), -1)
        for one in range(3):
            label[rng.choice(np.flatnonzero(number == one), 5, replace=False)] = one
        prior = ClassPrior(3, 2)
        for way, bring_up_to_date in (("labels", prior.follow), ("all atoms", prior.settle)):
            bring_up_to_date(z, variance, label)
            found = prior.shares(z, variance, label).argmax(dim=1).numpy()
            wrong[way] += int((found != number).sum())
    assert wrong["labels"] > 0
    assert wrong["all atoms"] < 0.5 * wrong["labels"]
