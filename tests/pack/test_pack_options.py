"""The options of `virtex pack`."""

import pytest

from virtex.config import parse
from virtex.data.source import Needs
from virtex.errors import ConfigError
from virtex.pack.pack_options import PackConfig


def config_of(line: str) -> PackConfig:
    return parse(PackConfig, ["--out", "shards", *line.split()], prog="virtex pack")


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as raised:
        config_of(
            "--short_side -1 --quality 101 --shard_size 0 --shard_bytes much --bad_image_limit 2 "
            "--seed -1"
        )
    for part in ("short_side -1", "quality 101", "shard_size 0", "'much'", "bad_image_limit 2",
                 "seed -1", "both say"):  # fmt: skip
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("line", "needs"),
    [("", Needs(captions=True)), ("--data.source coco", Needs(captions=True)),
     ("--data.source classes", Needs(labels=True)), ("--data.source voc", Needs(labels=True)),
     ("--data.source coco --annotations none", Needs()),
     ("--data.source coco --annotations labels", Needs(labels=True))],
)  # fmt: skip
def test_a_layout_without_captions_is_packed_with_its_labels(line, needs):
    assert config_of(line).needs == needs
