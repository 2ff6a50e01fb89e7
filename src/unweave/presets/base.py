"""What a preset is."""

from typing import Generic, NamedTuple, TypeVar

from unweave.config import RunConfig, VQRunConfig

C = TypeVar("C", RunConfig, VQRunConfig)


class Preset(NamedTuple, Generic[C]):
    """A run and what it is for."""

    about: str
    config: C
