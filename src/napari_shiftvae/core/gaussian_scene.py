"""Windows of a padded image, columns drawn into it, and the normal equations of each column.

The derivative of a Gaussian by any of its parameters is the Gaussian times a polynomial of the
pixel's place. The same six monomials serve all windows, so that the normal equations of all columns
are a few matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 2048  # columns at once: their windows fit the processor's cache

# Columns of a table of parameters. The exponent is -(a y^2 + 2 b y x + c x^2) / 2.
Y, X, HEIGHT, A, B, C, LEVEL = range(7)
# Products of the monomials 1, y, x, y^2, yx, x^2 as powers of (y, x).
POWERS = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
PRODUCTS = sorted({(p + r, q + s) for p, q in POWERS for r, s in POWERS})
PAIRS = torch.tensor([PRODUCTS.index((p + r, q + s)) for p, q in POWERS for r, s in POWERS])


@dataclass(frozen=True, kw_only=True, eq=False)
class Coupling:
    """Blocks off the diagonal of the joint normal matrix.

    Attributes
    ----------
    row, column : (M,) tensors
        Columns of atoms: the one whose window it is, and the neighbour.
    blocks : (M, 7, 7) tensor
        Derivatives by the one times derivatives by the other, summed over the window.
    """

    row: Tensor
    column: Tensor
    blocks: Tensor


class Windows:
    """Square windows of +-`half` pixels in a padded image, and the monomials on their pixels."""

    def __init__(self, half: int, width: int) -> None:
        steps = torch.arange(-half, half + 1, dtype=torch.float64)
        y, x = (side.reshape(-1) for side in torch.meshgrid(steps, steps, indexing="ij"))
        self.half = half
        self.width = width
        self.offset = (y * width + x).to(torch.int64)  # (P,)
        self.products = torch.stack([y**p * x**q for p, q in PRODUCTS], 1).float()  # (P, 15)
        self.monomials = torch.stack([y**p * x**q for p, q in POWERS], 1).float()  # (P, 6)

    def index(self, centre: Tensor) -> Tensor:
        """Pixels (n, P) of the windows about integer centres (n, 2) in the flat padded image."""
        return (centre[:, :1] * self.width + centre[:, 1:]) + self.offset

    def draw(self, parameters: Tensor, centre: Tensor) -> Tensor:
        """Values (n, P) of each column, without its background, on the pixels of its window."""
        y, x = (parameters[:, :2] - centre).unbind(1)
        height, a, b, c = parameters[:, HEIGHT : C + 1].unbind(1)
        exponent = torch.stack(
            [
                height.log() - (a * y * y + 2 * b * y * x + c * x * x) / 2,
                a * y + b * x,
                b * y + c * x,
                -a / 2,
                -b,
                -c / 2,
            ],
            1,
        )
        return (exponent.float() @ self.monomials.T).exp_()


def derivatives(parameters: Tensor, centre: Tensor) -> Tensor:
    """Polynomials (n, 6, 6) that times the column are its derivatives: parameter, monomial."""
    y, x = (parameters[:, :2] - centre).unbind(1)
    height, a, b, c = parameters[:, HEIGHT : C + 1].unbind(1)
    none, half = torch.zeros_like(y), torch.full_like(y, -0.5)
    rows = [
        [-a * y - b * x, a, b, none, none, none],
        [-b * y - c * x, b, c, none, none, none],
        [1 / height, none, none, none, none, none],
        [-y * y / 2, y, none, half, none, none],
        [-y * x, x, y, none, 2 * half, none],
        [-x * x / 2, none, x, none, none, half],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def _paired(sums: Tensor) -> Tensor:
    """Sums (n, 15) over the products of monomials, as matrices (n, 6, 6)."""
    return sums.double().index_select(1, PAIRS).view(-1, 6, 6)


class Scene:
    """A padded image, what of it is valid, and the model drawn so far."""

    def __init__(self, pixels: NDArray[np.float32], half: int, reach: int) -> None:
        self.pad = max(half, reach) + 2
        padded = np.pad(pixels, self.pad, constant_values=np.nan)
        valid = np.isfinite(padded)
        self.shape = padded.shape
        self.valid = torch.from_numpy(valid.astype(np.float32).ravel())
        self.image = torch.from_numpy(np.where(valid, padded, 0).ravel())
        self.size = torch.tensor(pixels.shape)
        inner = valid[self.pad : -self.pad, self.pad : -self.pad]
        self.missing = None
        if not inner.all():
            # Invalid pixels above and left of each place: those in any rectangle follow.
            count = np.pad(~valid, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int32)
            self.missing = torch.from_numpy(count.cumsum(axis=1, dtype=np.int32))
        self.window = Windows(half, padded.shape[1])
        self.drawing = Windows(reach, padded.shape[1])

    def centre(self, parameters: Tensor) -> Tensor:
        """Pixel (n, 2) of the padded image nearest each column."""
        return parameters[:, :2].round().to(torch.int64)

    def whole(self, centre: Tensor) -> Tensor:
        """Whether each column's window holds valid pixels only."""
        half = self.window.half
        first, last = centre - half, centre + half + 1
        inside = ((first >= self.pad) & (last <= self.pad + self.size)).all(1)
        if self.missing is None:
            return inside
        (top, left), (bottom, right) = first.unbind(1), last.unbind(1)
        count = self.missing
        return inside & (
            count[bottom, right] - count[top, right] - count[bottom, left] + count[top, left] == 0
        )

    def subtract(self, image: Tensor, parameters: Tensor, sign: int = -1) -> None:
        """Take columns off the flat padded `image`, or put them back."""
        for part in parameters.split(CHUNK):
            centre = self.centre(part)
            values = self.drawing.draw(part, centre).mul_(sign)
            image.scatter_add_(0, self.drawing.index(centre).view(-1), values.view(-1))

    def couplings(
        self, parameters: Tensor, centres: Tensor, first: Tensor, second: Tensor
    ) -> Coupling:
        """Sum over each column's window what it and each neighbour do there."""
        row, column = torch.cat([first, second]), torch.cat([second, first])
        blocks = torch.zeros(len(row), 7, 7, dtype=torch.float64)
        places = torch.arange(len(row)).split(CHUNK)
        for place in places:
            one, other = parameters[row[place]], parameters[column[place]]
            centre = centres[row[place]]
            weight = self.valid.gather(0, self.window.index(centre).view(-1)).view(len(place), -1)
            theirs = self.window.draw(other, centre) * weight
            both = _paired((self.window.draw(one, centre) * theirs) @ self.window.products)
            by_other = derivatives(other, centre)
            blocks[place, :6, :6] = derivatives(one, centre) @ both @ by_other.mT
            sums = (theirs @ self.window.monomials).double()
            blocks[place, 6, :6] = (by_other @ sums[:, :, None])[..., 0]
        return Coupling(row=row, column=column, blocks=blocks)

    def normal_equations(
        self, residual: Tensor, parameters: Tensor, centre: Tensor, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normal matrices (n, 7, 7), gradients (n, 7), squared residuals (n,), valid pixels (n,).

        Where all windows are `whole` no pixel needs a weight.
        """
        index = self.window.index(centre)
        values = self.window.draw(parameters, centre)  # (n, P)
        left = residual.gather(0, index.view(-1)).view(index.shape)
        left -= parameters[:, LEVEL, None].float()
        if not whole:
            weight = self.valid.gather(0, index.view(-1)).view(index.shape)
            left *= weight
            values *= weight
            pixels = weight.sum(1).double()
        else:
            pixels = torch.full((len(index),), float(index.shape[1]), dtype=torch.float64)
        slopes = derivatives(parameters, centre)
        squares = _paired((values * values) @ self.window.products)  # (n, 6, 6)
        matrix = torch.empty(len(index), 7, 7, dtype=torch.float64)
        matrix[:, :6, :6] = slopes @ squares @ slopes.mT
        sums = (values @ self.window.monomials).double()
        matrix[:, 6, :6] = matrix[:, :6, 6] = (slopes @ sums[:, :, None])[..., 0]
        matrix[:, 6, 6] = pixels.clamp(min=1.0)
        gradient = torch.empty(len(index), 7, dtype=torch.float64)
        along = ((values * left) @ self.window.monomials).double()
        gradient[:, :6] = (slopes @ along[:, :, None])[..., 0]
        gradient[:, 6] = left.sum(1).double()
        return matrix, gradient, left.square().sum(1).double(), pixels
