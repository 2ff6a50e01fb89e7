"""Pieces side by side: a process per device, each doing one piece at a time by the command line."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from unweave.errors import UserError
from unweave.record import Say
from unweave.reproduce.plan import Piece

POLL_SECONDS = 0.2


def unweave(words: Sequence[str]) -> list[str]:
    """The command line of `unweave` with these arguments."""
    return [sys.executable, "-m", "unweave", *words]


def run_side_by_side(
    pieces: Sequence[Piece],
    done: Sequence[Piece],
    devices: Sequence[str],
    command: Callable[[Piece], Sequence[str]],
    logs: Path,
    tell: Say,
) -> None:
    """Runs the command of each piece that is not done, on a free device, once the piece that it needs is there.

    `devices` are values of CUDA_VISIBLE_DEVICES; what a process says goes into `logs/PIECE/log.txt`. Raises `UserError`
    when a process fails, after the others were told to save and stop; Ctrl-C reaches all of them, and each saves.
    """
    ended = {piece.name for piece in done}
    waiting = [piece for piece in pieces if piece.name not in ended]
    running: dict[str, tuple[Piece, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for device in devices:
                ready = next((piece for piece in waiting if not piece.needs or piece.needs in ended), None)
                if device not in running and ready:
                    waiting.remove(ready)
                    tell(f"{ready.name}: begun on device {device}")
                    running[device] = ready, _start(command(ready), device, logs / ready.name / "log.txt")
            for device, (piece, process) in list(running.items()):
                if process.poll() is not None:
                    del running[device]
                    _check(piece, process.returncode, logs)
                    ended.add(piece.name)
                    tell(f"{piece.name}: done, {len(waiting) + len(running)} left")
            time.sleep(POLL_SECONDS)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def _start(command: Sequence[str], device: str, log: Path) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            list(command),
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": device},
        )


def _check(piece: Piece, code: int, logs: Path) -> None:
    if code:
        log = logs / piece.name / "log.txt"
        said = log.read_text(errors="replace").strip().splitlines()
        raise UserError(f"{piece.name} ended with code {code}: {said[-1] if said else 'it said nothing'} (see {log})")
