"""`from unweave.train import train`: training from Python, see `training.main`."""

from unweave.training.main import train as train

__all__ = ["train"]
