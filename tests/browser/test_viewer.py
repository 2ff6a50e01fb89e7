"""The viewer as a person uses it."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

import unweave
from unweave.data import Fixed, Rooms
from unweave.report.anchor_figures import colour

PHONE = {"width": 390, "height": 844}
CHANGED = """([selector, before]) => {
  const found = document.querySelectorAll(selector);
  return found.length && found[found.length - 1].src !== before;
}"""


@pytest.fixture(scope="module")
def rooms(model_folder, tmp_path_factory):
    """Two pictures of one room, with objects of other hues, as files; the object's mask; the unit that tells best."""
    model = unweave.load(model_folder)
    dataset = Fixed(Rooms(32), model.trained_on.fixed_values)
    factors = np.array([[3, 1, 5, 2]] * 2)  # hues of wall and object, scale, shape
    factors[1, dataset.factor_names.index("object_hue")] = 6
    images = dataset.images(dataset.index(factors))
    mask = np.abs(images[0].astype(int) - images[1]).sum(axis=2) > 20
    scalars = model.scalars(images)
    width = model.scalars(dataset.images(np.arange(0, len(dataset), 10))).std(axis=0)
    unit = int((np.abs(scalars[1] - scalars[0]) / width).argmax())
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / "one.png", folder / "other.png"]
    for path, image in zip(paths, images):
        Image.fromarray(image).save(path)
    return images, paths, mask, unit


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def ready(page):
    page.wait_for_selector("#encoded table")
    return page


def last_picture(page, part):
    """The address of the last picture of a part; its pixels are in it."""
    return page.locator(f"{part} img").last.get_attribute("src")


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))).convert("RGB")).astype(int)


def changes(page, part, act):
    """What a part's last picture was and is, after something was done to it."""
    before = last_picture(page, part)
    act()
    page.wait_for_function(CHANGED, arg=[f"{part} img", before])
    return pixels(before), pixels(last_picture(page, part))


def send(page, name, path):
    page.locator(f"#{name}-file input[type=file]").set_input_files(path)


def inside_over_outside(before, after, mask):
    change = np.abs(after - before).mean(axis=2)
    return change[mask].mean() / change[~mask].mean()


def first_shown(page):
    return pixels(page.locator("#encoded img").first.get_attribute("src"))


def test_sent_pictures_are_swapped_where_the_object_is(visit, viewer, rooms):
    images, paths, mask, unit = rooms
    page = ready(visit(viewer))
    changes(page, "#encoded", lambda: send(page, "picture", paths[0]))
    assert np.array_equal(first_shown(page), images[0])
    open_tab(page, "Swap")
    page.wait_for_selector("#mixed img")
    send(page, "other", paths[1])
    other = page.locator("#mixed figure:nth-child(2) img")
    page.wait_for_function(CHANGED, arg=["#mixed figure:nth-child(2) img", other.get_attribute("src")])
    assert np.array_equal(pixels(other.get_attribute("src")), images[1])
    tick = page.locator("#ticked input").nth(unit)
    plain, mixed = changes(page, "#mixed", tick.check)
    assert inside_over_outside(plain, mixed, mask) >= 3
    assert f"unit {unit}" in page.locator("#mixed figcaption").last.inner_text()
    changes(page, "#mixed", tick.uncheck)
    assert np.array_equal(pixels(last_picture(page, "#mixed")), plain)


def test_a_slider_moves_the_object(visit, viewer, rooms):
    _, paths, mask, unit = rooms
    page = ready(visit(viewer))
    changes(page, "#encoded", lambda: send(page, "picture", paths[0]))
    open_tab(page, "Traverse")
    slider = page.locator(f"#slider-{unit} input[type=range]")
    value, least, most = (float(slider.evaluate(f"it => it.{name}")) for name in ("value", "min", "max"))
    goal = least if value - least > most - value else most
    before, after = changes(page, "#moved", lambda: slider.fill(str(goal)))
    assert inside_over_outside(before, after, mask) >= 3
    _, back = changes(page, "#moved", page.locator("#back").click)
    assert np.array_equal(back, before)


def test_an_anchor_is_found_by_a_click_and_drawn_from(visit, viewer):
    page = ready(visit(viewer))
    page.locator("#picture button").nth(4).click()
    open_tab(page, "Anchors")
    changes(page, "#samples", lambda: choose_unit(page, 5))
    chart = page.locator("#map img")
    chart.scroll_into_view_if_needed()
    shown = np.asarray(Image.open(io.BytesIO(chart.screenshot())).convert("RGB"))
    rows, columns = np.nonzero((shown == [round(255 * part) for part in colour(3)]).all(axis=2))
    place = {"x": int(columns[len(columns) // 2]), "y": int(rows[len(rows) // 2])}
    changes(page, "#samples", lambda: chart.click(position=place))
    assert page.locator("#anchor input:checked").get_attribute("value") == "3"
    assert page.locator("#samples .row").nth(3).locator("img").count() == 5
    changes(page, "#samples", lambda: page.locator("#anchor input").first.check())


def choose_unit(page, unit):
    page.locator("#unit input").click()
    page.get_by_role("option", name=f"unit {unit}").click()


def test_a_name_is_seen_everywhere_and_by_others(visit, viewer, model_folder):
    page = ready(visit(viewer))
    page.get_by_role("button", name="Name a unit").click()
    page.locator("#name textarea, #name input").fill("<b>hue of the wall</b>")
    page.locator("#save").click()
    name = "unit 0: <b>hue of the wall</b>"
    page.locator("#encoded table").get_by_text(name, exact=True).wait_for()
    assert json.loads((model_folder / "names.json").read_text()) == {"0": "<b>hue of the wall</b>"}
    other = ready(visit(viewer))
    for tab, part in (("Swap", "#ticked"), ("Traverse", "#slider-0")):
        open_tab(other, tab)
        other.locator(part).get_by_text(name, exact=True).wait_for()
    page.locator("#name textarea, #name input").fill("")
    page.locator("#save").click()
    page.locator("#encoded table").get_by_text("unit 0", exact=True).wait_for()


def test_visitors_do_not_see_each_other(visit, viewer, rooms):
    images, paths, _, _ = rooms
    first, second = ready(visit(viewer)), ready(visit(viewer))
    theirs = first_shown(second)
    changes(first, "#encoded", lambda: send(first, "picture", paths[0]))
    open_tab(second, "Swap")
    changes(second, "#mixed", second.locator("#ticked input").nth(1).check)
    assert np.array_equal(pixels(second.locator("#mixed img").first.get_attribute("src")), theirs)
    assert np.array_equal(first_shown(second), theirs)
    assert not np.array_equal(theirs, images[0])
    third = ready(visit(viewer))
    assert np.array_equal(first_shown(third), theirs)


def test_what_is_no_picture_is_said_and_changes_nothing(visit, viewer, rooms, tmp_path):
    page = ready(visit(viewer))
    before = last_picture(page, "#encoded")
    (tmp_path / "words.png").write_text("no picture")
    send(page, "picture", tmp_path / "words.png")
    page.get_by_text("not a picture").wait_for()
    (tmp_path / "large.png").write_bytes(b"\0" * (11 * 2**20))
    send(page, "picture", tmp_path / "large.png")
    page.get_by_text("11.0 MB: the limit is 10 MB").wait_for()
    assert last_picture(page, "#encoded") == before
    changes(page, "#encoded", lambda: send(page, "picture", rooms[1][0]))


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, viewer):
    page = ready(visit(viewer, viewport=PHONE))
    for tab in ("Encode", "Swap", "Traverse", "Anchors", "Scores"):
        open_tab(page, tab)
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab
    page.get_by_text("DCI completeness").first.wait_for()
