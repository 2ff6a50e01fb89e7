"""A model is added by three edits, and all commands know it."""

from tests.recipes.conftest import recipe

OPTIONS = ("--data.cache", "cache", "--train.images", "640", "--train.log-every-images", "320")


def test_a_model_is_a_file_options_and_a_preset(copy):
    network, options, row, preset = recipe("Add a model")
    copy.write("src/unweave/models/autoencoder.py", network)
    copy.insert("src/unweave/config.py", "class Kind(", options + "\n\n")
    copy.append("src/unweave/config.py", "MODELS = {", row)
    copy.append("src/unweave/presets/rivals.py", "RIVALS", preset)
    copy.append("src/unweave/presets/rivals.py", "from typing", "\nfrom unweave.config import AutoEncoderConfig\n")
    assert len(copy.edited) == 3
    copy.unweave("train", "autoencoder-rooms-cpu", "--run", "run", *OPTIONS)
    assert "resuming" not in copy.unweave("evaluate", "run")
    copy.unweave("report", "run", "rooms-cpu", "--steps", "2")
    copy.unweave("encode", "run", "--out", "codes.npz")
    page = (copy.folder / "run" / "report" / "report.html").read_text()
    assert "AutoEncoder" in page
    said = copy.run("-c", "import unweave; m = unweave.load('run'); print(type(m).__name__, m.history['images'])")
    assert said.split() == ["AutoEncoder", "640"]
