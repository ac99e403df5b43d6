"""Images with one or several of their captions."""

import numpy as np
import pytest

from virtex.data.captioned import CaptionedForTraining, collate_captioned, drawn_order
from virtex.data.captions import EncodeCaption
from virtex.data.example import Example
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, TrainTransform

CAPTIONS = ("a dog on the left", "a cat on the left", "the left has a bird")
TOKENIZER = train_tokenizer([*CAPTIONS, "the right"], vocab_size=60)
IMAGE = np.zeros((8, 8, 3), np.uint8)


def texts(num_captions: int, *, captions: tuple[str, ...] = CAPTIONS, seed: int = 0) -> list[str]:
    config = ImageConfig(size=8, flip_prob=1.0, jitter_prob=0.0)
    encode = CaptionedForTraining(
        TrainTransform(config), EncodeCaption(TOKENIZER, max_tokens=30), num_captions
    )
    example = Example("1", IMAGE, captions=captions)
    batch = collate_captioned([encode(example, np.random.default_rng(seed))])
    rows = zip(batch["tokens"].tolist(), batch["lengths"].tolist(), strict=True)
    return [TOKENIZER.decode(row[1 : length - 1]) for row, length in rows]


def test_all_captions_of_an_image_are_read_once_each() -> None:
    flipped = sorted(caption.replace("left", "right") for caption in CAPTIONS)
    assert sorted(texts(3)) == flipped


@pytest.mark.parametrize("seed", range(3))
def test_one_caption_is_the_first_of_several(seed: int) -> None:
    assert texts(1, seed=seed) == texts(2, seed=seed)[:1]


def test_an_image_with_fewer_captions_repeats_them() -> None:
    assert texts(3, captions=CAPTIONS[:1]) == ["a dog on the right"] * 3


def test_captions_without_weights_follow_the_drawn_one_cyclically() -> None:
    example = Example("1", IMAGE, captions=tuple("abcd"))
    orders = {tuple(drawn_order(example, np.random.default_rng(seed))) for seed in range(40)}
    assert orders == {(0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)}
