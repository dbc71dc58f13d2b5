"""Everything that fixes an analysis, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.model_config import DecoderKind, Invariance, ordered_invariances
from napari_shiftvae.core.patches import Normalisation
from napari_shiftvae.core.train import TrainConfig

Sampling = Literal["atoms", "grid", "random"]
WINDOWS_BY_DEFAULT = 2000


@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """Settings of one analysis; None means chosen from the image.

    Parameters
    ----------
    sampling : {"atoms", "grid", "random"}
        Windows around found atoms, or anywhere and then aligned.
    count : int, optional
        Number of windows before merging, for grid and random sampling; 2,000 by default.
    dark : bool
        Whether atoms are darker than their surroundings.
    separation_px : float, optional
        Distance between neighbouring atoms [px].
    threshold : float, optional
        Lowest strength of an atom, as `atoms.find_atoms` takes it.
    patch_size_px : int, optional
        Side of the windows [px]; by default they hold the ring of nearest neighbours, or one atom
        where classes are learned.
    normalisation : {"flat", "global", "patch"}
        Slow background removed and one scale of intensity; one offset and scale; or each window's
        own offset and scale.
    latent_dim : int
        Number of content latents.
    decoder : {"fourier", "coordinate"}
    shift_prior_px : float, optional
        Standard deviation of the shift's prior [px]; a twentieth of the separation by default.
    invariances : tuple of {"shift", "rotation", "scale"}
        What is taken out of the content latents; none makes a plain VAE, as a control.
    rotation_prior_rad, scale_prior : float
        Standard deviations of the priors of rotation [rad] and of the scale's logarithm, where
        they are taken out. Rotations up to about 1 rad are found; of motifs turned by 1.5 rad
        many were not.
    band_limit : float, optional
        Highest frequency of the Fourier decoder [cycles/px]; from the power spectrum by default.
    classes : int
        Number of classes of atoms that are learned with the model, 2 to 16; 0 for none. In windows
        that hold neighbours, classes are of these as well: they differ between sublattices, and
        more than kinds of atoms do.
    train : TrainConfig
    refine : bool
        Whether to move every patch to the maximum of its posterior after training.
    device : {"auto", "cpu", "cuda", "mps"}
    """

    sampling: Sampling = "atoms"
    count: int | None = None
    dark: bool = False
    separation_px: float | None = None
    threshold: float | None = None
    patch_size_px: int | None = None
    normalisation: Normalisation = "flat"
    latent_dim: int = 2
    decoder: DecoderKind = "fourier"
    shift_prior_px: float | None = None
    invariances: tuple[Invariance, ...] = ("shift",)
    rotation_prior_rad: float = 0.3
    scale_prior: float = 0.1
    band_limit: float | None = None
    classes: int = 0
    train: TrainConfig = field(default_factory=TrainConfig)
    refine: bool = True
    device: str = "auto"

    def __post_init__(self) -> None:
        choices = {
            "sampling": ("atoms", "grid", "random"),
            "normalisation": ("flat", "global", "patch"),
            "decoder": ("fourier", "coordinate"),
            "device": ("auto", "cpu", "cuda", "mps"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}."
                )
        for name, low, high in (
            ("count", 16, 1_000_000),
            ("separation_px", 2.0, 1024.0),
            ("patch_size_px", 6, 1024),
            ("latent_dim", 1, 16),
            ("classes", 0, 16),
            ("shift_prior_px", 0.01, 1024.0),
            ("band_limit", 0.01, 0.5),
            ("rotation_prior_rad", 0.001, 3.2),
            ("scale_prior", 0.001, 1.0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value:g}: choose a value from {low:g} to {high:g}.")
        object.__setattr__(self, "invariances", ordered_invariances(self.invariances))
        if self.count is not None and self.sampling == "atoms":
            raise InputError(
                "count is the number of windows of grid or random sampling: choose one of these, "
                "or leave count out to use all atoms."
            )
