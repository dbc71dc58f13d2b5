"""What the forms of the dock edit: parts of `AnalysisConfig` that can be made without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FindSettings:
    """How atoms are found; the fields are those of `AnalysisConfig`.

    Parameters
    ----------
    dark : bool
        Atoms are dark on bright.
    separation_px : float, optional
        Distance between neighbouring atoms [px], estimated where None.
    threshold : float, optional
        How strong a spot must be to be an atom, chosen from the image where None.
    sampling : {"atoms", "grid", "random"}
        Patches around the atoms, or anywhere and then aligned.
    count : int
        How many patches are cut anywhere, before those that meet are merged.
    """

    sampling: Literal["atoms", "grid", "random"] = "atoms"
    count: int = 2000
    dark: bool = False
    separation_px: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How the model is trained; the fields are those of `AnalysisConfig`.

    Parameters
    ----------
    patch_size_px : int, optional
        Side of the square cut around each atom [px], from the atoms' distance where None.
    latent_dim : int
        Number of content latents.
    invariances : tuple of {"shift", "rotation", "scale"}
        What is taken out of the latents; none makes a plain autoencoder.
    classes : int
        Classes of atoms that are learned with the model; 0 for none.
    sublattices : {"ignored", "given", "examples"}
        What those of the Atoms tab are to the model: nothing; classes with patterns and a cage of
        their own; or examples of the classes that it learns.
    smoothness : float
        Weight of the condition that neighbours have similar latents; 0 for none.
    edge_preserving : bool
        Whether walls between domains are left sharp by it.
    decoder : {"fourier", "coordinate"}
    shift_prior_px : float, optional
        Standard deviation of the shift's prior [px], from the atoms' distance where None.
    kl_shift, kl_content : float
        Weights of the Kullback-Leibler terms.
    epochs : int, optional
        Passes over all patches, from their number where None.
    batch_size : int
    seed : int
    check_seed : bool
        Whether to train once more with the next seed and compare the latents.
    """

    patch_size_px: int | None = None
    latent_dim: int = 2
    invariances: tuple[Literal["shift", "rotation", "scale"], ...] = ("shift",)
    classes: int = 0
    sublattices: Literal["ignored", "given", "examples"] = "ignored"
    smoothness: float = 0.0
    edge_preserving: bool = True
    decoder: Literal["fourier", "coordinate"] = "fourier"
    shift_prior_px: float | None = None
    kl_shift: float = 1.0
    kl_content: float = 1.0
    epochs: int | None = None
    batch_size: int = 64
    seed: int = 0
    check_seed: bool = False
