"""What fixes a model: its windows, its latents, its priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_shiftvae.core.errors import InputError

DecoderKind = Literal["fourier", "coordinate"]
Invariance = Literal["shift", "rotation", "scale"]
MOST_GIVEN = 64
INVARIANCES: tuple[Invariance, ...] = ("shift", "rotation", "scale")


def ordered_invariances(given: object) -> tuple[Invariance, ...]:
    """Check invariances and put them in the order of the pose: shift, rotation, scale.

    Examples
    --------
    >>> ordered_invariances(["rotation", "shift"])
    ('shift', 'rotation')
    """
    names = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not set(names) <= set(INVARIANCES) or len(set(names)) < len(names):
        raise InputError(
            f"invariances is {given!r}: choose any of 'shift', 'rotation' and 'scale', each once, "
            "or none for a plain VAE."
        )
    return tuple(name for name in INVARIANCES if name in names)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the architecture and the priors.

    Parameters
    ----------
    patch_size_px : int
        Side of the windows, or length of the spectra [px].
    separation_px : float
        Distance between neighbouring features [px]; bounds the region of the central atom.
    latent_dim : int
        Number of content latents.
    shift_prior_px : float
        Standard deviation of the shift's prior [px].
    decoder : {"fourier", "coordinate"}
        Band-limited Fourier series, or a network on pixel coordinates as in arXiv:2106.12472.
    band_limit : float
        Highest spatial frequency the Fourier decoder can make [cycles/px].
    hidden : int
        Width of the hidden layers.
    dimensions : {2, 1}
        Windows of an image, (P, P), or spectra, (P,).
    invariances : tuple of {"shift", "rotation", "scale"}
        What is taken out of the content latents; none makes a plain VAE.
    rotation_prior_rad : float
        Standard deviation of the rotation's prior [rad].
    scale_prior : float
        Standard deviation of the prior of the scale's natural logarithm.
    classes : int
        Number of classes that are learned with the model; 0 for none.
    given : tuple of str
        Names of the classes that are given with the windows, such as sublattices: each has
        patterns of its own for the same latents. None by default.
    """

    patch_size_px: int
    separation_px: float
    latent_dim: int = 2
    shift_prior_px: float = 2.0
    decoder: DecoderKind = "fourier"
    band_limit: float = 0.2
    hidden: int = 128
    dimensions: int = 2
    invariances: tuple[Invariance, ...] = ("shift",)
    rotation_prior_rad: float = 0.3
    scale_prior: float = 0.1
    classes: int = 0
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("patch_size_px", 6, 1024 if self.dimensions == 2 else 8192),
            ("separation_px", 1, 8192),
            ("latent_dim", 1, 16),
            ("shift_prior_px", 1e-3, 1024),
            ("band_limit", 0.01, 0.5),
            ("hidden", 1, 4096),
            ("dimensions", 1, 2),
            ("rotation_prior_rad", 1e-3, 3.2),
            ("scale_prior", 1e-3, 1.0),
            ("classes", 0, 16),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"{name} is {getattr(self, name)}: choose one from {low} to {high}."
                )
        if self.decoder not in ("fourier", "coordinate"):
            raise InputError(f"decoder is {self.decoder!r}: choose 'fourier' or 'coordinate'.")
        object.__setattr__(self, "invariances", ordered_invariances(self.invariances))
        object.__setattr__(self, "given", tuple(self.given))
        different = {name for name in self.given if isinstance(name, str) and name}
        if len(different) != len(self.given) or len(different) == 1 or len(different) > MOST_GIVEN:
            raise InputError(
                f"given is {self.given!r}: name 2 to {MOST_GIVEN} different classes, or none."
            )
        if self.dimensions == 1 and not {*self.invariances} <= {"shift"}:
            raise InputError("Spectra cannot be rotated or scaled: choose shift, or none.")

    @property
    def content_dim(self) -> int:
        """Number of latents, and of the columns that tell the given class."""
        return self.latent_dim + len(self.given)

    @property
    def window(self) -> tuple[int, ...]:
        """Shape of a window."""
        return (self.patch_size_px,) * self.dimensions

    @property
    def pose_priors(self) -> tuple[float, ...]:
        """Standard deviation of each pose parameter: shift [px], rotation [rad], log scale."""
        each = {
            "shift": (self.shift_prior_px,) * self.dimensions,
            "rotation": (self.rotation_prior_rad,),
            "scale": (self.scale_prior,),
        }
        return tuple(prior for name in self.invariances for prior in each[name])

    @property
    def pose_dim(self) -> int:
        """Number of pose parameters."""
        return len(self.pose_priors)

    @property
    def shift_dim(self) -> int:
        """Number of pose parameters that are shifts; they come first."""
        return self.dimensions if "shift" in self.invariances else 0
