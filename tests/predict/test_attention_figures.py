import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.data.transforms import ImageConfig, ValidationTransform
from virtex.predict.attention import CaptionAttention
from virtex.predict.attention_colors import overlay, scale_fractions, scale_ratios
from virtex.predict.attention_figures import (
    COLUMNS,
    GAP,
    HEAD_PANEL_SIDE,
    PANEL_SIDE,
    caption_strip,
    heads_figure,
    relevance_strip,
    seen_image,
    write_strip,
)
from virtex.predict.lettering import fitted, font_of, wrapped
from virtex.predict.relevance import CaptionRelevance

IMAGE = ImageConfig(size=64)
HARD_WORDS = ("donaudampfschifffahrtsgesellschaftskapitän", "собака", "漢字", "كلب", "🐕", "i")


def smooth_image(height, width, seed=0):
    """Return a smooth image, so that two ways of resizing agree."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blurred = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(min(height, width) / 16))
    pixels = np.asarray(blurred).astype(np.float32)
    return ((pixels - pixels.min()) / np.ptp(pixels) * 255).astype(np.uint8)


def attention_to(words, *, cell=(0, 0), num_heads=2, grid=(4, 4)):
    """Return attention of which all is on one cell."""
    weights = np.zeros((1, num_heads, len(words), *grid), np.float32)
    weights[..., cell[0], cell[1]] = 1
    return CaptionAttention(" ".join(words), tuple(words), weights, "forward", -1.0)


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize(
    ("height", "width"), [(200, 200), (211, 300), (300, 211), (64, 199), (131, 97)]
)
def test_the_image_is_cropped_as_the_network_saw_it(height, width, original):
    pixels = smooth_image(height, width)
    image = ImageConfig(size=64, original=original)
    seen = ValidationTransform(image)(Example("", pixels)).permute(1, 2, 0).numpy()
    shown = np.asarray(seen_image(pixels, image, side=64))
    error = abs(shown.astype(int) - seen.astype(int)).mean()
    for axis in (0, 1):
        moved = np.roll(seen, 1, axis=axis)
        assert error < abs(moved.astype(int) - seen.astype(int)).mean() / 3


def test_a_panel_is_as_sharp_as_the_file(tmp_path):
    path = tmp_path / "stripes.jpg"
    pixels = np.zeros((800, 800, 3), np.uint8)
    pixels[:, ::8] = pixels[:, 1::8] = pixels[:, 2::8] = pixels[:, 3::8] = 255
    Image.fromarray(pixels).save(path, quality=95)
    image = ImageConfig(size=32)
    assert np.asarray(seen_image(path, image, side=700)).std() > 110
    assert ValidationTransform(image)(Example("", path)).float().std() < 20


@pytest.mark.parametrize("cell", [(0, 0), (2, 3), (3, 1)])
def test_a_panel_is_brightest_where_the_attention_is(cell):
    maps = attention_to(["dog"], cell=cell).maps()
    values, scale = scale_fractions(maps)
    panel = overlay(Image.new("RGB", (80, 80)), values[0], scale)
    light = np.asarray(panel.convert("L")).reshape(4, 20, 4, 20).mean((1, 3))
    assert np.unravel_index(light.argmax(), light.shape) == cell


def test_a_flat_map_stays_dark():
    values, scale = scale_fractions(np.full((1, 3, 3), 1 / 9, np.float32))
    assert scale.positions(values).max() == pytest.approx(0.5)
    assert [label for _, label in scale.ticks] == ["0", "1", "4"]


def test_a_caption_of_thirty_words_wraps_into_rows():
    pixels = smooth_image(100, 100)
    sizes = [
        caption_strip(pixels, attention_to(["word"] * number), IMAGE).size
        for number in (COLUMNS - 1, 30)
    ]
    assert sizes[0][0] == sizes[1][0] == GAP + COLUMNS * (PANEL_SIDE + GAP)
    assert sizes[1][1] > 6 * PANEL_SIDE


@pytest.mark.parametrize("words", [(), HARD_WORDS])
def test_any_words_or_none_make_a_figure(words):
    attention, pixels = attention_to(words), smooth_image(90, 120)
    bias = np.full((1, 2, 4, 4), 1 / 16, np.float32)
    for draw in (caption_strip, heads_figure):
        for one in (None, bias):
            assert np.asarray(draw(pixels, attention, IMAGE, bias=one)).std() > 10


@pytest.mark.parametrize("word", HARD_WORDS)
def test_a_word_is_never_wider_than_its_panel(word):
    for width in (15, 60, 200):
        text, font = fitted(word, width=width, size=20)
        assert text
        assert font.getlength(text) <= width
    assert fitted("dog", width=200, size=20)[0] == "dog"


def test_lines_break_between_words_and_lose_none():
    font, text = font_of(20), "a man in a red shirt is climbing " * 5
    lines = wrapped(text, width=300, font=font)
    assert " ".join(lines) == text.strip()
    assert all(font.getlength(line) <= 300 for line in lines)
    assert wrapped("", width=300, font=font) == []


def test_where_a_map_equals_the_bias_the_image_shows_through_in_gray():
    image = Image.fromarray(smooth_image(100, 100))
    usual = overlay(image, *scale_ratios(np.ones((4, 4), np.float32)))
    gray = np.asarray(image.convert("L"))[..., None].astype(int)
    assert abs(np.asarray(usual) - gray).max() < 16
    more = overlay(image, *scale_ratios(np.full((4, 4), 4, np.float32)))
    assert abs(np.asarray(more) - gray).max() > 60


def test_each_head_has_its_panel():
    attention, pixels = attention_to(["two", "dogs"], num_heads=12), smooth_image(100, 100)
    wide = heads_figure(pixels, attention, IMAGE)
    few = heads_figure(pixels, attention_to(["two", "dogs"], num_heads=6), IMAGE)
    assert wide.width - few.width == 6 * (HEAD_PANEL_SIDE + GAP)


def test_a_strip_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "folder" / "strip.png"
    write_strip(path, smooth_image(100, 100), attention_to(["two", "dogs"]), IMAGE)
    assert [one.name for one in path.parent.iterdir()] == ["strip.png"]
    strip = caption_strip(smooth_image(100, 100), attention_to(["two", "dogs"]), IMAGE)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(strip))
    with pytest.raises(BadImageError, match="missing"):
        write_strip(tmp_path / "other.png", tmp_path / "missing.jpg", attention_to(["a"]), IMAGE)
    assert not list(tmp_path.glob("other*"))


def test_a_tensor_is_shown_like_an_array():
    pixels = smooth_image(100, 130)
    as_tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    shown = [seen_image(one, IMAGE, side=50).tobytes() for one in (pixels, as_tensor)]
    assert shown[0] == shown[1]


def test_a_strip_of_relevance_has_a_panel_for_each_word(tmp_path):
    words = ("two", "dogs")
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 0, 0] = maps[1, 3, 3] = 1
    relevance = CaptionRelevance("two dogs", words, maps, ("forward", "backward"))
    pixels = smooth_image(90, 120)
    strip = relevance_strip(pixels, relevance, IMAGE)
    attended = caption_strip(pixels, attention_to(words), IMAGE)
    assert strip.size == attended.size
    assert strip.tobytes() != attended.tobytes()
    write_strip(tmp_path / "strip.png", pixels, relevance, IMAGE)
    assert Image.open(tmp_path / "strip.png").convert("RGB").tobytes() == strip.tobytes()
