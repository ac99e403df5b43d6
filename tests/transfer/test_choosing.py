"""The protocols that choose: those of the commands, under the same names and settings."""

from pathlib import Path

import pytest

from virtex.data.source import SourceConfig
from virtex.transfer import linear, voc07
from virtex.transfer.choosing import ChoiceName, choosing_data, choosing_protocol
from virtex.transfer.protocol import Protocol

VOC = SourceConfig("voc", root=Path("VOCdevkit"))


def chosen(name: ChoiceName, data: SourceConfig, *, out: Path, num_train: int = 100) -> Protocol:
    like = linear.protocol(linear.LinearConfig(init="random", out=out)).extraction
    return choosing_protocol(name, like, data=data, num_train=num_train)


@pytest.mark.parametrize("data", [VOC, SourceConfig("scenes")], ids=["voc", "scenes"])
def test_voc07_that_chooses_is_that_of_the_command(data: SourceConfig, tmp_path: Path) -> None:
    command = voc07.Voc07Config(init="random", out=tmp_path, data=data)
    assert chosen("voc07", data, out=tmp_path) == voc07.protocol(command)
    assert choosing_data("voc07", data) == voc07.with_voc_splits(data)
    assert choosing_data("linear", data) == data


def test_linear_that_chooses_is_that_of_the_command(tmp_path: Path) -> None:
    command = linear.LinearConfig(init="random", out=tmp_path)
    assert chosen("linear", command.data, out=tmp_path) == linear.protocol(command)


def test_all_of_few_images_vote(tmp_path: Path) -> None:
    few = chosen("linear", SourceConfig("classes"), out=tmp_path, num_train=7)
    assert few.settings()["num_neighbors"] == 7
