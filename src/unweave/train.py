"""`from unweave.train import train`: training from Python, see `training.loop`."""

from unweave.training.loop import train as train

__all__ = ["train"]
