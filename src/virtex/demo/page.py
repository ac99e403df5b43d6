"""The page: what stands where, and which answer belongs to which question."""

import html
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from virtex.data.images import BadImageError, Pixels
from virtex.data.transforms import VALIDATION_SURPLUS
from virtex.demo import answers, rendering
from virtex.demo.photos import read_photo
from virtex.demo.shelf import Shelf
from virtex.demo.uploads import taken
from virtex.errors import DataError, VirTexError
from virtex.predict.matching import DEFAULT_TEMPLATES, MatchingConfig, Reading
from virtex.predict.predictor import Predictor

log = logging.getLogger("virtex")

MINUTES_KEPT = 30
"""How long a photograph stays in memory for questions about labels."""
QUEUE_LENGTH = 20
"""Visitors who may wait; more are asked to come back later."""
SESSIONS = 50
"""Visitors remembered at once; of more the first are forgotten."""
THEME = gr.themes.Base(
    primary_hue="blue",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "-apple-system", '"Segoe UI"', "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)
"""Fonts of the system, for none is fetched; greys and blues that stand out enough to be read."""
HEAD = '<meta name="color-scheme" content="light dark">'
FIRST_LABELS = "dog, child, bicycle, water"


class Page:
    """A page about one model.

    Args:
        name: What the model is called on the page.
        shelf: The examples, and the gallery that is searched.
        uploads: The folder in which sent photographs lie; no other file is read.
        max_megabytes: Largest file.
    """

    def __init__(
        self, predictor: Predictor, shelf: Shelf, *, name: str, uploads: Path, max_megabytes: int
    ) -> None:
        self.predictor, self.shelf, self.name = predictor, shelf, name
        self.uploads, self.max_megabytes = uploads, max_megabytes

    def blocks(self) -> gr.Blocks:
        """The page, not yet served."""
        with gr.Blocks(title="virtex demo", analytics_enabled=False) as blocks:
            pixels = gr.State(None, time_to_live=60 * MINUTES_KEPT)
            _html(rendering.head(self.name), classes="vx-head")
            picker = _html(
                rendering.picker(self.shelf, max_megabytes=self.max_megabytes),
                script=rendering.asset("picker.js"),
            )
            photo = _html("", script=rendering.asset("words.js"), elem_id="vx-look")
            _on(picker.submit, self.look, None, [pixels, photo])
            with gr.Row(equal_height=False):
                with gr.Column(min_width=300, elem_classes="vx-section"):
                    self._labels(pixels)
                with gr.Column(min_width=300, elem_classes="vx-section"):
                    self._search()

            def forget(visitor: gr.Request) -> None:
                """Let go of what a page that was closed showed."""
                blocks.state_holder.session_data.pop(visitor.session_hash or "", None)

            blocks.unload(forget)
        blocks.state_session_capacity = SESSIONS
        return blocks.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=1, api_open=False)

    def _labels(self, pixels: gr.State) -> None:
        _html(rendering.title("Which label fits?", "Type labels; the photo above is weighed."))
        labels = gr.Textbox(FIRST_LABELS, label="Labels, with commas between them", lines=2)
        ask = gr.Button("Weigh the labels", variant="primary")
        bars = _html("", elem_id="vx-labels")
        with gr.Accordion("Options", open=False):
            template = gr.Textbox(
                DEFAULT_TEMPLATES[0], label="Caption around a label", info="{} is the label."
            )
            prior = gr.Slider(
                0, 1, value=MatchingConfig.prior, step=0.1, label="Prior",
                info="How much of what the model expects of a blank image is subtracted.",
            )  # fmt: skip
            is_bidirectional = self.predictor.captioner.bidirectional
            direction = gr.Radio(
                [("left to right", "forward"), ("right to left", "backward"), ("both", "both")],
                value="forward", label="Reader", visible=is_bidirectional,
            )  # fmt: skip
        given = [pixels, labels, template, prior, direction]
        _on(ask.click, self.weigh, given, [bars])
        _on(labels.submit, self.weigh, given, [bars])

    def _search(self) -> None:
        if self.shelf.gallery is None:
            _html(rendering.title("Search", "No pictures to search: start with --gallery DIR."))
            return
        count = len(self.shelf.paths)
        _html(rendering.title("Search", f"Which of {count} pictures fit a text best?"))
        text = gr.Textbox(
            "a dog running in the grass", label="Text", max_length=answers.LONGEST_TEXT
        )
        search = gr.Button("Search", variant="primary")
        found = _html("", elem_id="vx-found")
        _on(search.click, self.search, [text], [found])
        _on(text.submit, self.search, [text], [found])

    def look(self, event: gr.EventData) -> tuple[Pixels, str]:
        """The photograph that was sent or picked, and what the page shows of it."""
        with _in_words():
            pixels = self._pixels(event._data or {})
            return pixels, rendering.photo(answers.look_at(self.predictor, pixels))

    def weigh(
        self, pixels: Pixels | None, labels: str, template: str, prior: float, direction: Reading
    ) -> str:
        """The labels as bars."""
        with _in_words():
            if pixels is None:
                raise DataError("Choose a photo first; one from a while ago has to be sent again.")
            weights = answers.weigh_labels(
                self.predictor, pixels, labels, template=template, prior=prior, direction=direction
            )
            return rendering.labels(weights)

    def search(self, text: str) -> str:
        """The pictures that fit a text."""
        assert self.shelf.gallery is not None
        with _in_words():
            return rendering.found(
                answers.find(self.predictor, self.shelf.gallery, text), self.shelf
            )

    def _pixels(self, choice: dict[str, Any]) -> Pixels:
        """The photograph that was sent, which is deleted, or the example that was picked."""
        min_side = VALIDATION_SURPLUS * self.predictor.image.validation_short_side
        example = choice.get("example")
        if isinstance(example, int) and 0 <= example < len(self.shelf.paths):
            return read_photo(self.shelf.paths[example], min_side=min_side)
        with taken(self.uploads, choice.get("photo", "")) as path:
            return read_photo(path, min_side=min_side)


def _html(
    shown: str, *, script: str | None = None, classes: str = "", elem_id: str | None = None
) -> gr.HTML:
    """HTML as it is: the only template is ${value}, in whose place gradio evaluates nothing."""
    return gr.HTML(
        shown,
        js_on_load=script,
        apply_default_css=False,
        elem_classes=[classes] if classes else None,
        elem_id=elem_id,
    )


def _on(
    event: Callable[..., Any],
    answer: Callable[..., Any],
    inputs: Sequence[gr.components.Component] | None,
    outputs: Sequence[gr.components.Component],
) -> None:
    """Answer an event; the model answers one visitor at a time."""
    event(
        answer,
        inputs,
        outputs,
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="model",
        show_progress="minimal",
    )


@contextmanager
def _in_words() -> Iterator[None]:
    """Let a visitor read what went wrong; of what is our own mistake, only that there is one."""
    try:
        yield
    except BadImageError as error:
        text = html.escape(f"This photo cannot be read: {error.reason}.")
        raise gr.Error(text, print_exception=False) from error
    except VirTexError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error
    except Exception as error:
        log.exception("the demo could not answer")
        text = "Something went wrong on the server; its terminal says what."
        raise gr.Error(text, print_exception=False) from error
