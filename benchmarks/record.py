"""Writes what a benchmark measured, with all that is needed to read the number later."""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=RESULTS.parent, capture_output=True, text=True
    )
    return answer.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """The machine a number was measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def write(name: str, numbers: dict[str, Any]) -> Path:
    """Writes `numbers` to `benchmarks/results/NAME.json` beside command, commit, machine and date; returns the path."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # a folder of this machine says nothing elsewhere: absolute paths are written by their last name alone
    arguments = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", os.path.relpath(sys.argv[0], RESULTS.parent.parent), *arguments])
    record = {
        "command": command,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        **numbers,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def fill(name: str, parts: dict[str, str]) -> Path:
    """Puts each text between `<!-- its name -->` and `<!-- end -->` of the page docs/NAME; returns its path."""
    page = DOCS / name
    text = page.read_text()
    for part, filling in parts.items():
        marked = re.compile(f"(<!-- {part} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, found = marked.subn(lambda match, new=filling: f"{match[1]}\n{new}\n\n{match[2]}", text)
        assert found == 1, f"{page} has {found} places for {part}"
    page.write_text(text)
    return page
