"""Whether the latents of a run depend on its seed: the analysis once more with another one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.diagnostics import seed_agreement
from napari_shiftvae.core.given import Told
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.manifold import latent_names
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.runs import Run

__all__ = ["with_seed_check"]


def with_seed_check(
    steps: Generator[Progress, str | None, Run], image: MicroscopeImage
) -> Generator[Progress, str | None, Run]:
    """Pass an analysis on, then train once more with the next seed and compare the latents.

    The diagnostics of the run get the agreement of the latents that carry something, as
    `diagnostics.seed_agreement` measures it, and its sentence. Training that was stopped is not
    repeated; to send ``"stop"`` into the second one compares with what it has learned by then.

    Parameters
    ----------
    steps : generator
        From `analyse.analyse`.
    image : MicroscopeImage
        The one that is analysed.

    Yields
    ------
    Progress
        Of the second training without its results.

    Returns
    -------
    Run
        The first one.

    Examples
    --------
    >>> from napari_shiftvae.core.progress import finish
    >>> run = finish(with_seed_check(analyse(image, config), image))  # doctest: +SKIP
    """
    run = yield from steps
    if not run.finished:
        return run
    told = Told.of_table(run.atoms)
    config = replace(
        run.config,
        sampling="atoms",
        count=None,
        separation_px=run.separation_px,
        patch_size_px=run.model.config.patch_size_px,
        train=replace(run.config.train, seed=run.config.train.seed + 1),
    )
    again = analyse(image, config, positions_yx=run.picks_yx, given=told.given, labels=told.labels)
    sent: str | None = None
    while True:
        try:
            progress = again.send(sent)
        except StopIteration as end:
            other: Run = end.value
            break
        sent = yield Progress(
            stage="fields",
            fraction=progress.fraction,
            message=f"Once more, with another seed: {progress.message}",
        )
    names = latent_names(run)
    active = names[: max(1, run.diagnostics.active_latents)]  # the others come last
    agreement = seed_agreement(run.atoms[active].to_numpy(), other.atoms[names].to_numpy())
    diagnostics = replace(
        run.diagnostics,
        seed_agreement=agreement.r2,
        sentences=(*run.diagnostics.sentences, agreement.sentence),
    )
    return replace(run, diagnostics=diagnostics)
