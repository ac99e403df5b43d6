from dataclasses import replace

import pytest

from virtex.demo import rendering
from virtex.demo.answers import FoundPicture, Look, ShownCaption
from virtex.demo.rendering import colors_of, number, percent
from virtex.demo.shelf import find_pictures, open_shelf
from virtex.predict.attention_colors import Scale

EVIL = '"><script>hacked()</script>'


def test_what_was_typed_or_said_is_no_html():
    caption = ShownCaption((EVIL,), -1.0, None, {("forward", "share"): ("data:,",)})
    look = Look("data:,", 1.0, (0, 0, 1, 1), (caption,), ("forward",))
    for shown in (rendering.photo(look), rendering.labels([(EVIL, 0.5)]), rendering.head(EVIL)):
        assert "<script>" not in shown
        assert "&lt;script&gt;" in shown


def test_the_name_of_a_file_is_no_html(predictor, gallery_folder):
    shelf = open_shelf(predictor, find_pictures("", gallery_folder))
    found = rendering.found([FoundPicture(i, -1.0, 0.5) for i in range(3)], shelf)
    for shown in (rendering.picker(shelf, max_megabytes=1), found):
        assert "<img src=x" not in shown
        assert "&lt;img src=x" in shown


def test_a_page_without_pictures_says_so(predictor):
    assert "--gallery" in rendering.picker(open_shelf(predictor, []), max_megabytes=1)


def test_a_model_that_reads_forward_alone_shows_no_choice_of_readers():
    caption = ShownCaption(("dog",), -1.0, None, {("forward", "share"): ("data:,",)})
    shown = rendering.photo(Look("data:,", 1.0, (0, 0, 1, 1), (caption,), ("forward",)))
    assert "Reader" not in shown
    assert "read backward" not in shown


def test_a_word_without_a_map_is_shown_all_the_same():
    maps = {("forward", "share"): ("data:a", "data:b"), ("backward", "share"): ("data:c",)}
    caption = ShownCaption(("two", "dogs"), -1.0, -1.0, maps)
    shown = rendering.photo(Look("data:,", 1.0, (0, 0, 1, 1), (caption,), ("forward", "backward")))
    assert (shown.count("data-forward-share="), shown.count("data-backward-share=")) == (2, 1)


def test_a_caption_without_words_is_said_to_be_one():
    caption = ShownCaption((), -1.0, None, {("forward", "share"): ()})
    shown = rendering.photo(Look("data:,", 1.0, (0, 0, 1, 1), (caption,), ("forward",)))
    assert "a caption without words" in shown


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.384, "38 %"), (0.042, "4.2 %"), (0.0997, "10 %"), (0.0004, "below 0.1 %")],
)
def test_shares_read_as_people_say_them(share, text):
    assert percent(share) == text


def test_numbers_have_a_true_minus():
    assert number(-12.34) == "−12.3"


def test_colours_run_from_one_end_of_the_map_to_the_other():
    whole = Scale("gray", 0, 1, (1, 1), (), "")
    assert colors_of(whole).startswith("#000000, ")
    assert colors_of(whole).endswith(", #ffffff")
    assert colors_of(replace(whole, reach=0.5)).endswith(", #808080")
