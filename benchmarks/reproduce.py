"""The tables of the paper at scale `small`, from generated images to Markdown: does every stage work, and in what time?

    python benchmarks/reproduce.py run --folder runs/small             # all four, one after the other
    python benchmarks/reproduce.py run table1 --folder runs/small      # one of them
    python benchmarks/reproduce.py page                                # their tables into docs/reproduce.md

Writes benchmarks/results/reproduce/TABLE.json. What is finished in FOLDER is only read; its times were kept.
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch

import record
from unweave.record import say
from unweave.reproduce.command import reproduce
from unweave.reproduce.plan import Request
from unweave.reproduce.recipes import Table
from unweave.reproduce.table import CAPTIONS, as_markdown

RESULTS = record.RESULTS / "reproduce"
PAGE = Path(__file__).parents[1] / "docs" / "reproduce.md"
TABLES: tuple[Table, ...] = ("table1", "ablation", "downstream", "table2")


def run(table: Table, folder: Path) -> Path:
    """Makes one table and writes what it holds, with the time that its pieces took in all."""
    start = time.monotonic()
    reproduce(Request(table, scale="small", out=folder))
    found = json.loads((folder / table / "table.json").read_text())
    minutes = sum(piece["this call"] for piece in found["seconds"].values()) / 60
    numbers = {
        "torch_threads": torch.get_num_threads(),
        "minutes": round(minutes, 1),
        "minutes_of_this_call": round((time.monotonic() - start) / 60, 1),
        **found,
    }
    return record.write(f"reproduce/{table}", numbers)


def page() -> None:
    """Puts the measured tables between their markers."""
    parts = []
    for path in (RESULTS / f"{table}.json" for table in TABLES):
        if path.exists():
            found = json.loads(path.read_text())
            heading, _, body = as_markdown(found).partition("\n\n")
            about = (
                f"`{found['command']}`, commit {found['commit']}, {found['date']}; {found['machine']['cpu']}, "
                f"{found['torch_threads']} thread, {found['minutes']} minutes for all of its pieces."
            )
            parts.append(f"##{heading}\n\n{about}\n\n{body.replace('## ', '#### ').strip()}")
    text, found = re.subn(
        "(<!-- tables -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n" + "\n\n".join(parts) + f"\n\n{match[2]}",
        PAGE.read_text(),
        flags=re.S,
    )
    assert found == 1
    PAGE.write_text(text)
    say(f"wrote {PAGE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="make tables and write down what they hold")
    one.add_argument("tables", nargs="*", choices=[*CAPTIONS, []], help="which (default: all)")
    one.add_argument("--folder", type=Path, required=True, help="where the pieces are, or will be")
    commands.add_parser("page", help="write the tables of docs/reproduce.md")
    arguments = parser.parse_args()
    if arguments.command == "page":
        page()
        return
    for table in arguments.tables or TABLES:
        print(run(table, arguments.folder))


if __name__ == "__main__":
    main()
