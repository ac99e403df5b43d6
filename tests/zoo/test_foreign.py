"""Torch files that others published: what is taken, and what is refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from tests.zoo.opened import open_backbone
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone
from virtex.zoo.foreign import infer_resnet

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


@pytest.mark.parametrize("name", [*RESNETS, "wide_resnet50_2", "wide_resnet101_2"])
def test_torchvisions_resnets_are_recognised_and_fit(name, tmp_path):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
        config = infer_resnet(state, tmp_path)
        own = Backbone(config).cnn.state_dict()
    assert config.name == name
    state = {key: value.shape for key, value in state.items() if not key.startswith("fc.")}
    assert state == {key: value.shape for key, value in own.items()}


class Hostile:
    """What a pickle may hold that runs a command when it is read carelessly."""

    def __reduce__(self):
        return os.system, ("touch never",)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("never"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"  <!DOCTYPE html><html>Google Drive", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"PK\x03\x04 cut short", "is damaged"),
        (b"\x00\x01\x02\x03", "damaged or no torch file"),
        (
            pickle.dumps(Malicious(), protocol=2),
            r"more than weights \(getattr\).* not loaded",
        ),
        (pickle.dumps(Hostile(), protocol=2), r"more than weights \(\w+\.system\).* not loaded"),
        (pickle.dumps(Hostile(), protocol=4), "holds more than weights: it was not loaded"),
    ],
)
def test_files_that_are_no_weights_are_refused_with_what_they_are(
    content, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_backbone(path)
    assert not (tmp_path / "never").exists()


def test_a_torch_file_with_code_or_with_other_things_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": nn.Linear(2, 2)}, path)
    with pytest.raises(
        CheckpointError, match=r"more than weights \(torch.nn.modules.linear.Linear"
    ):
        open_backbone(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list"):
        open_backbone(path)
    torch.save({"model": {"conv1.weight": torch.zeros(2)}, "step": 3, "epoch": 4}, path)
    with pytest.raises(CheckpointError, match="none of torchvision's"):
        open_backbone(path)
    torch.save({"step": 3, "conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="holds no state dict: found step; expected tensors"):
        open_backbone(path)
    torch.save({3: torch.zeros(2), "conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="holds no state dict: found 3; expected tensors"):
        open_backbone(path)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no known backbone: its keys are weight"):
        open_backbone(path)
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="none of torchvision's"):
        open_backbone(path)


def test_a_bit_that_flipped_in_a_zip_is_noticed(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        open_backbone(path)
