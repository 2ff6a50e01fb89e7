"""The site is built without a warning, has every page, and asks no other site for anything."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(site, config=ROOT / "mkdocs.yml"):
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(command, capture_output=True, text=True, cwd=config.parent)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = build(folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site):
    home = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        address = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / address).is_file()
        assert f'href="{address}"' in home
    assert "Pull the factors behind images apart" in home
    assert 'src="images/idea.png"' in home
    assert not list(site.rglob("*.py"))


def test_docstrings_are_on_the_page_of_the_interface(site):
    page = (site / "api.html").read_text()
    names = re.findall(r"^::: (\S+)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert len(names) > 40
    assert [name for name in names if f'id="{name}' not in page] == []
    assert "where one row is shared by all images" in " ".join(page.split())  # of `decode`


def test_nothing_is_asked_for_from_elsewhere(site, hooks):
    assert hooks.outside_assets(site) == []


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/a.css">',
        '<link rel="preconnect" href="https://cdn.example" crossorigin>',
        '<img src="a.png" srcset="b.png 1x, http://cdn.example/c.png 2x">',
        "<style>@import 'https://cdn.example/a.css';</style>",
        '<p style="background: url(https://cdn.example/a.png)">',
    ],
)
def test_what_a_browser_would_fetch_is_found(hooks, text, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page.html").write_text(f"<html>{text}</html>")
    (found,) = hooks.outside_assets(tmp_path)
    assert found.startswith(f"sub{tmp_path.root}page.html: ")
    assert "cdn.example" in found


def test_styles_are_read_and_links_are_left_to_people(hooks, tmp_path):
    style = '@font-face { src: url("https://cdn.example/a.woff2") } p { background: url(b.png) }'
    (tmp_path / "a.css").write_text(style)
    assert hooks.outside_assets(tmp_path) == ["a.css: https://cdn.example/a.woff2"]
    (tmp_path / "a.css").unlink()
    page = '<a href="https://example.org">there</a><img src="data:image/png;base64,AA//BB"><link rel="canonical" href="https://a">'
    (tmp_path / "page.html").write_text(page)
    assert hooks.outside_assets(tmp_path) == []


def test_a_site_with_such_an_asset_is_refused(hooks, tmp_path):
    (tmp_path / "page.html").write_text('<img src="https://cdn.example/a.png">')
    with pytest.raises(PluginError, match="assets of elsewhere: page.html: https://cdn.example/a.png"):
        hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


def test_a_dead_link_is_refused(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "src").symlink_to(ROOT / "src")
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    with (tmp_path / "docs" / "look.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    built = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert built.returncode != 0
    assert "nowhere.md" in built.stderr
