"""The viewer's page: its layout, and the function behind each part. With `web`, the only module that imports Gradio.

Gradio keeps a `State` for each visitor: the picture, and the other picture for swaps.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from unweave.data.pictures import ENDINGS
from unweave.errors import UserError
from unweave.models.folder import LONGEST_NAME
from unweave.viewer import parts
from unweave.viewer.session import MOST_BYTES, NUM_EXAMPLES, Seen, Session

KEPT_SECONDS = 3600  # of uploaded files
DIGITS = 2  # of a slider
# one request at a time, because two would only share the cores
ANSWER: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "minimal",
}
LIVE: dict[str, Any] = {**ANSWER, "trigger_mode": "always_last"}  # of requests during a computation, only the last


def build(session: Session) -> gr.Blocks:
    """The page of a run."""
    with gr.Blocks(
        title=f"{Path(session.run).name}: unweave", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)
    ) as page:
        _Page(session).connect(page)
    return page


def _answer(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with a `UserError` shown on the page."""

    @wraps(function)
    def answer(*values: Any) -> Any:
        try:
            return function(*values)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return answer


class _Page:
    """The parts of the page, made from top to bottom, and their functions."""

    def __init__(self, session: Session) -> None:
        self.session = session
        first, second = (session.see(image) for image in session.examples[:2])
        gr.Markdown(f"# {Path(session.run).name}")
        self.picture, self.other = gr.State(first), gr.State(second)
        self.gallery, self.upload = self._picker("picture", "The picture")
        with gr.Tabs():
            with gr.Tab("Encode"):
                self._lay_out_encode()
            with gr.Tab("Swap"):
                self._lay_out_swap()
            with gr.Tab("Traverse"):
                self._lay_out_traverse()
            with gr.Tab("Anchors"):
                self._lay_out_anchors()
            with gr.Tab("Scores"):
                self.scores = gr.HTML(elem_id="scores", elem_classes="scrolls", visible=session.results is not None)
                if session.results is None:
                    missing = f"No scores yet: `unweave evaluate {session.run}`"
                    gr.Markdown(session.card() or missing, elem_classes="scrolls")

    def _picker(self, name: str, what: str) -> tuple[gr.Gallery, gr.File]:
        """A gallery of images of the data, and an upload."""
        gr.Markdown(f"**{what}**: choose one of the data, or upload one of at most {MOST_BYTES // 2**20} MB")
        with gr.Row():
            gallery = gr.Gallery(
                [(image, f"image {number} of the data") for number, image in enumerate(self.session.examples)],
                show_label=False,
                columns=NUM_EXAMPLES // 2,
                format="png",
                allow_preview=False,
                interactive=False,
                object_fit="contain",
                buttons=[],
                elem_id=name,
                elem_classes="picker",
                scale=3,
            )
            upload = gr.File(
                show_label=False,
                file_types=list(ENDINGS),
                height=140,
                elem_id=f"{name}-file",
                scale=1,
                min_width=200,
            )
        return gallery, upload

    def _lay_out_encode(self) -> None:
        self.encoded = gr.HTML(elem_id="encoded", elem_classes="scrolls")
        with gr.Accordion("Name a unit", open=False):
            with gr.Row():
                self.named = gr.Dropdown(self._choices(), value=0, label="unit", elem_id="named")
                self.text = gr.Textbox(label=f"name, at most {LONGEST_NAME} letters", elem_id="name", lines=1)
            self.save = gr.Button("Save with the model", elem_id="save")

    def _lay_out_swap(self) -> None:
        self.other_gallery, self.other_upload = self._picker("other", "The other picture")
        self.ticked = gr.CheckboxGroup(self._choices(), value=[], label="units taken from the other", elem_id="ticked")
        self.mixed = gr.HTML(elem_id="mixed")

    def _lay_out_traverse(self) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self.moved = gr.HTML(elem_id="moved")
                self.back = gr.Button("Back to the picture", elem_id="back")
            with gr.Column(scale=1, min_width=300):
                self.sliders = [
                    gr.Slider(label=label, step=10**-DIGITS, interactive=True, buttons=[], elem_id=f"slider-{unit}")
                    for unit, label in enumerate(self.session.labels)
                ]

    def _lay_out_anchors(self) -> None:
        self.unit = gr.Dropdown(self._choices(), value=0, label="unit", elem_id="unit")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("A map of the unit's tokens, a dot per image of the data: click one")
                self.map = gr.Image(
                    show_label=False,
                    interactive=False,
                    format="png",
                    buttons=[],
                    elem_id="map",
                )
                self.anchor = gr.Radio([], label="anchor", elem_id="anchor")
            with gr.Column(scale=1, min_width=300):
                self.samples = gr.HTML(elem_id="samples")

    def connect(self, page: gr.Blocks) -> None:
        """Connects the parts with their functions."""
        # a new picture updates all that depends on it
        chosen = [self.unit, self.anchor]
        mixing = [self.picture, self.other, self.ticked]
        views = [self.encoded, self.mixed, self.moved, self.samples, *self.sliders]
        for gallery, upload, state, look, seen in (
            (self.gallery, self.upload, self.picture, self.look, views),
            (self.other_gallery, self.other_upload, self.other, self.mix, [self.mixed]),
        ):
            asked = [*mixing, *chosen] if state is self.picture else mixing
            gallery.select(_answer(self.take), None, state, **ANSWER).success(_answer(look), asked, seen, **ANSWER)
            sent = upload.upload(self.receive, [upload, state], [upload, state], **ANSWER)
            sent.success(_answer(look), asked, seen, **ANSWER)

        # swap and traverse
        self.ticked.input(_answer(self.mix), mixing, self.mixed, **LIVE)
        dragged = [slider.input for slider in self.sliders]
        gr.on(dragged, _answer(self.move), [self.picture, *self.sliders], self.moved, **LIVE)
        self.back.click(_answer(self.start), self.picture, [self.moved, *self.sliders], **ANSWER)

        # anchors
        anchored = [self.map, self.anchor, self.samples]
        self.unit.input(_answer(self.show_map), [self.picture, self.unit], anchored, **ANSWER)
        self.map.select(_answer(self.find), [self.picture, self.unit], [self.anchor, self.samples], **ANSWER)
        self.anchor.input(_answer(self.sample), [self.picture, *chosen], self.samples, **ANSWER)

        # names of units, and the page when it is loaded
        labelled = [self.named, self.ticked, self.unit, self.scores, *self.sliders]
        self.save.click(_answer(self.name), [self.named, self.text], labelled, **ANSWER).success(
            _answer(self.look), [*mixing, *chosen], views, **ANSWER
        )
        page.load(self.relabel, None, labelled, **ANSWER).then(
            _answer(self.show_map), [self.picture, self.unit], anchored, **ANSWER
        ).then(_answer(self.look), [*mixing, *chosen], views, **ANSWER)

    def take(self, event: gr.SelectData) -> Seen:
        return self.session.see(self.session.examples[event.index])

    def receive(self, path: str, seen: Seen) -> tuple[None, Seen]:
        """The uploaded picture, or the present one if it cannot be read; the upload is emptied."""
        try:
            return None, self.session.see(self.session.read(path))
        except UserError as error:
            gr.Warning(str(error))
            return None, seen

    def look(self, seen: Seen, other: Seen, ticked: Sequence[int], unit: int, anchor: int | None) -> list[Any]:
        """All that depends on the picture."""
        session = self.session
        encoded = parts.pictures([("the picture", seen.image), ("its reconstruction", session.mix(seen, other, []))])
        table = parts.readings(session.readings(seen), len(session.explorer.sample.factors))
        moved, *sliders = self.start(seen)
        return [encoded + table, self.mix(seen, other, ticked), moved, self.sample(seen, unit, anchor), *sliders]

    def mix(self, seen: Seen, other: Seen, ticked: Sequence[int]) -> str:
        labels = [self.session.labels[unit] for unit in sorted(ticked)]
        words = f"with {', '.join(labels)} of the other" if labels else "its reconstruction"
        mixed = self.session.mix(seen, other, ticked)
        return parts.pictures([("the picture", seen.image), ("the other", other.image), (words, mixed)])

    def move(self, seen: Seen, *scalars: float) -> str:
        return parts.pictures(
            [("the picture", seen.image), ("with the values of the sliders", self.session.move(scalars))]
        )

    def start(self, seen: Seen) -> list[Any]:
        """The sliders at the picture's values, each over the unit's usual range, extended to include the value."""
        session, scalars = self.session, seen.codes.scalars[0].astype(np.float64).round(DIGITS).tolist()
        lows = np.minimum(session.low.astype(np.float64).round(DIGITS), scalars).tolist()
        highs = np.maximum(session.high.astype(np.float64).round(DIGITS), scalars).tolist()
        sliders = [gr.update(minimum=low, maximum=high, value=value) for low, high, value in zip(lows, highs, scalars)]
        return [self.move(seen, *scalars), *sliders]

    def show_map(self, seen: Seen, unit: int) -> list[Any]:
        anchors = self.session.anchors_of(unit)
        first = anchors[0] if anchors else None
        return [
            self.session.maps[unit].picture,
            gr.update(choices=anchors, value=first),
            self.sample(seen, unit, first),
        ]

    def find(self, seen: Seen, unit: int, event: gr.SelectData) -> list[Any]:
        anchor = self.session.maps[unit].nearest(*event.index) if self.session.anchors_of(unit) else None
        return [anchor, self.sample(seen, unit, anchor)]

    def sample(self, seen: Seen, unit: int, anchor: int | None) -> str:
        if anchor is None:
            return "This model has no anchors."
        return parts.rows(self.session.drawn_from(seen, unit, anchor))

    def name(self, unit: int, text: str) -> list[Any]:
        self.session.name(unit, text)
        return self.relabel()

    def relabel(self) -> list[Any]:
        """All labels, with the present names of the units."""
        choices = gr.update(choices=self._choices())
        results, labels = self.session.results, self.session.labels
        scores = parts.scores(results, labels) if results else ""
        return [choices, choices, choices, scores, *(gr.update(label=label) for label in labels)]

    def _choices(self) -> list[tuple[str, int]]:
        return [(label, unit) for unit, label in enumerate(self.session.labels)]
