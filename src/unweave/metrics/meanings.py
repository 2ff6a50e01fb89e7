"""What each score asks, and what codes that know nothing reach: one table, which tables, reports and pages read."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Meaning(NamedTuple):
    """A score for people."""

    title: str
    source: str
    asks: str
    chance: str
    """In words; as a number where there is one, see `chance_level`."""


MEANINGS = {
    "factor_vae": Meaning(
        "FactorVAE",
        "Kim and Mnih 2018",
        "does one code, always the same, keep still when a factor does?",
        "1 / F",
    ),
    "dci_disentanglement": Meaning(
        "DCI disentanglement", "Eastwood and Williams 2018", "does each code serve one factor?", "0"
    ),
    "dci_completeness": Meaning(
        "DCI completeness", "Eastwood and Williams 2018", "is each factor served by one code?", "0"
    ),
    "dci_informativeness": Meaning(
        "DCI informativeness",
        "Eastwood and Williams 2018",
        "how often are the factors told from all codes?",
        "majority",
    ),
    "beta_vae": Meaning(
        "BetaVAE", "Higgins et al. 2017", "can a linear model tell which factor two groups share?", "1 / F"
    ),
    "mig": Meaning("MIG", "Chen et al. 2018", "how far does the best code lead the second, in information?", "0"),
    "sap": Meaning("SAP", "Kumar et al. 2018", "the same lead in accuracy of a line, or in squared correlation", "0"),
    "modularity": Meaning("modularity", "Ridgeway and Mozer 2018", "does each code tell of one factor only?", "not 0"),
    "explicitness": Meaning(
        "explicitness", "Ridgeway and Mozer 2018", "can a linear model of all codes tell the values?", "0.5"
    ),
    "infomec_modularity": Meaning(
        "InfoMEC modularity",
        "Hsu et al. 2023",
        "does each code tell of one factor, in normalised information?",
        "above 0",
    ),
    "infomec_compactness": Meaning(
        "InfoMEC compactness",
        "Hsu et al. 2023",
        "is each factor told by one code, in normalised information?",
        "above 0",
    ),
    "infomec_explicitness": Meaning(
        "InfoMEC explicitness", "Hsu et al. 2023", "how much of the factors does a linear model of all codes tell?", "0"
    ),
    "irs": Meaning("IRS", "Suter et al. 2019", "does a code stay when other factors change?", "above 0 for few rows"),
    "tad": Meaning("TAD", "Yeats et al. 2022", "how far does the best code lead on binary attributes?", "0"),
    "downstream": Meaning(
        "downstream efficiency",
        "Locatello et al. 2019",
        "how much accuracy is left with 1,000 or 100 labels?",
        "1 for useless codes",
    ),
    "udr": Meaning("UDR", "Duan et al. 2020", "do models of other seeds agree on the codes? needs no labels", "-"),
}

PUBLISHED = ("factor_vae", "dci_disentanglement", "dci_completeness", "dci_informativeness")
"""The scores of published tables, which are taken of an untrained extractor too."""

_LEVELS: dict[str, Callable[[Sequence[int]], float]] = {
    "0": lambda _: 0.0,
    "0.5": lambda _: 0.5,
    "1 / F": lambda sizes: 1 / len(sizes),
    "majority": lambda sizes: float(np.mean([1 / size for size in sizes])),
}


def chance_level(name: str, factor_sizes: Sequence[int]) -> float | None:
    """What codes that know nothing reach on a full grid of factors with these sizes; None where no number says it."""
    level = _LEVELS.get(MEANINGS[name].chance)
    return level(factor_sizes) if level else None
