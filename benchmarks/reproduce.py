"""The tables of the paper at scale `small`, from generated images to Markdown: does every stage work, and in what time?

    python benchmarks/reproduce.py run --folder runs/small             # all four, one after the other
    python benchmarks/reproduce.py run table1 --folder runs/small      # one of them
    python benchmarks/reproduce.py page                                # their tables into docs/reproduce.md

Writes benchmarks/results/reproduce/TABLE.json. What is finished in FOLDER is only read, and takes no time: downstream
has the trainings of table1. The minutes are measured from the command to the table.
"""

import argparse
import json
import os
import time
from pathlib import Path

import record
from unweave.record import log
from unweave.reproduce.command import reproduce
from unweave.reproduce.plan import Request, make_plan
from unweave.reproduce.pool import devices
from unweave.reproduce.recipes import Table
from unweave.reproduce.table import as_markdown

RESULTS = record.RESULTS / "reproduce"
TABLES: tuple[Table, ...] = ("table1", "ablation", "downstream", "table2")


def run(table: Table, folder: Path) -> Path:
    """Makes one table and writes what it holds, with the time that it took."""
    request, start = Request(table, scale="small", out=folder), time.monotonic()
    reproduce(request)
    minutes = (time.monotonic() - start) / 60
    found = json.loads((folder / table / "table.json").read_text())
    processor = sum(job["processor"] for job in found["seconds"].values())
    numbers = {
        "pieces_at_a_time": len(devices(make_plan(request))),
        "minutes": round(minutes, 1),
        "processor_minutes_of_pieces": round(processor / 60, 1),
        "load_average": round(os.getloadavg()[1], 1),
        **found,
    }
    return record.write(f"reproduce/{table}", numbers)


def write_page() -> None:
    """Puts the measured tables between their markers."""
    parts, minutes = [], 0.0
    for path in (RESULTS / f"{table}.json" for table in TABLES):
        if path.exists():
            found = json.loads(path.read_text())
            heading, _, body = as_markdown(found).partition("\n\n")
            about = (
                f"`{found['command']}`, commit {found['commit']}, {found['date']}; {found['machine']['cpu']}, "
                f"{found['pieces_at_a_time']} jobs at a time, {found['minutes']} minutes (load average "
                f"{found['load_average']} on {found['machine']['cores']} cores)."
            )
            minutes += found["minutes"]
            parts.append(f"##{heading}\n\n{about}\n\n{body.replace('## ', '#### ').strip()}")
    parts.insert(0, f"All {len(parts)} tables, one after the other: {minutes:.0f} minutes.")
    page = record.fill("reproduce.md", {"tables": "\n\n".join(parts)})
    log(f"wrote {page}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="make tables and write down what they hold")
    one.add_argument("tables", nargs="*", choices=[*TABLES, []], default=[], help="which (default: all)")
    one.add_argument("--folder", type=Path, required=True, help="where the jobs are, or will be")
    commands.add_parser("page", help="write the tables of docs/reproduce.md")
    arguments = parser.parse_args()
    if arguments.command == "page":
        write_page()
        return
    for table in arguments.tables or TABLES:
        print(run(table, arguments.folder))


if __name__ == "__main__":
    main()
