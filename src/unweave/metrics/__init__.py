"""Scores of disentanglement: arrays in, numbers out. Importing them loads no torch."""

from unweave.metrics.beta_vae import BetaVAEResult, beta_vae_score, beta_vae_score_rows
from unweave.metrics.dci import DCIResult, dci
from unweave.metrics.downstream import DownstreamResult, downstream, downstream_rows
from unweave.metrics.explicitness import ExplicitnessResult, explicitness
from unweave.metrics.factor_vae import FactorVAEResult, factor_vae_score, factor_vae_score_rows
from unweave.metrics.frechet import Moments, frechet_distance
from unweave.metrics.infomec import InfoMECResult, infomec
from unweave.metrics.irs import IRSResult, irs
from unweave.metrics.mig import MIGResult, mig
from unweave.metrics.modularity import ModularityResult, modularity
from unweave.metrics.sampling import cell_index, sample_rows
from unweave.metrics.sap import SAPResult, sap, sap_continuous
from unweave.metrics.tad import TADResult, tad
from unweave.metrics.udr import UDRResult, udr

__all__ = [
    "BetaVAEResult",
    "DCIResult",
    "DownstreamResult",
    "ExplicitnessResult",
    "FactorVAEResult",
    "IRSResult",
    "InfoMECResult",
    "MIGResult",
    "ModularityResult",
    "Moments",
    "SAPResult",
    "TADResult",
    "UDRResult",
    "beta_vae_score",
    "beta_vae_score_rows",
    "cell_index",
    "dci",
    "downstream",
    "downstream_rows",
    "explicitness",
    "factor_vae_score",
    "factor_vae_score_rows",
    "frechet_distance",
    "infomec",
    "irs",
    "mig",
    "modularity",
    "sample_rows",
    "sap",
    "sap_continuous",
    "tad",
    "udr",
]
