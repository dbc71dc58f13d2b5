"""Simulated images and patches with known truth."""

from __future__ import annotations

from .bounds import cramer_rao
from .factors import FactorPatches, Motif, factor_patches

__all__ = ["FactorPatches", "Motif", "cramer_rao", "factor_patches"]
