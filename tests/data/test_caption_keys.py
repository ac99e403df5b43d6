"""Captions under several keys, of which each step draws one by its weight."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.sources.layouts import jpeg, write, write_tar
from virtex.config import parse
from virtex.data.captioned import CaptionedForTraining
from virtex.data.captions import EncodeCaption
from virtex.data.example import Example, Source
from virtex.data.sidecars import Sidecar, keys_and_weights, read_sidecar
from virtex.data.source import SourceConfig, open_source
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.data.subsets import FewerCaptions
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, TrainTransform
from virtex.errors import ConfigError, DataError

KEYS = {"alt": 0.3, "synthetic": 0.6, "txt": 0.1}
TOKENIZER = train_tokenizer(["a b c d e f"], vocab_size=20)


def sidecar(text: str | None, **values: object) -> Sidecar:
    encoded = None if text is None else text.encode()
    return read_sidecar(encoded, json.dumps(values).encode(), KEYS)


def weights_of(found: Sidecar) -> tuple[float, ...]:
    return keys_and_weights(found.counts, KEYS)[1]


def test_captions_of_all_keys_share_the_weight_of_theirs() -> None:
    found = sidecar("e\nf\n", alt="a", synthetic=["b", "c", "d"], caption="x")
    assert found.captions == ("a", "b", "c", "d", "e", "f")
    assert found.counts == (1, 3, 2)
    keys, weights = keys_and_weights(found.counts, KEYS)
    assert keys == ("alt", *("synthetic",) * 3, "txt", "txt")
    assert weights == pytest.approx((0.3, 0.2, 0.2, 0.2, 0.05, 0.05))


@pytest.mark.parametrize("absent", [None, "", " ", [], [None, ""], 7, {"a": 1}])
def test_keys_that_an_image_lacks_leave_their_weight_to_the_others(absent: object) -> None:
    assert weights_of(sidecar(None, alt=absent, synthetic="b")) == (1.0,)
    assert weights_of(sidecar("e", alt=absent, synthetic="b")) == pytest.approx((6 / 7, 1 / 7))
    assert sidecar(None, alt=absent) == Sidecar((), "missing")


def test_faults_are_those_of_the_files() -> None:
    assert read_sidecar(b"e", b"{", KEYS).fault == "not valid JSON"
    assert read_sidecar(b"\xff", b"{}", KEYS).fault == "not UTF-8"
    assert read_sidecar(b"e", None, KEYS) == Sidecar(("e",), "", (0, 0, 1))
    assert read_sidecar(b"e", b"[]", KEYS) == Sidecar(("e",), "", (0, 0, 1))
    assert read_sidecar(None, None, KEYS).fault == "missing"
    assert read_sidecar(b"\xff", b"{", {"txt": 1}).fault == "not UTF-8"


def drawn(example: Example, seed: int, num_captions: int = 1) -> list[str]:
    """The captions that a step takes of an image."""
    transform = TrainTransform(ImageConfig(size=8, flip_prob=0, jitter_prob=0))
    encode = CaptionedForTraining(transform, EncodeCaption(TOKENIZER, 9), num_captions)
    encoded = encode(example, np.random.default_rng(seed))
    return (
        list(TOKENIZER.decode(encoded["tokens"].tolist()[1:]))
        if num_captions == 1
        else (TOKENIZER.decode(t for t in encoded["tokens"].tolist() if t > 3).split())
    )


def test_steps_draw_captions_by_their_weights() -> None:
    found = sidecar("e", alt="a", synthetic=["b", "c"])
    example = Example("1", np.zeros((8, 8, 3), np.uint8), found.captions, weights_of(found))
    counts = Counter(drawn(example, seed)[0] for seed in range(1500))
    expected = dict(zip(found.captions, weights_of(found), strict=True))
    for caption, weight in expected.items():
        assert counts[caption] / 1500 == pytest.approx(weight, abs=0.04)  # over 3 deviations
    assert all(sorted(drawn(example, seed, 4)) == ["a", "b", "c", "e"] for seed in range(5))
    assert all(drawn(example, seed, 4)[:1] == drawn(example, seed) for seed in range(20))


def write_data(root: Path, source: str) -> None:
    """Three images: one with all keys, one with a key, one with other keys."""
    documents: list[Any] = [{"alt": "a", "synthetic": ["b", "c"]}, {"alt": "d"}, {"caption": "f"}]
    files: dict[str, bytes | str] = {"0.txt": "e"}
    for number, document in enumerate(documents):
        files |= {f"{number}.jpg": jpeg(number), f"{number}.json": json.dumps(document)}
    if source == "webdataset":
        write_tar(root / "0.tar", dict(sorted(files.items())))
        return
    for name, content in files.items():
        write(root / name, content)


def opened(root: Path, source: str, keys: str) -> Source:
    flags = ["--source", source, "--root", str(root), "--missing_caption_limit", "0.4"]
    config = parse(SourceConfig, [*flags, "--caption_keys", keys], prog="x")
    found = open_source(config, split="train")
    assert found is not None
    return found


@pytest.mark.parametrize("source", ["folder", "webdataset"])
def test_sources_read_the_keys_and_keep_them_apart(tmp_path: Path, source: str) -> None:
    write_data(tmp_path, source)
    keyed, again = (opened(tmp_path, source, "{alt: 3, synthetic: 7}") for _ in range(2))
    for found in (keyed, again):  # the second time from an index
        assert [found[i].captions for i in range(2)] == [("a", "b", "c"), ("d",)]
        assert found.caption_keys == ("alt", "synthetic")
        assert found[0].caption_keys == ("alt", "synthetic", "synthetic")
        assert found[0].caption_weights == pytest.approx((0.3, 0.35, 0.35))
        assert found[1].caption_weights == (1.0,)
    assert len(keyed) == 2  # the third has none of the keys
    assert FewerCaptions(keyed, 2)[0].caption_weights == keyed[0].caption_weights[:2]
    assert keyed.identity()["caption_keys"] == '{"alt": 3.0, "synthetic": 7.0}'
    assert opened(tmp_path, source, "{txt: 1, caption: 1}")[1].captions == ("f",)
    plain = open_source(SourceConfig(source, tmp_path, missing_caption_limit=0.4), split="train")
    assert plain is not None
    assert [example.captions for example in plain] == [("e",), ("f",)]
    assert "caption_keys" not in plain.identity()
    assert {example.caption_weights for example in plain} == {()}


def test_another_index_does_not_serve_other_keys(tmp_path: Path) -> None:
    write_data(tmp_path, "webdataset")
    for keys in ({"alt": 1.0}, {"synthetic": 1.0}, {"alt": 1.0}):
        found = WebdatasetSource(tmp_path, missing_caption_limit=0.9, caption_keys=keys)
        assert set(found[0].captions) <= ({"a"} if "alt" in keys else {"b", "c"})


def test_too_many_images_without_a_key_name_the_option(tmp_path: Path) -> None:
    write_data(tmp_path, "folder")
    with pytest.raises(DataError, match=r"caption is missing: 2 .*--data\.caption_keys"):
        opened(tmp_path, "folder", "{synthetic: 1}")


def test_weights_must_be_above_nothing_and_have_a_source() -> None:
    folder = SourceConfig("folder", Path("x"), caption_keys={"alt": 0})
    with pytest.raises(ConfigError, match=r"caption_keys must be weights above 0"):
        open_source(folder, split="train")
    with pytest.raises(ConfigError, match=r"caption_keys .* means nothing to --data.source scenes"):
        open_source(SourceConfig("scenes", caption_keys={"alt": 1}), split="train")
