"""Image and caption changed together."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tests.real_data import real
from virtex.data.example import Example
from virtex.data.images import BadImageError, Box, decode_image, open_image
from virtex.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TRAINING_SURPLUS,
    ImageConfig,
    TrainTransform,
    ValidationTransform,
    normalize,
    random_box,
    resize,
    swap_left_and_right,
)
from virtex.errors import ConfigError

PLAIN = {"flip_prob": 0.0, "jitter_prob": 0.0}


def random_image(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(smooth)


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def train(config: ImageConfig, image: np.ndarray | bytes, *, seed: int, caption: str = "") -> tuple:
    return TrainTransform(config)(Example("1", image), caption, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    return sorted(real("data/coco_mini").rglob("*.jpg"))[:10]


@pytest.mark.parametrize(
    ("caption", "flipped"),
    [
        ("a dog on the left", "a dog on the right"),
        ("Left of it. RIGHT there, left!", "Right of it. LEFT there, right!"),
        ("a left-handed batter, right-hand drive", "a right-handed batter, left-hand drive"),
        ("the left's edge, the right\u2019s edge", "the right's edge, the left\u2019s edge"),
        ("left/right", "right/left"),
    ],
)
def test_a_flip_swaps_the_words_left_and_right(caption: str, flipped: str) -> None:
    assert swap_left_and_right(caption) == flipped


@pytest.mark.parametrize(
    "caption",
    [
        "bright lights",
        "leftover pizza",
        "a cleft",
        "e\u0301left right\u0301",
        "gelée right\u200dly",
        "",
    ],
)
def test_a_flip_leaves_words_that_hold_left_or_right_alone(caption: str) -> None:
    assert swap_left_and_right(caption) == caption


@given(st.lists(st.sampled_from(["left", "Right", "LEFT", "bright", "left-hand", "a", ","])))
def test_swapping_twice_is_the_identity(words: list[str]) -> None:
    caption = " ".join(words)
    assert swap_left_and_right(swap_left_and_right(caption)) == caption


def test_the_original_swap_changes_letters_inside_words_and_no_capitals() -> None:
    swapped = swap_left_and_right("a bright leftover left Right", original=True)
    assert swapped == "a bleft rightover right Right"


def test_caption_and_image_are_flipped_together() -> None:
    config = ImageConfig(size=32, scale=(1, 1), ratio=(1, 1), flip_prob=0.5, jitter_prob=0)
    straight = torch.from_numpy(random_image(32, 32)).permute(2, 0, 1)
    seen = set()
    for seed in range(20):
        image, caption = train(config, random_image(32, 32), seed=seed, caption="the left one")
        seen.add(caption)
        expected = straight if caption == "the left one" else straight.flip(2)
        assert torch.equal(image, expected)
    assert seen == {"the left one", "the right one"}


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 1000),
    st.sampled_from([(0.2, 1.0), (0.08, 1.0), (1.0, 1.0)]),
)
def test_a_crop_lies_in_the_image(
    height: int, width: int, seed: int, scale: tuple[float, float]
) -> None:
    box = random_box(height, width, np.random.default_rng(seed), scale=scale, ratio=(0.75, 1.333))
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


def test_crops_are_distributed_as_torchvisions() -> None:
    rng, image = np.random.default_rng(0), torch.zeros(3, 480, 640)
    torch.manual_seed(0)
    scale, ratio = (0.2, 1.0), (0.75, 1.333)
    ours = np.array([random_box(480, 640, rng, scale=scale, ratio=ratio) for _ in range(4000)])
    crop = v2.RandomResizedCrop(224, scale=scale, ratio=ratio)
    drawn = [crop.make_params([image]) for _ in range(4000)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in drawn])
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 8
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 8


def test_an_image_too_long_for_any_crop_gives_its_center() -> None:
    box = random_box(10, 1000, np.random.default_rng(0), scale=(0.9, 1), ratio=(0.75, 1.333))
    assert box == Box(0, 493, 10, 13)


def test_training_crops_and_resizes_as_torchvision(photos: list[Path]) -> None:
    """Within a level where nothing is reduced, within 4 in the mean where it is."""
    config = ImageConfig(size=224, **PLAIN)
    for seed, path in enumerate(photos):
        image, _ = train(config, path.read_bytes(), seed=seed)
        whole = torch.from_numpy(decode_image(path)).permute(2, 0, 1)
        rng = np.random.default_rng(seed)
        box = random_box(*whole.shape[1:], rng, scale=config.scale, ratio=config.ratio)
        expected = functional.resized_crop(whole, *box, [224, 224], antialias=True)
        difference = (image.int() - expected.int()).abs()
        if min(box.height, box.width) // 2 < TRAINING_SURPLUS * 224:
            assert difference.max() <= 1
        else:
            assert difference.float().mean() < 4


@pytest.mark.parametrize("size", [32, 56, 112, 192])
def test_reduced_decoding_stays_near_the_whole(photos: list[Path], size: int) -> None:
    """Within 5 levels of torchvision in the mean over the photos."""
    differences = []
    for path in photos:
        image = open_image(path)
        side = min(image.height, image.width)
        box = Box(0, 0, side, side)
        reduced = image.decode(box, min_size=int(TRAINING_SURPLUS * size))
        assert len(reduced) < side
        whole = torch.from_numpy(image.decode(box)).permute(2, 0, 1)
        expected = functional.resize(whole, [size, size], antialias=True)
        ours = resize(reduced, height=size, width=size)
        differences.append((ours.int() - expected.int()).abs().float().mean().item())
    assert np.mean(differences) < 5


def test_fine_stripes_become_gray_and_not_coarse_stripes() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    for image in (stripes, jpeg(stripes)):
        config = ImageConfig(size=60, scale=(1, 1), ratio=(1, 1), **PLAIN)
        small, _ = train(config, image, seed=0)
        assert (small[:, 2:-2, 2:-2].int() - 127).abs().max() < 12


def test_training_gives_a_uint8_square_of_any_image() -> None:
    for height, width in ((1, 1), (1, 200), (200, 1), (20, 30), (500, 300)):
        for image in (random_image(height, width), jpeg(random_image(height, width))):
            tensor, _ = train(ImageConfig(size=48), image, seed=1)
            assert tensor.shape == (3, 48, 48)
            assert tensor.dtype == torch.uint8
            assert tensor.is_contiguous()


def test_training_follows_its_generator_alone() -> None:
    torch.manual_seed(0)
    first, _ = train(ImageConfig(size=40), random_image(80, 90), seed=5)
    torch.manual_seed(1)
    again, _ = train(ImageConfig(size=40), random_image(80, 90), seed=5)
    other, _ = train(ImageConfig(size=40), random_image(80, 90), seed=6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_colors_are_jittered_with_their_probability() -> None:
    config = ImageConfig(size=16, scale=(1, 1), ratio=(1, 1), flip_prob=0, jitter_prob=0.8)
    plain = torch.from_numpy(random_image(16, 16)).permute(2, 0, 1)
    changed = [
        not torch.equal(train(config, random_image(16, 16), seed=s)[0], plain) for s in range(300)
    ]
    assert 0.7 < np.mean(changed) < 0.9


def test_color_is_dropped_and_detail_blurred_with_their_probabilities() -> None:
    still = ImageConfig(size=16, scale=(1, 1), ratio=(1, 1), flip_prob=0, jitter_prob=0)
    plain = torch.from_numpy(random_image(16, 16)).permute(2, 0, 1)
    gray = replace(still, grayscale_prob=0.2)
    grayed = [train(gray, random_image(16, 16), seed=seed)[0] for seed in range(400)]
    changed = [image for image in grayed if not torch.equal(image, plain)]
    assert 0.13 < len(changed) / 400 < 0.27
    assert all(torch.equal(image[0], image[1]) for image in changed)
    large = replace(still, size=224, blur_prob=0.5)
    blurred = [train(large, random_image(224, 224), seed=seed)[0] for seed in range(40)]
    sharp = torch.from_numpy(random_image(224, 224)).permute(2, 0, 1)
    changed = [image for image in blurred if not torch.equal(image, sharp)]
    assert 0.25 < len(changed) / 40 < 0.75
    assert all(image.is_contiguous() for image in changed)


def test_a_blur_is_as_wide_as_mocos_at_224_pixels_and_shrinks_with_the_image() -> None:
    """The spread of a white line is the blur's sigma."""
    widest = {}
    for size in (224, 448):
        line = np.zeros((size, size, 3), np.uint8)
        line[:, size // 2] = 255
        config = ImageConfig(size=size, scale=(1, 1), ratio=(1, 1), blur_prob=1, **PLAIN)
        distance = np.arange(size) - size // 2
        sigmas = []
        for seed in range(60):
            row = train(config, line, seed=seed)[0][0, 5].double().numpy()
            sigmas.append(np.sqrt((row * distance**2).sum() / row.sum()))
        widest[size] = max(sigmas)
        assert min(sigmas) < 0.5 * size / 224
    assert 1.7 < widest[224] < 2.05
    assert widest[448] == pytest.approx(2 * widest[224], rel=0.05)


def test_options_that_are_off_draw_no_numbers() -> None:
    """A crop takes 40, flip and jitter one each, the jitter's amounts and order 8."""
    for seed in range(20):
        rng, twin = (np.random.default_rng(seed) for _ in range(2))
        TrainTransform(ImageConfig(size=16))(Example("1", random_image(30, 40)), "", rng)
        twin.random(40)
        _, jitter = twin.random(2)
        twin.random(8 if jitter < 0.8 else 0)
        assert rng.random() == twin.random()


def test_read_only_pixels_stay_as_they_are() -> None:
    pixels = random_image(20, 20)
    pixels.flags.writeable = False
    train(ImageConfig(size=20), pixels, seed=0)
    assert np.array_equal(pixels, random_image(20, 20))


@pytest.mark.parametrize(("height", "width"), [(100, 150), (150, 100), (64, 64), (40, 300)])
@pytest.mark.parametrize("short_side", [64, 73])
def test_validation_is_torchvisions_resize_and_center_crop(
    height: int, width: int, short_side: int
) -> None:
    pixels = random_image(height, width)
    config = ImageConfig(size=64, validation_resize=short_side)
    ours = ValidationTransform(config)(Example("1", pixels))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    resized = functional.resize(image, [short_side], antialias=True)
    expected = functional.center_crop(resized, [64, 64])
    assert (ours.int() - expected.int()).abs().max() <= 1
    assert ours.is_contiguous()


def test_validation_of_a_large_jpeg_differs_by_less_than_a_level() -> None:
    data = jpeg(random_image(1200, 1000))
    ours = ValidationTransform(ImageConfig(size=64))(Example("1", data))
    exact = ValidationTransform(ImageConfig(size=64))(Example("1", decode_image(data)))
    assert (ours.int() - exact.int()).abs().float().mean() < 1


def test_the_short_side_in_validation() -> None:
    assert ImageConfig(size=224).validation_short_side == 256
    assert ImageConfig(size=112).validation_short_side == 128
    assert ImageConfig(size=224, original=True).validation_short_side == 224
    assert ImageConfig(size=224, validation_resize=230).validation_short_side == 230


def test_a_bad_image_is_named_by_its_example(tmp_path: Path) -> None:
    for transform in (
        lambda example: TrainTransform(ImageConfig())(example, "", np.random.default_rng(0)),
        ValidationTransform(ImageConfig()),
    ):
        with pytest.raises(BadImageError, match="tar member 7"):
            transform(Example("tar member 7", jpeg(random_image(50, 50))[:700]))
        with pytest.raises(BadImageError, match=r"gone\.jpg"):
            transform(Example("8", tmp_path / "gone.jpg"))


def test_normalized_images_equal_torchvisions() -> None:
    images = torch.from_numpy(random_image(8, 9)).permute(2, 0, 1)[None]
    expected = functional.normalize(images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.allclose(normalize(images), expected, atol=1e-5)
    assert torch.equal(normalize(images[0]), normalize(images)[0])


def test_every_byte_is_normalized_to_rounding_in_the_layout_of_the_images() -> None:
    images = torch.arange(256, dtype=torch.uint8).expand(1, 3, 2, 256)
    images = images.contiguous(memory_format=torch.channels_last)
    normalized = normalize(images)
    exact = functional.normalize(images.double() / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert (normalized - exact).abs().max() < 4e-7  # the last bit of the largest, 2.64, is 2.4e-7


def test_compiled_code_normalizes_alike_in_one_graph_without_a_warning(recwarn) -> None:
    images = torch.from_numpy(random_image(8, 9)).permute(2, 0, 1)[None]
    compiled = torch.compile(normalize, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images), normalize(images))
    assert not recwarn.list


def test_transforms_are_picklable() -> None:
    for transform in (TrainTransform(ImageConfig()), ValidationTransform(ImageConfig())):
        assert pickle.loads(pickle.dumps(transform)) == transform


def test_all_wrong_image_options_are_reported_at_once() -> None:
    wrong = r"(?s)size 0.*scale \(0, 2\).*flip_prob 2.*grayscale_prob 3.*blur_prob -1.*hue 0\.6"
    with pytest.raises(ConfigError, match=wrong):
        ImageConfig(size=0, scale=(0, 2), flip_prob=2, grayscale_prob=3, blur_prob=-1, hue=0.6)
