"""Torch files that others published: what is taken, and what is refused."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.zoo.opened import open_backbone
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.foreign import infer_resnet
from virtex.zoo.init import open_init

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
    with pytest.raises(CheckpointError, match=r"its keys are weight.*must be named"):
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


RESNET = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})


def weights(seed=1):
    """A small ResNet's state dict, with its classifier."""
    torch.manual_seed(seed)
    return timm.create_model(RESNET.name, num_classes=5, **RESNET.options).state_dict()


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def loaded(values, tmp_path):
    """The first weight of the backbone in a file of these values."""
    path = tmp_path / "model.pth"
    torch.save(values, path)
    return open_backbone(path, config=RESNET)[0].cnn.conv1.weight


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.", "module.", "model.", "backbone.", "teacher.", "student.", "encoder.",
        "module._orig_mod.", "_orig_mod.module.", "teacher.backbone.", "model.module.encoder.",
        "backbone._orig_mod.", "module.module.", "online_network.encoder.net.",
        "_feature_blocks.", "visual.cnn.", "module.encoder_q.",
    ],
)  # fmt: skip
def test_a_network_is_found_under_any_prefix(prefix, tmp_path):
    state = weights()
    beside = {"queue": torch.zeros(3), "predictor.0.weight": torch.zeros(2, 2)}
    if prefix == "_orig_mod.":  # which is removed, so that all names count
        beside = {}
    found = loaded({"state_dict": prefixed(prefix, state) | beside}, tmp_path)
    assert torch.equal(found, state["conv1.weight"])


@pytest.mark.parametrize(
    "wrapper",
    ["state_dict", "state_dict_ema", "model_state_dict", "model", "net", "model_ema", "teacher"],
)
def test_a_state_dict_is_found_under_any_usual_key(wrapper, tmp_path):
    state = weights()
    values = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(3)}}, wrapper: state}
    assert torch.equal(loaded(values, tmp_path), state["conv1.weight"])


def test_a_compiled_block_within_a_network_is_found(tmp_path):
    state = weights()
    own = {name.replace("layer1.", "layer1._orig_mod."): value for name, value in state.items()}
    assert torch.equal(loaded(own, tmp_path), state["conv1.weight"])


def test_the_trunk_of_a_vissl_checkpoint_is_an_init(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    trunk = {n: v for n, v in prefixed("_feature_blocks.", state).items() if ".fc." not in n}
    model = {"trunk": trunk, "heads": {"0.clf.0.weight": torch.zeros(4, 2)}}
    classy = {
        "train": True,
        "base_model": {"model": model, "loss": {}},
        "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}},
    }
    path = tmp_path / "model_final_checkpoint_phase799.torch"
    torch.save({"phase_idx": 799, "loss": 1.5, "classy_state_dict": classy}, path)
    backbone, initialisation = open_backbone(path)
    assert torch.equal(backbone.cnn.conv1.weight, state["conv1.weight"])
    assert initialisation.backbone == BackboneConfig("resnet18")


@pytest.mark.parametrize(
    ("values", "taken"),
    [
        (lambda a, b: {"state_dict": b, "state_dict_ema": a}, "state_dict_ema"),
        (lambda a, b: {"model": b, "model_ema": a}, "model_ema"),
        (lambda a, b: {"student": prefixed("module.backbone.", b), "teacher": a}, "teacher"),
        (lambda a, b: prefixed("student.", b) | prefixed("teacher.", a), "teacher."),
        (
            lambda a, b: prefixed("module.encoder_k.", b) | prefixed("module.encoder_q.", a),
            "encoder_q.",
        ),
    ],
)
def test_one_of_several_networks_is_taken_by_a_rule_that_is_logged(values, taken, tmp_path, caplog):
    expected = weights(1)
    with caplog.at_level("INFO", "virtex"):
        found = loaded(values(expected, weights(2)), tmp_path)
    assert torch.equal(found, expected["conv1.weight"])
    assert f"takes the weights {taken}" in caplog.text.replace("under ", "")


def test_networks_between_which_no_rule_decides_are_listed(tmp_path):
    values = prefixed("online.", weights(1)) | prefixed("target.", weights(2))
    with pytest.raises(CheckpointError, match=r"2 networks that fit: online\.\*, target\.\*"):
        loaded(values, tmp_path)


def test_a_network_that_fits_only_partly_is_refused_by_names(tmp_path):
    state = prefixed("teacher.backbone.", weights())
    del state["teacher.backbone.layer2.0.conv1.weight"]
    state["teacher.backbone.layer9.weight"] = torch.zeros(1)
    with pytest.raises(
        CheckpointError, match=r"missing: layer2.0.conv1.weight; 1 unexpected: layer9.weight"
    ):
        loaded(state, tmp_path)


@pytest.mark.parametrize("number", [np.float64(0.7), np.float32(0.5), np.int64(3), np.bool_(True)])
def test_options_and_numbers_beside_the_weights_are_ignored(number, tmp_path):
    state = weights()
    arguments = argparse.Namespace(lr=0.1, names=["a"], inner=argparse.Namespace(best=number))
    values = {"args": arguments, "metric": number, "state_dict": state, "epoch": 3}
    assert torch.equal(loaded(values, tmp_path), state["conv1.weight"])


def test_names_of_an_older_numpy_are_ignored_too(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": weights(), "metric": np.float64(0.5)}, path)
    older = tmp_path / "older.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(older, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(b"numpy._core", b"numpy.core"))
    assert b"numpy.core.multiarray" in older.read_bytes()
    open_backbone(older, config=RESNET)


def test_nothing_beside_the_weights_is_called(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    torch.save({"model": weights(), "metric": np.float64(0.5)}, path)
    monkeypatch.setattr(np, "dtype", lambda *args: pytest.fail("numpy was called"))
    open_init(path)


def test_a_path_beside_the_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"more than weights \(pathlib"):
        loaded({"model": weights(), "out": Path("elsewhere")}, tmp_path)


def test_a_checkpoint_that_contains_itself_ends(tmp_path):
    values: dict[str, object] = {"epoch": 3}
    values |= {"model": values, "net": values, "state_dict": values}
    with pytest.raises(CheckpointError, match="holds no state dict"):
        loaded(values, tmp_path)


def test_a_resnet_of_a_plain_file_is_taken_without_a_word(tmp_path, caplog):
    caplog.set_level("INFO")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "model.pth")
    open_backbone(tmp_path / "model.pth")
    assert "takes the weights" not in caplog.text


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_torchscript_file_is_refused_without_advice_to_load_it_unsafely(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="holds more than weights: it was not") as error:
        open_backbone(tmp_path / "model.pth")
    assert "weights_only" not in str(error.value)
