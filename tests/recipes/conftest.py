"""The recipes of CONTRIBUTING.md, applied to a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Copy:
    """A copy of the package, to which a recipe's edits are applied; its commands run as subprocesses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        self.edited: set[str] = set()

    def write(self, path: str, text: str) -> None:
        """A new file."""
        assert not (self.folder / path).exists()
        (self.folder / path).write_text(text)
        self.edited.add(path)

    def insert(self, path: str, before: str, text: str) -> None:
        """Text above the one line of a file that begins so."""
        lines = (self.folder / path).read_text().splitlines(keepends=True)
        (place,) = [number for number, line in enumerate(lines) if line.startswith(before)]
        (self.folder / path).write_text("".join([*lines[:place], text, *lines[place:]]))
        self.edited.add(path)

    def append(self, path: str, after: str, text: str) -> None:
        """Text below the one line of a file that begins so: a row at the top of a table."""
        lines = (self.folder / path).read_text().splitlines(keepends=True)
        (place,) = [number for number, line in enumerate(lines) if line.startswith(after)]
        (self.folder / path).write_text("".join([*lines[: place + 1], text, *lines[place + 1 :]]))
        self.edited.add(path)

    def run(self, *words: str) -> str:
        """Python with these arguments, on the copy; returns what it said."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def unweave(self, *words: str) -> str:
        return self.run("-m", "unweave", *words)


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def recipe(title: str) -> list[str]:
    """The blocks of Python under a heading of CONTRIBUTING.md."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    return re.findall(r"```python\n(.*?)```", section, re.S)
