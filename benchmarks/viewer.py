"""How soon the viewer answers: `python benchmarks/viewer.py` acts on its page in Chromium, as a person would.

`unweave view rooms-cpu` with its own steps and image size. An answer is there when the last picture of a part has
changed; its time is that from the act to the change, as the page sees it.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from record import write
from unweave.config import Sampling
from unweave.data import Rooms

BAR_SECONDS = 1.5
REPEATS = 10
CHANGED = """([selector, before]) => {
  const found = document.querySelectorAll(selector);
  return found.length && found[found.length - 1].src !== before;
}"""


@contextmanager
def viewer() -> Iterator[str]:
    """The address of a viewer of the bundled model."""
    command = [sys.executable, "-m", "unweave", "view", "rooms-cpu", "--port", "0", "--device", "cpu"]
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
        assert process.stderr is not None
        try:
            yield next(line.split()[1] for line in process.stderr if line.startswith("open http"))
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def seconds(page: Page, part: str, act: Callable[[], None]) -> float:
    """From an act to another last picture in a part of the page."""
    before = page.locator(f"{part} img").last.get_attribute("src")
    start = time.perf_counter()
    act()
    page.wait_for_function(CHANGED, arg=[f"{part} img", before])
    return time.perf_counter() - start


def acts(page: Page) -> dict[str, tuple[str, str, Callable[[int], None]]]:
    """What is done, by name: its tab, the part that answers, and the act, for the number of the try."""
    rng = np.random.default_rng(0)

    def send(_: int) -> None:
        file = io.BytesIO()
        Image.fromarray(Rooms(64).images(rng.integers(480_000, size=1))[0]).save(file, "PNG")
        picture = {"name": "picture.png", "mimeType": "image/png", "buffer": file.getvalue()}
        page.locator("#picture-file input[type=file]").set_input_files(picture)

    def slide(number: int) -> None:
        slider = page.locator("#slider-3 input[type=range]")
        low, high = (float(slider.evaluate(f"it => it.{end}")) for end in ("min", "max"))
        slider.fill(str(low + (high - low) * (number % 7 + 1) / 9))

    def choose(number: int) -> None:
        page.locator("#unit input").click()
        page.get_by_role("option", name=f"unit {(number + 1) % 10}").first.click()

    return {
        "take a picture of the data": (
            "Encode",
            "#encoded",
            lambda number: page.locator("#picture button").nth(2 + number % 3).click(),
        ),
        "send a picture": ("Encode", "#encoded", send),
        "tick a unit": ("Swap", "#mixed", lambda _: page.locator("#ticked input").nth(5).click()),
        "move a slider": ("Traverse", "#moved", slide),
        "choose a unit's map": ("Anchors", "#map", choose),
        "choose an anchor": (
            "Anchors",
            "#samples",
            lambda number: page.locator("#anchor input").nth((number + 1) % 2).check(),
        ),
    }


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    found: dict[str, list[float]] = {}
    with sync_playwright() as playwright, viewer() as address:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#encoded table")
        for name, (tab, part, act) in acts(page).items():
            page.get_by_role("tab", name=tab).click()
            page.wait_for_selector(f"{part} img")
            page.wait_for_timeout(500)
            found[name] = []
            for number in range(REPEATS):
                found[name].append(seconds(page, part, lambda number=number, act=act: act(number)))
                page.wait_for_timeout(300)  # the rest of the answer
        browser.close()
    times = {
        name: {"median_s": round(median(tries), 2), "longest_s": round(max(tries), 2)} for name, tries in found.items()
    }
    numbers = {
        "model": "rooms-cpu",
        "steps": Sampling().steps,
        "tries": REPEATS,
        "load_average": round(os.getloadavg()[0], 1),
        "bar_s": BAR_SECONDS,
        "longest_s": max(one["longest_s"] for one in times.values()),
        **times,
    }
    print(write("viewer", numbers))


if __name__ == "__main__":
    main()
