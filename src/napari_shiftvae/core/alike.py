"""What the errors of alike atoms have in common: one decoder draws them, from shared pixels."""

from __future__ import annotations

import torch
from scipy.spatial import KDTree
from torch import Tensor

from napari_shiftvae.core.fourier_decoder import FourierDecoder
from napari_shiftvae.core.infer import BATCH, batches
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches

__all__ = ["blocks", "compounding", "seen_through"]

RIDGE = 1e-3  # mean square of a hidden feature that is too faint to tell, as in `polish`
LOOKED_AT = 32  # atoms of a block for which it is worked out what their neighbours share


def blocks(patches: Patches) -> list[Tensor]:
    """Rows of patches in groups of neighbours in the image, few enough to be worked on at once."""
    where = torch.from_numpy(patches.centre_yx)
    # Other frames are farther away than any atom of the same one.
    apart = torch.from_numpy(patches.frame).double() * sum(patches.frames.shape[1:])
    where = torch.cat([where, apart[:, None]], dim=1)

    def halved(rows: Tensor) -> list[Tensor]:
        if len(rows) <= BATCH:
            return [rows]
        widest = where[rows].std(dim=0).argmax()
        order = rows[where[rows, widest].argsort(stable=True)]
        return [block for half in order.chunk(2) for block in halved(half)]

    return halved(torch.arange(len(where)))


def seen_through(model: ShiftVAE, content: Tensor) -> list[Tensor]:
    """What the output layer sees of contents, so scaled that products of rows are covariances.

    Those of what is decoded at two contents, over the variance of a single patch, where the output
    layer is the least squares of the patches. Other decoders count as a plane over the latents.

    Parameters
    ----------
    model : ShiftVAE
    content : (N, K + C) tensor
        Latents and given classes of the patches that were learned from.

    Returns
    -------
    list of (B, H) tensors
        In pieces, as `batches` has them. The square of a row is the leverage of its patch.
    """
    decoder = model.decoder
    if isinstance(decoder, FourierDecoder):
        seen = [decoder.hidden(model.as_decoded(content[rows])) for rows in batches(len(content))]
    else:
        seen = [torch.cat([content, torch.ones_like(content[:, :1])], dim=1)]
    normal = sum((each.mT.double() @ each.double() for each in seen), torch.zeros(()).double())
    ridge = RIDGE * normal[-1, -1] * torch.eye(len(normal)).to(normal)
    root = torch.linalg.cholesky(torch.linalg.inv(normal + ridge)).float()
    return [each @ root for each in seen]


def compounding(
    response: Tensor, seen: Tensor, place: Tensor, axes: Tensor, frame: Tensor
) -> Tensor:
    """How much more variance a mean over alike atoms has because their patches share pixels.

    An atom that is the neighbour of four others counts in each of their cages: noise of its pixels
    does not average out as that of as many patches would. Where the neighbours are atoms of the
    same kind it cancels.

    Parameters
    ----------
    response : (B, 2, M) tensor
        Change of what is read by noise of unit variance in the M pixels of the pattern.
    seen : (B, H) tensor
        From `seen_through`.
    place : (B, 2) tensor
        Where the pattern lies in its image [px].
    axes : (B, 2, 2) tensor
        Axes of the pattern in the image.
    frame : (B,) tensor
        Which image.

    Returns
    -------
    (B,) tensor
        Variance of the mean over that of patches without a pixel in common; NaN for those that
        were not looked at.
    """
    count, size = len(response), round(response.shape[-1] ** 0.5)
    images = response.view(count, 2, size, size)
    seen = torch.nn.functional.normalize(seen, dim=1)
    found = response.new_full((count,), torch.nan)
    reach = size * axes.det().abs().max().sqrt()
    near = KDTree(place.numpy())
    for row in torch.arange(0, count, -(-count // LOOKED_AT)).tolist():
        own = images[row]
        alone = total = float(own.square().sum())
        if not alone:
            continue
        others = torch.tensor(near.query_ball_point(place[row].numpy(), float(reach), p=torch.inf))
        others = others[(others != row) & (frame[others] == frame[row])]
        steps = torch.linalg.solve(axes[row], (place[others] - place[row]).mT).mT.round().long()
        alike = seen[others] @ seen[row]
        for other, (y, x), share in zip(
            others.tolist(), steps.tolist(), alike.tolist(), strict=True
        ):
            if max(abs(y), abs(x)) < size:
                total += share * float((_cut(own, y, x) * _cut(images[other], -y, -x)).sum())
        found[row] = max(total, 0.0) / alone
    return found


def _cut(image: Tensor, y: int, x: int) -> Tensor:
    """Part of a square image (2, P, P) that another one, (y, x) pixels farther on, has too."""
    size = image.shape[-1]
    return image[:, max(y, 0) : size + min(y, 0), max(x, 0) : size + min(x, 0)]
