"""What a run reports: the record `metrics.jsonl`, log lines and a progress bar."""

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from unweave.files import explain_os_errors, write_text

Log = Callable[[str], None]

console = Console(stderr=True, highlight=False)


def log(text: str) -> None:
    """Prints one line to stderr; not wrapped, so that paths can be copied."""
    console.print(text, soft_wrap=True, markup=False)


class Record:
    """The training record: one JSON object per line, sorted by its value `images`."""

    def __init__(self, path: Path, silent: bool = False):
        self.path, self.silent = path, silent

    def write(self, line: dict[str, Any]) -> None:
        """Appends one line; a silent record (of all processes but the first) writes nothing."""
        if self.silent:
            return
        remedy = "Nothing is lost: free space and run the same command again."
        with explain_os_errors(self.path, remedy), self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def rewind(self, images: int) -> None:
        """Drops the lines after `images`, which a resumed run will write again."""
        if self.silent or not self.path.exists():
            return
        kept = [line for line in read_record(self.path) if line["images"] <= images]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def read_record(path: Path) -> list[dict[str, Any]]:
    """The lines of a training record, without an incomplete last line of a run that was killed."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class Display:
    """On a terminal a progress bar with the time left; elsewhere a line every ten seconds.

    `with Display("training", total, "images") as display: display.update(done, "loss 0.31")`
    """

    def __init__(self, what: str, total: int, unit: str, quiet: bool = False, stream: TextIO | None = None):
        self.what, self.total, self.unit, self.quiet = what, total, unit, quiet
        self.stream = stream or sys.stderr
        self.live = not quiet and self.stream.isatty()
        self.every_seconds = 10.0

    def __enter__(self) -> "Display":
        self.start = self.last_line = time.monotonic()
        self.first: int | None = None
        if self.live:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + self.unit + " {task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self.progress = Progress(*columns, console=console, transient=False)
            self.progress.start()
            self.task = self.progress.add_task(self.what, total=self.total, note="")
        return self

    def update(self, done: int, note: str = "") -> None:
        """Shows `done` of the total, with a note."""
        if self.first is None:
            self.first = done
        if self.live:
            self.progress.update(self.task, completed=done, note=note)
        elif not self.quiet and time.monotonic() - self.last_line >= self.every_seconds:
            self.last_line = time.monotonic()
            self.stream.write(f"{self.what} {done:,}/{self.total:,} {self.unit}  {note}  {self._left(done)}\n")
            self.stream.flush()

    def _left(self, done: int) -> str:
        elapsed = time.monotonic() - self.start
        done_since = done - (self.first or 0)
        if done_since <= 0:
            return ""
        return f"{clock(elapsed * (self.total - done) / done_since)} left"

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.progress.stop()


def versions() -> dict[str, str]:
    """Versions of the software that computed the numbers."""
    return {"unweave": version("unweave"), "torch": version("torch"), "python": platform.python_version()}


def clock(seconds: float) -> str:
    """Seconds in a readable form: `42 s`, `7 min 05 s`, `3 h 12 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
