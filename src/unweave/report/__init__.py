"""Figures, tables and pages of a run."""

import os

from unweave.data.cache import default_folder

os.environ.setdefault("MPLCONFIGDIR", str(default_folder() / "matplotlib"))  # matplotlib reads it when it is imported
