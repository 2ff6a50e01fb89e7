"""A real browser, and the viewer of a copy of the bundled model as `unweave view` starts it."""

import os
import shutil
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from unweave.models.folder import find

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 60_000  # the machine may be busy with other tests
HERE = {"127.0.0.1", "localhost"}
WITHOUT_HOST = {"data", "blob", "file"}

# the command, with every connection to another machine told
VIEW = """
import sys

def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        print("connects to", arguments[1], file=sys.stderr, flush=True)

sys.addaudithook(watch)
from unweave.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def browser():
    """Chromium. Where there is none these tests are skipped, but not in CI, which has to have it."""
    if CHROMIUM is None:
        missing = "no chromium on this machine: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root, as in CI's container, Chromium runs only without its sandbox
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A model folder of one's own: the bundled model, copied."""
    copy = tmp_path_factory.mktemp("viewed") / "rooms"
    shutil.copytree(find("rooms-cpu"), copy)
    return copy


@pytest.fixture(scope="session")
def viewer(browser, model_folder):
    """The address of a viewer; afterwards it stops at Ctrl-C, and has talked to no other machine."""
    command = [sys.executable, "-c", VIEW, "view", str(model_folder), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=model_folder.parent)
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("open http"):
            break
    else:
        pytest.fail("".join(said))
    yield said[-1].split()[1]
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130, said
    assert not [line for line in said if "connects to" in line]


@pytest.fixture
def visit(browser):
    """Opens an address as a visitor of one's own, who asks no other machine for anything and sees no script fail."""
    contexts, asked, failed = [], [], []

    def open_page(address, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: asked.append(request.url))
        context.on("weberror", lambda error: failed.append(str(error.error)))
        page = context.new_page()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked
    assert not [url for url in asked if urlsplit(url).hostname not in HERE and urlsplit(url).scheme not in WITHOUT_HOST]
    assert not failed
