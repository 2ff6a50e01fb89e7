"""Scores of disentanglement: arrays in, numbers out. Importing them loads no torch."""

from unweave.metrics.dci import DCIResult, dci
from unweave.metrics.factor_vae import FactorVAEResult, factor_vae_score
from unweave.metrics.sampling import cell_index, sample_rows

__all__ = ["DCIResult", "FactorVAEResult", "cell_index", "dci", "factor_vae_score", "sample_rows"]
