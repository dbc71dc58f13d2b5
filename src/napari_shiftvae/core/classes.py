"""Classes learned with the model: each atom belongs to one, and each has its own prior of latents.

``p(z) = sum_c w_c N(z; m_c, S_c)`` takes the place of ``N(0, 1)``, as in Z. Jiang et al.,
arXiv:1611.05148, but without sampling: for a class the divergence from its prior is known in closed
form, and over the classes the best ``q(c)`` as well, so that the bound holds
``-log sum_c w_c exp(-KL_c)``. Atoms of known class enter with theirs alone, and with the cross
entropy of the class they would be given (D. P. Kingma et al., arXiv:1406.5298).

Weights, means and covariances of the classes follow the latents once an epoch by
expectation-maximisation, which climbs the same bound. It begins at the mixture whose classes lie
farthest apart, in units of the latents' posterior deviation, so that latents which carry nothing
have no say. Where all classes have labelled atoms, they
follow these alone, with one covariance: a climb over all atoms leads small classes astray, to
whatever is more frequent, such as the neighbours of defects. A single step of it, at the end, tells
how wide and how frequent each class is, which a few labelled atoms do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from napari_shiftvae.core.errors import InputError

if TYPE_CHECKING:
    from napari_shiftvae.core.infer import Fit
    from napari_shiftvae.core.model import ShiftVAE

__all__ = ["ClassPrior", "Labels", "class_of", "with_classes"]

STARTS = 20  # of the first mixture: rare classes are missed by most
FLOOR = 0.03**2  # of a variance, in units of the prior; a class of one atom keeps some width
LABELLED_FLOOR = 0.1**2  # the same where a few labelled atoms are all there is to go by
LABEL_WEIGHT = 10.0  # of the cross entropy of a labelled atom [nat per nat]
MOST_POINTS = 20_000  # that it is fitted to
ROUNDS = 5  # of expectation-maximisation in an epoch
LAST_ROUNDS = 50
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Classes that are known.

    Attributes
    ----------
    number : (N,) int64 tensor
        Class of each window, from 0; -1 where it is not known.
    """

    number: Tensor

    @classmethod
    def of_picks(
        cls, number: NDArray[np.int64] | None, classes: int, index: NDArray[np.int64]
    ) -> Labels | None:
        """Check the numbers of all M picks, and keep those of the N that have a window.

        Parameters
        ----------
        number : (M,) int array or None
        classes : int
            How many there are.
        index : (N,) int array
            Rows of the picks.
        """
        if number is None:
            return None
        if not classes:
            raise InputError("There are labels and no classes to learn: set classes to 2 or more.")
        if not (number.min() >= -1 and number.max() < classes):
            raise InputError(
                f"labels reach from {number.min()} to {number.max()}; with {classes} classes give "
                f"-1, where the class is not known, to {classes - 1}."
            )
        return cls(number=torch.from_numpy(number[index]))


class ClassPrior(nn.Module):
    """Mixture of C normal distributions of K latents, not ready until it was first fitted.

    Parameters
    ----------
    classes, latents : int
    """

    def __init__(self, classes: int, latents: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.mean: Tensor
        self.covariance: Tensor
        self.register_buffer("weight", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, latents))
        self.register_buffer("covariance", torch.eye(latents).repeat(classes, 1, 1))

    @property
    def ready(self) -> bool:
        """Whether it was fitted."""
        return bool(self.weight.sum() > 0)

    def log_joint(self, z: Tensor, variance: Tensor) -> Tensor:
        """Log weight minus divergence from the prior of each class, (B, C) [nat].

        Parameters
        ----------
        z, variance : (B, K) tensors
            Of the latents' posterior.
        """
        inverse = torch.linalg.inv(self.covariance)  # (C, K, K)
        off = z[:, None] - self.mean
        square = torch.einsum("bck,ckl,bcl->bc", off, inverse, off)
        trace = variance @ inverse.diagonal(dim1=1, dim2=2).T
        volume = torch.logdet(self.covariance) - variance.log().sum(dim=1, keepdim=True)
        divergence = 0.5 * (square + trace - z.shape[1] + volume)
        joint: Tensor = (self.weight + 1e-12).log() - divergence
        return joint

    def divergence(self, z: Tensor, log_sd: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean divergence from the mixture, and mean cost of wrong classes [nat].

        Parameters
        ----------
        z, log_sd : (B, K) tensors
        label : (B,) int tensor
            -1 where the class is not known.
        """
        joint = self.log_joint(z, (2 * log_sd).exp())
        every = torch.logsumexp(joint, dim=1)
        known = label >= 0
        own = joint.gather(1, label.clamp_min(0)[:, None])[:, 0]
        wrong = torch.where(known, every - own, 0.0)
        return -torch.where(known, own, every).mean(), LABEL_WEIGHT * wrong.mean()

    @torch.no_grad()
    def follow(self, z: Tensor, variance: Tensor, label: Tensor, rounds: int = ROUNDS) -> None:
        """Climb the bound for latents (N, K) that stay as they are, or follow the labels."""
        groups = [z[label == number] for number in range(len(self.weight))]
        if all(len(group) for group in groups):
            self._of_labelled(groups)
            return
        if not self.ready:
            self._begin(z, variance)
        for _ in range(rounds):
            self._climb(z, variance, label)

    @torch.no_grad()
    def settle(self, z: Tensor, variance: Tensor, label: Tensor) -> None:
        """Climb to the end; from a new beginning, too, where no labels say which classes.

        Where labelled atoms have said which classes, all atoms say how wide and how frequent these
        are, in a single step: more would lead astray.
        """
        self.follow(z, variance, label, LAST_ROUNDS)
        if len(label[label >= 0].unique()) == len(self.weight):
            self._climb(z, variance, label)
        if (label >= 0).any():
            return
        other = ClassPrior(*self.mean.shape).to(z.device)
        other.follow(z, variance, label, LAST_ROUNDS)
        if other.completed_bound(z, variance) > self.completed_bound(z, variance):
            self.load_state_dict(other.state_dict())

    def _climb(self, z: Tensor, variance: Tensor, label: Tensor) -> None:
        """One round of expectation-maximisation."""
        share = self.shares(z, variance, label)
        total = share.sum(dim=0).clamp_min(1e-6)
        self.weight.copy_(total / total.sum())
        self.mean.copy_(share.T @ z / total[:, None])
        off = z[:, None] - self.mean
        spread = torch.einsum("bc,bck,bcl->ckl", share, off, off)
        spread += torch.diag_embed(share.T @ variance)
        floor = FLOOR * torch.eye(z.shape[1], device=z.device)
        self.covariance.copy_(spread / total[:, None, None] + floor)

    def completed_bound(self, z: Tensor, variance: Tensor) -> float:
        """Mean bound on the latents (N, K) less the entropy of the classes [nat]."""
        share = self.log_joint(z, variance).log_softmax(dim=1)
        entropy = -(share.exp() * share).sum(dim=1)
        return float((self.log_joint(z, variance).logsumexp(dim=1) - entropy).mean())

    def shares(self, z: Tensor, variance: Tensor, label: Tensor) -> Tensor:
        """Probability of each class, (B, C); certain where it is known."""
        share = self.log_joint(z, variance).softmax(dim=1)
        known = nn.functional.one_hot(label.clamp_min(0), share.shape[1]).to(share)
        return torch.where((label >= 0)[:, None], known, share)

    def _of_labelled(self, groups: list[Tensor]) -> None:
        self.mean.copy_(torch.stack([group.mean(dim=0) for group in groups]))
        off = torch.cat([group - group.mean(dim=0) for group in groups])
        within = off.T @ off / max(1, len(off) - len(groups))
        within += LABELLED_FLOOR * torch.eye(len(within), device=within.device)
        self.covariance.copy_(within.expand_as(self.covariance))
        self.weight.fill_(1 / len(groups))

    def _begin(self, z: Tensor, variance: Tensor) -> None:
        """Choose the first mixture: of some, the one whose classes are farthest apart."""
        unit = variance.mean(dim=0).sqrt()
        every = (z / unit).cpu().double().numpy()
        some = every[:: -(-len(every) // MOST_POINTS)]
        mixtures = [
            GaussianMixture(
                len(self.weight), init_params="k-means++", reg_covar=1.0, random_state=start
            ).fit(some)
            for start in range(STARTS)
        ]
        best = max(mixtures, key=lambda mixture: completed_likelihood(mixture, some))
        scale = unit.cpu().double().numpy()
        for name, value in (
            ("weight", best.weights_),
            ("mean", best.means_ * scale),
            ("covariance", best.covariances_ * np.outer(scale, scale)),
        ):
            getattr(self, name).copy_(torch.from_numpy(value).float())


def completed_likelihood(mixture: GaussianMixture, points: NDArray[np.float64]) -> float:
    """Log likelihood less the entropy of the assignments, the mean over points (N, K) [nat].

    High for classes that lie apart, where the likelihood alone would rather describe the shape of
    the largest class by several (C. Biernacki, G. Celeux, G. Govaert, *IEEE Trans. Pattern Anal.
    Mach. Intell.* 22, 719 (2000), doi:10.1109/34.865189).
    """
    share = mixture.predict_proba(points)
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(axis=1).mean()
    return float(mixture.score(points) - entropy)


@torch.no_grad()
def class_of(
    model: ShiftVAE, fit: Fit, labels: Labels | None = None, *, follow: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sort atoms into the classes of a model.

    Parameters
    ----------
    model : ShiftVAE
        With classes.
    fit : Fit
        Of N windows.
    labels : Labels, optional
        Of the same N.
    follow : bool
        Whether the classes are brought up to date with the fit first. Those of a model that reads
        another image stay.

    Returns
    -------
    number : (N,) int array
        Class of each: the one labelled so; without labels 0 is the largest.
    probability : (N, C) array

    Raises
    ------
    InputError
        If the model has no classes.
    """
    prior = model.classes
    if prior is None:
        raise InputError("The model has no classes: train one with classes above 0.")
    # The prior knows the latents as the decoder does.
    z = fit.z @ model.gauge.T
    variance = fit.covariance.diagonal(dim1=1, dim2=2)[:, fit.pose.shape[1] :] @ model.gauge.abs().T
    label = torch.full((len(z),), UNKNOWN) if labels is None else labels.number
    label = label.to(z.device)
    if follow:
        prior.settle(z, variance, label)
    if follow and not (label >= 0).any():
        order = torch.argsort(prior.weight, descending=True, stable=True)
        for value in (prior.weight, prior.mean, prior.covariance):
            value.copy_(value[order].clone())
    share = prior.shares(z, variance, label).cpu().double().numpy()
    return share.argmax(axis=1).astype(np.int64), share


def with_classes(
    atoms: pd.DataFrame, number: NDArray[np.int64], probability: NDArray[np.float64]
) -> pd.DataFrame:
    """Add classes to a table of atoms.

    Parameters
    ----------
    atoms : pandas.DataFrame
        M rows, of which N have an empty ``set_aside``, the last column.
    number : (N,) int array
    probability : (N, C) array

    Returns
    -------
    pandas.DataFrame
        With ``class`` (-1 for atoms that are set aside) and ``class_0_probability`` ... (NaN).
    """
    used = (atoms["set_aside"] == "").to_numpy()
    table = atoms.copy()
    columns: dict[str, NDArray[Any]] = {"class": np.full(len(atoms), UNKNOWN)}
    columns["class"][used] = number
    for place, column in enumerate(probability.T):
        columns[f"class_{place}_probability"] = np.full(len(atoms), np.nan)
        columns[f"class_{place}_probability"][used] = column
    for name, values in columns.items():
        table.insert(len(table.columns) - 1, name, values)
    return table
