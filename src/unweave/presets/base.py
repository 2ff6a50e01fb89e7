"""The type of a preset."""

from typing import Generic, NamedTuple, TypeVar

from unweave.config import RunConfig, VQRunConfig

C = TypeVar("C", RunConfig, VQRunConfig)


class Preset(NamedTuple, Generic[C]):
    """The options of a run, and a line about it."""

    about: str
    config: C
