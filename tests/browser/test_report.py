"""The report of a model, opened in a browser."""

import pytest

from unweave.cli import main


@pytest.fixture(scope="module")
def report(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert main(["report", "rooms-cpu", "--out", str(folder), "--steps", "2", "--device", "cpu"]) == 0
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_report_is_whole_and_as_wide_as_the_screen(visit, report, width):
    page = visit(report, viewport={"width": width, "height": 844})
    pictures = page.locator("img").all()
    assert len(pictures) >= 5
    assert all(picture.evaluate("it => it.complete && it.naturalWidth > 0") for picture in pictures)
    assert page.get_by_role("heading", name="Swaps").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_report_is_readable_without_scripts(visit, report):
    page = visit(report, java_script_enabled=False)
    assert page.get_by_role("heading", name="Traversals").is_visible()
