"""Each layout is read by what it was written for, or by a rule written down from its structure."""

import sys

import numpy as np
import onnxruntime
import pytest
import timm
import timm.data
import torch
from safetensors.torch import load_file

from tests.zoo.exported import (
    SIZE,
    SLIM,
    SLIM_VIT,
    exported,
    grid_of,
    images,
    read_torch,
    same,
    scramble,
    torchvision_resnet,
    write_run,
)
from tests.zoo.opened import open_backbone
from virtex.cli import main
from virtex.engine import checkpoint
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.locca import LocCaConfig
from virtex.zoo.backbones import load_backbone
from virtex.zoo.export import ExportConfig, parse_export
from virtex.zoo.init import open_init
from virtex.zoo.released import load_released, to_released
from virtex.zoo.weights_file import save_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "slim")


@pytest.fixture(scope="module")
def resnet18_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "resnet18", BackboneConfig("resnet18"))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_resnet_loads_its_layout_strictly_and_computes_the_same(name, tmp_path):
    own = scramble(Backbone(BackboneConfig(name)))
    torch.save(own.cnn.state_dict(), tmp_path / "init.pth")
    path = exported(tmp_path / "init.pth", "torchvision", tmp_path / "out.pth")
    resnet = torchvision_resnet(name)
    resnet.load_state_dict(read_torch(path), strict=True)
    with torch.no_grad():
        expected = own.pooled(images())
        torch.testing.assert_close(resnet(images()), expected, rtol=1e-5, atol=1e-5)
    assert type(read_torch(path)) is dict


def detectron2_parts(name):
    """(convolution in detectron2, convolution and norm in torchvision), from detectron2's ResNet:
    a stem, and stages res2 to res5 whose blocks have a shortcut where the channels change."""
    blocks, convolutions = {"resnet18": ([2, 2, 2, 2], 2), "resnet50": ([3, 4, 6, 3], 3)}[name]
    parts = [("stem.conv1", "conv1", "bn1")]
    for stage, num_blocks in enumerate(blocks, 1):
        for block in range(num_blocks):
            ours, theirs = f"layer{stage}.{block}", f"res{stage + 1}.{block}"
            parts += [
                (f"{theirs}.conv{index}", f"{ours}.conv{index}", f"{ours}.bn{index}")
                for index in range(1, convolutions + 1)
            ]
            channels_change = block == 0 and (name == "resnet50" or stage > 1)
            if channels_change:
                shortcut = f"{ours}.downsample"
                parts.append((f"{theirs}.shortcut", f"{shortcut}.0", f"{shortcut}.1"))
    return parts


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_detectron2s_names_are_those_of_its_resnet_and_lead_back(name, tmp_path):
    resnet = scramble(torchvision_resnet(name))
    torch.save(resnet.state_dict(), tmp_path / "init.pth")
    path = exported(tmp_path / "init.pth", "detectron2", tmp_path / "out.pth")
    checkpoint = read_torch(path)
    assert (checkpoint["__author__"], checkpoint["matching_heuristics"]) == ("virtex", True)
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    back = {}
    for theirs, convolution, batch_norm in detectron2_parts(name):
        back[f"{convolution}.weight"] = checkpoint["model"].pop(f"{theirs}.weight")
        for value in norm:
            back[f"{batch_norm}.{value}"] = checkpoint["model"].pop(f"{theirs}.norm.{value}")
    assert checkpoint["model"] == {}
    assert same(back, resnet.state_dict())


@pytest.mark.parametrize("format", ["torchvision", "detectron2", "original"])
def test_a_layout_of_torchvisions_resnets_refuses_others_and_names_them(format, run, tmp_path):
    with pytest.raises(ConfigError, match=r"'resnet18' with options .* none .*resnet50.*timm"):
        exported(run.folder, format, tmp_path / "out.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        (BackboneConfig("resnext50_32x4d"), "'resnext50_32x4d' is none of torchvision's"),
        (BackboneConfig("resnet18", options={"output_stride": 16}), "compute something else"),
    ],
)
def test_a_network_that_only_looks_like_torchvisions_is_refused(backbone, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        exported("random", "torchvision", tmp_path / "out.pth", backbone=backbone)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("backbone", [SLIM, SLIM_VIT], ids=["resnet", "vit"])
def test_timm_loads_its_layout_strictly(suffix, backbone, tmp_path):
    run = write_run(tmp_path / "run", backbone)
    path = exported(run.folder, "timm", tmp_path / f"out{suffix}")
    state = load_file(path) if suffix == ".safetensors" else read_torch(path)
    network = timm.create_model(backbone.name, num_classes=0, **backbone.options)
    network.load_state_dict(state, strict=True)
    assert same(network.state_dict(), run.task.backbone.cnn.state_dict())


@pytest.mark.parametrize(
    ("backbone", "output"), [(SLIM, "grid"), (SLIM, "pooled"), (SLIM_VIT, "grid")]
)
def test_onnxruntime_computes_what_torch_does_at_any_batch_size(backbone, output, tmp_path):
    run = write_run(tmp_path / "run", backbone)
    path = exported(run.folder, "onnx", tmp_path / "out.onnx", onnx_output=output)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, SIZE, SIZE]
    own = load_backbone(run.folder)
    for batch_size in (1, 2, 5):
        inputs = images(batch_size)
        expected = grid_of(own, inputs) if output == "grid" else grid_of(own, inputs).mean((2, 3))
        (found,) = session.run([output], {"images": inputs.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_graph_takes_images_of_the_size_that_is_given(run, tmp_path):
    path = exported(run.folder, "onnx", tmp_path / "out.onnx", image_size=96)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["grid"], {"images": images(2, 96).numpy()})
    expected = grid_of(run.task.backbone, images(2, 96)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_graph_that_cannot_be_shown_to_agree_is_not_written(tmp_path):
    backbone = Backbone(SLIM)
    backbone.cnn.conv1.weight.data.fill_(3e38)
    torch.save(backbone.cnn.state_dict(), tmp_path / "init.pth")
    with pytest.raises(ConfigError, match="differ by nan"):
        exported(tmp_path / "init.pth", "onnx", tmp_path / "out.onnx", backbone=SLIM)
    assert [path.name for path in tmp_path.iterdir()] == ["init.pth"]


SUFFIX = {"timm": ".pth", "onnx": ".onnx", "safetensors": ".safetensors", "huggingface": ""}


FORMATS = ["torchvision", "timm", "detectron2", "onnx", "safetensors", "original", "huggingface"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("part", ["backbone.cnn.bn1.running_var", "head.output_bias"])
def test_weights_that_are_not_finite_are_written_in_no_format(part, format, run, tmp_path):
    weights = open_init(run.folder + "/weights.safetensors")
    (name,) = [name for name in weights.state if name.endswith(part)]
    weights.state[name].view(-1)[0] = float("nan")
    save_weights(
        tmp_path / "run.safetensors",
        weights.state,
        config=weights.config,
        tokenizer=weights.tokenizer,
        step=30,
    )
    out = tmp_path / f"out{SUFFIX.get(format, '.pth')}"
    with pytest.raises(CheckpointError, match=rf"NaN: .*{part.removeprefix('backbone.cnn.')}"):
        exported(tmp_path / "run.safetensors", format, out)
    assert not out.exists()


def test_a_missing_onnx_package_is_named_with_its_remedy(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"needs onnxscript: pip install onnxscript$"):
        exported(run.folder, "onnx", tmp_path / "out.onnx")


def test_safetensors_is_a_weights_file_that_is_again_an_init(run, tmp_path):
    path = exported(run.folder, "safetensors", tmp_path / "out.safetensors")
    found, expected = (open_init(p) for p in (path, run.folder + "/weights.safetensors"))
    assert same(found.state, expected.state)
    assert (found.config, found.tokenizer, found.step) == (
        expected.config,
        expected.tokenizer,
        expected.step,
    )
    assert torch.equal(grid_of(load_backbone(path)), grid_of(run.task.backbone))


def test_a_checkpoint_becomes_a_weights_file_with_the_runs_vocabulary(run, tmp_path):
    weights = open_init(run.folder + "/weights.safetensors")
    values = {"task": weights.state, "config": weights.config, "step": 20}
    checkpoint.save(tmp_path / "run" / "checkpoints" / "step_00000020.pt", values)
    weights.tokenizer.save(tmp_path / "run" / "tokenizer.model")
    found = open_init(
        exported(tmp_path / "run", "safetensors", tmp_path / "new" / "out.safetensors")
    )
    assert same(found.state, weights.state)
    assert (found.tokenizer, found.step) == (weights.tokenizer, 20)


def test_a_bare_backbone_is_no_run_to_be_written_as_one(tmp_path):
    torch.save(Backbone(SLIM).cnn.state_dict(), tmp_path / "init.pth")
    with pytest.raises(ConfigError, match=r"is none\. `--format timm"):
        exported(tmp_path / "init.pth", "safetensors", tmp_path / "out.safetensors", backbone=SLIM)


def test_the_original_layout_gives_the_captioner_back(resnet18_run, tmp_path):
    path = exported(resnet18_run.folder, "original", tmp_path / "out.pth")
    values = read_torch(path)
    assert list(values) == ["model"]
    captioner = load_released(open_init(path))
    assert same(captioner.state_dict(), resnet18_run.task.captioner.state_dict())


@pytest.mark.parametrize("kind", ["captioner", "classifier"])
def test_a_released_model_is_written_whole_in_the_original_layout(kind, resnet18_run, tmp_path):
    released = to_released(resnet18_run.task.state_dict())
    if kind == "classifier":
        state = {name: value for name, value in released.items() if "textual" not in name}
        output = {
            "textual.output.weight": torch.ones(81, 512),
            "textual.output.bias": torch.ones(81),
        }
        released = state | output
    torch.save({"model": released, "iteration": 3}, tmp_path / "init.pth")
    path = exported(tmp_path / "init.pth", "original", tmp_path / "out.pth")
    assert same(read_torch(path)["model"], released)
    released["textual.output.bias"][0] = float("inf")
    torch.save(released, tmp_path / "init.pth")
    with pytest.raises(CheckpointError, match=r"NaN: .*output"):
        exported(tmp_path / "init.pth", "original", tmp_path / "out2.pth")


def test_a_bare_backbone_keeps_torchvisions_names_in_the_original_layout(tmp_path):
    resnet = torchvision_resnet("resnet18")
    torch.save(resnet.state_dict(), tmp_path / "init.pth")
    path = exported(tmp_path / "init.pth", "original", tmp_path / "out.pth")
    assert same(read_torch(path)["model"], resnet.state_dict())
    backbone, _ = open_backbone(path)
    assert same(backbone.cnn.state_dict(), resnet.state_dict())


def test_the_original_layout_refuses_heads_that_its_code_would_count_otherwise(tmp_path):
    head = HeadConfig(64, num_heads=2, max_tokens=7)
    run = write_run(tmp_path / "run", BackboneConfig("resnet18"), head=head)
    with pytest.raises(ConfigError, match=r"2 attention heads; the released code takes .* = 1 "):
        exported(run.folder, "original", tmp_path / "out.pth")


def test_the_original_layout_refuses_location_tokens(tmp_path):
    run = write_run(tmp_path / "run", BackboneConfig("resnet18"), kind=LocCaConfig)
    with pytest.raises(CheckpointError, match="location tokens that the released code does not"):
        exported(run.folder, "original", tmp_path / "out.pth")
    assert exported(run.folder, "torchvision", tmp_path / "backbone.pth").is_file()


def test_existing_files_are_replaced_only_with_overwrite(run, tmp_path):
    out = tmp_path / "out.pth"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"out\.pth exists: .*--overwrite"):
        exported(run.folder, "timm", out)
    assert out.read_text() == "mine"
    exported(run.folder, "timm", out, overwrite=True)
    assert "conv1.weight" in read_torch(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.pth"]


def test_a_path_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*choose another path"):
        exported(run.folder, "timm", tmp_path / "file" / "out.pth")


def test_all_problems_of_the_options_are_reported_at_once(run, tmp_path):
    (tmp_path / "out.bin").write_text("")
    with pytest.raises(ConfigError) as caught:
        ExportConfig(
            init=run.folder,
            format="torchvision",
            out=tmp_path / "out.bin",
            onnx_output="pooled",
            image_size=0,
        )
    message = str(caught.value)
    for told in ("must end in .pth", "exists", "onnx_output has no effect", "image_size 0 must"):
        assert told in message
    with pytest.raises(ConfigError, match="unknown format 'caffe'; it is one of torchvision, timm"):
        ExportConfig(init=run.folder, format="caffe", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="is a file, --format huggingface writes the other"):
        ExportConfig(
            init=run.folder, format="huggingface", out=tmp_path / "out.bin", overwrite=True
        )


def test_the_command_writes_and_prints_the_path(run, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(["export", run.folder, "--format", "timm", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "conv1.weight" in load_file(out)
    assert main(["export", run.folder, "--format", "caffe", "--out", str(out)]) == 2
    told = "unknown format 'caffe'; it is one of torchvision, timm"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "INIT --format timm --out OUT",
        "--format timm INIT --out OUT",
        "--format=timm --out OUT INIT",
        "--format timm --out OUT --overwrite INIT",
        "--out OUT --init INIT --format timm",
    ],
)
def test_init_may_stand_anywhere_among_the_flags(arguments, tmp_path):
    places = {"INIT": "runs/slim", "OUT": str(tmp_path / "out.pth")}
    config = parse_export([places.get(word, word) for word in arguments.split()])
    assert (config.init, config.format) == ("runs/slim", "timm")
    assert config.out == tmp_path / "out.pth"


def test_a_second_init_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="runs/other"):
        parse_export(
            ["runs/slim", "runs/other", "--format", "timm", "--out", str(tmp_path / "o.pth")]
        )
