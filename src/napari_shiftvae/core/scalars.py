"""A number at every atom, with its unit and standard deviation, and as a map on the image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.fields import pixel_maps
from napari_shiftvae.core.lengths import Ruler
from napari_shiftvae.core.palettes import DIVERGING, VIRIDIS, limits_of
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.strain import Strain
from napari_shiftvae.core.vector_field import VectorField

__all__ = ["Scalar", "drawn_maps", "of_strain", "of_table", "of_vectors"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scalar:
    """A number at every atom of a run.

    Attributes
    ----------
    name, unit : str
        Of lengths the unit is ``"px"`` until `given_in` has made it another.
    values, sd : (N,) arrays
        NaN where not known; `sd` is all NaN where there is none.
    signed : bool
        Whether zero is the middle of its scale.
    smooth : bool
        Whether it may be interpolated from atom to atom, over sublattices.
    note : str
        What its values are to be compared with, for the user.
    """

    name: str
    unit: str
    values: Floats
    sd: Floats
    signed: bool
    smooth: bool
    note: str = ""

    @property
    def label(self) -> str:
        """Name with the unit, for a colour bar."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def known(self) -> int:
        """Number of atoms at which it is known."""
        return int(np.isfinite(self.values).sum())

    @property
    def file_name(self) -> str:
        """Name for a file, without ending."""
        return self.name.replace("s.d.", "sd").replace(" ", "_")

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of its scale of colours."""
        return limits_of(self.values, signed=self.signed)

    @property
    def palette(self) -> tuple[str, ...]:
        """Colours of its map: diverging where it is signed."""
        return DIVERGING if self.signed else VIRIDIS

    def given_in(self, ruler: Ruler) -> Scalar:
        """Give a length in the unit of a ruler; other quantities stay as they are."""
        if self.unit != "px":
            return self
        factor = ruler.per_px
        return replace(self, unit=ruler.unit, values=factor * self.values, sd=factor * self.sd)

    def deviation(self) -> Scalar:
        """Return its standard deviation, to be shown as a map of its own.

        Raises
        ------
        InputError
            It has none.
        """
        if not np.isfinite(self.sd).any():
            raise InputError(f"There is no standard deviation of '{self.name}'.")
        return Scalar(
            name=f"{self.name} s.d.",
            unit=self.unit,
            values=self.sd,
            sd=np.full_like(self.sd, np.nan),
            signed=False,
            smooth=self.smooth,
        )

    def is_like(self, other: Scalar) -> bool:
        """Whether a map of the other looks the same."""
        same = self.label == other.label and self.smooth == other.smooth
        return same and np.array_equal(self.values, other.values, equal_nan=True)

    def on_pixels(self, run: Run) -> NDArray[np.float32]:
        """Draw it onto the pixels of the image, (H, W)."""
        ((_, drawn),) = drawn_maps(run, [self])
        return drawn


def drawn_maps(run: Run, scalars: Sequence[Scalar]) -> Iterator[tuple[Scalar, NDArray[np.float32]]]:
    """Draw scalars onto the pixels of the image, (H, W) each, in any order.

    Raises
    ------
    InputError
        A scalar is not of the atoms of the run.
    """
    alike = defaultdict(list)  # known at the same atoms: these are joined to triangles once
    for scalar in scalars:
        if len(scalar.values) != len(run.atoms):
            raise InputError(
                f"'{scalar.name}' has {len(scalar.values)} values; give one for each of the "
                f"{len(run.atoms)} atoms of the run."
            )
        alike[scalar.smooth, np.isfinite(scalar.values).tobytes()].append(scalar)
    for (smooth, _), group in alike.items():
        values = np.stack([scalar.values for scalar in group], axis=1)
        maps = pixel_maps(run.picks_yx, values, run.image.shape, nearest=not smooth)
        yield from zip(group, maps, strict=True)


def of_vectors(field: VectorField) -> list[Scalar]:
    """Components and length of vectors."""
    vectors, sd, length = field.true_yx_px, field.true_sd_yx_px, field.length_px
    with np.errstate(invalid="ignore", divide="ignore"):
        along = np.sqrt(((vectors * sd) ** 2).sum(axis=1)) / length
    axes = [
        Scalar(
            name=f"along {axis}",
            unit="px",
            values=vectors[:, at],
            sd=sd[:, at],
            signed=True,
            smooth=False,
        )
        for at, axis in enumerate("yx")
    ]
    size = Scalar(name="length", unit="px", values=length, sd=along, signed=False, smooth=False)
    return [*axes, size]


def of_strain(found: Strain) -> list[Scalar]:
    """Strain in per cent, rotation in degrees."""
    turned = {"factor": 180 / np.pi, "unit": "degree"}
    stretched = {"factor": 100.0, "unit": "%"}
    return [
        Scalar(
            name=name,
            unit=str(how["unit"]),
            values=how["factor"] * getattr(found, attribute),
            sd=how["factor"] * getattr(found, deviation),
            signed=True,
            smooth=True,
        )
        for name, attribute, deviation, how in (
            *((name, name, f"{name}_sd", stretched) for name in ("exx", "eyy", "exy")),
            ("rotation", "rotation_rad", "rotation_sd_rad", turned),
        )
    ]


def of_table(run: Run) -> list[Scalar]:
    """Latents, pose of the patterns and residual, as the table of the run has them."""
    columns = [(f"z{k}", f"z{k}", 1.0, "") for k in range(1, run.model.config.latent_dim + 1)]
    columns += [
        ("rotation of the pattern", "rotation_rad", 180 / np.pi, "degree"),
        ("scale of the pattern", "scale", 1.0, ""),
        ("residual", "residual", 1.0, "noise s.d."),
    ]
    made = []
    for name, column, factor, unit in columns:
        if column not in run.atoms:
            continue
        deviation = column.replace("_rad", "_sd_rad") if "_rad" in column else f"{column}_sd"
        values, sd = (
            factor * run.atoms[each].to_numpy(dtype=np.float64)
            if each in run.atoms
            else np.full(len(run.atoms), np.nan)
            for each in (column, deviation)
        )
        note = ""
        if column == "residual":
            note = f"Noise alone gives 1 ± {noise_of_residual(run.model.config.patch_size_px):.2g}."
        made.append(
            Scalar(
                name=name,
                unit=unit,
                values=values,
                sd=sd,
                signed=column == "rotation_rad",
                smooth=False,
                note=note,
            )
        )
    return made


def noise_of_residual(patch_size_px: int) -> float:
    """Standard deviation of the residual of a patch that holds nothing but noise besides.

    The root of the mean of n squares of standard normal numbers has a standard deviation of
    ``1 / sqrt(2 n)``; noise that neighbouring pixels share makes it larger.

    Examples
    --------
    >>> round(noise_of_residual(40), 4)
    0.0177
    """
    return float(1 / np.sqrt(2) / patch_size_px)
