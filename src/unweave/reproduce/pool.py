"""Jobs side by side: a process per GPU or per core, each doing one job at a time by the command line."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from unweave.compiled import all_cores
from unweave.errors import UserError
from unweave.record import Log
from unweave.reproduce.plan import Job

POLL_SECONDS = 0.2


def unweave(words: Sequence[str]) -> list[str]:
    """The command line of `unweave` with these arguments."""
    return [sys.executable, "-m", "unweave", *words]


def devices(jobs: Sequence[Job]) -> dict[str, dict[str, str]]:
    """Where jobs can be done at once, by name, with the environment that keeps a process there.

    Each GPU is one; for jobs that are computed on the processor, as many cores as each has threads.
    """
    options = [job.config.train for job in jobs]
    if torch.cuda.is_available() and any(one.accelerator != "cpu" for one in options):
        return {f"GPU {number}": {"CUDA_VISIBLE_DEVICES": str(number)} for number in range(torch.cuda.device_count())}
    threads = max(one.threads or all_cores() for one in options)
    num = max(all_cores() // threads, 1)
    return {f"processor, part {number + 1} of {num}": {"OMP_NUM_THREADS": str(threads)} for number in range(num)}


def run_side_by_side(
    jobs: Sequence[Job],
    done: Sequence[Job],
    where: Mapping[str, Mapping[str, str]],
    command: Callable[[Job], Sequence[str]],
    logs: Path,
    log: Log,
) -> None:
    """Runs the command of each job that is not done, at a free place, once the job that it needs is there.

    `where` has names of `devices` and their environments; what a process says goes into `logs/JOB/log.txt`. Raises
    `UserError` when a process fails, after the others were told to save and stop; Ctrl-C reaches all of them, and each
    saves.
    """
    ended = {job.name for job in done}
    waiting = [job for job in jobs if job.name not in ended]
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for place, environment in where.items():
                ready = next((job for job in waiting if not job.needs or job.needs in ended), None)
                if place not in running and ready:
                    waiting.remove(ready)
                    log(f"{ready.name}: begun ({place})")
                    running[place] = ready, _start(command(ready), environment, logs / ready.name / "log.txt")
            for place, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[place]
                    _check(job, process.returncode, logs)
                    ended.add(job.name)
                    log(f"{job.name}: done, {len(waiting) + len(running)} left")
            time.sleep(POLL_SECONDS)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def _start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            list(command),
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )


def _check(job: Job, code: int, logs: Path) -> None:
    if code:
        log = logs / job.name / "log.txt"
        said = log.read_text(errors="replace").strip().splitlines()
        raise UserError(f"{job.name} ended with code {code}: {said[-1] if said else 'it said nothing'} (see {log})")
