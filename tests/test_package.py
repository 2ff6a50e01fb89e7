"""The wheel is complete, and importing is cheap."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built from the sources and installed without its dependencies into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("unweave-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return wheel, folder / "site"


def run_installed(site, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=site.parent, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_help_and_presets_from_the_wheel(installed):
    _, site = installed
    assert str(site) in run_installed(site, "-c", "import unweave; print(unweave.__file__)")
    assert "demo" in run_installed(site, str(site / "bin" / "unweave"), "--help")
    assert '"image_size": 32' in run_installed(site, "-m", "unweave", "train", "rooms-cpu", "--dry-run")


@pytest.mark.slow
def test_bundled_model_is_in_the_wheel_and_opens(installed):
    wheel, site = installed
    names = zipfile.ZipFile(wheel).namelist()
    assert "unweave/weights/rooms-cpu/model.safetensors" in names
    assert "unweave/py.typed" in names
    assert {"unweave/report/page.html", "unweave/viewer/parts.html", "unweave/viewer/view.css"} <= set(names)
    code = (
        "import unweave, numpy as np; m = unweave.load('rooms-cpu'); "
        "print(m.decode(m.encode(np.zeros((1, 32, 32, 3), np.uint8)).aligned, 5).shape)"
    )
    assert "(1, 32, 32, 3)" in run_installed(site, "-c", code)


@pytest.mark.parametrize("name", ["unweave", "unweave.cli", "unweave.metrics", "unweave.data", "unweave.presets"])
def test_importing_loads_no_torch(name):
    subprocess.run([sys.executable, "-c", f"import sys, {name}; assert 'torch' not in sys.modules"], check=True)


@pytest.mark.slow
def test_training_loads_no_scikit_learn():
    """Workers that read images are copies of the training process: what it has loaded is held once for each."""
    subprocess.run(
        [sys.executable, "-c", "import sys, unweave.training.loop; assert 'sklearn' not in sys.modules"], check=True
    )
