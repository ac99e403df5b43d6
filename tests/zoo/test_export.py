"""Each layout is read by what it was written for, or by a rule written down from its structure."""

import json
import sys
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import timm
import timm.data
import torch
import torchvision
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import virtex
from tests.zoo.opened import open_backbone
from virtex.cli import main
from virtex.config import to_dict
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine import checkpoint
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.zoo.backbones import load_backbone
from virtex.zoo.export import ExportConfig, export, parse_export
from virtex.zoo.export.model_card import without_folders
from virtex.zoo.init import open_init
from virtex.zoo.models import find
from virtex.zoo.released import load_released, to_released
from virtex.zoo.weights_file import save_weights

SLIM = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})
SLIM_VIT = BackboneConfig(
    "vit_tiny_patch16_224", options={"depth": 1, "embed_dim": 24, "num_heads": 3}
)
SLIM_CONVNEXT = BackboneConfig(
    "convnext_atto", options={"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
)
SIZE = 64


@dataclass(frozen=True)
class Run:
    """A run folder, and what it holds."""

    folder: str
    task: nn.Module


def scramble(module):
    """Weights and statistics of no special values: timm starts some at zero."""
    torch.manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) if "var" in name else 0.2 * torch.randn_like(value))
    return module.eval()


def write_run(folder, backbone=SLIM, *, head=None, step=30):
    """A run folder as training leaves it, on data at an absolute path."""
    tokenizer = train_tokenizer(["a red ball on a table", "two dogs"], vocab_size=40)
    image = ImageConfig(size=SIZE)
    options = CaptioningConfig(head=head or HeadConfig(64, max_tokens=7))
    task = scramble(options.build(Backbone(backbone), TaskData(image, tokenizer)))
    config = {
        "out": str(folder),
        "data": {"source": "coco", "root": "/home/someone/COCO", "share": 0.5, "val_root": None},
        "tokenizer": {"tokenizer_path": "/home/someone/tokenizer.model"},
        "image": to_dict(image),
        "backbone": to_dict(backbone),
        "task": {"class_path": "CaptioningConfig", "init_args": to_dict(options)},
        "run": {"batch_size": 16, "num_steps": 30},
    }
    save_weights(
        folder / "weights.safetensors",
        task.state_dict(),
        config=config,
        tokenizer=tokenizer,
        step=step,
    )
    return Run(str(folder), task)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "slim")


@pytest.fixture(scope="module")
def resnet18_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "resnet18", BackboneConfig("resnet18"))


def images(batch_size=2, size=SIZE):
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def grid_of(backbone, inputs=None):
    return backbone.eval()(images() if inputs is None else inputs)


def exported(init, format, out, **options):
    return export(ExportConfig(init=str(init), format=format, out=out, **options))


def read_torch(path):
    return torch.load(path, weights_only=True)


def torchvision_resnet(name):
    resnet = getattr(torchvision.models, name)()
    resnet.fc = nn.Identity()
    return resnet.eval()


def same(state, other):
    return state.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in state.items()
    )


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


@pytest.mark.parametrize(
    "backbone", [SLIM, SLIM_VIT, SLIM_CONVNEXT], ids=["resnet", "vit", "convnext"]
)
def test_the_lines_on_a_card_load_its_folder_and_give_the_grid(backbone, tmp_path):
    run = write_run(tmp_path / "run", backbone)
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    Image.new("RGB", (80, 70), "red").save(tmp_path / "photo.jpg")
    code = code.replace("FOLDER", str(folder)).replace("photo.jpg", str(tmp_path / "photo.jpg"))
    names = {"images": images()}
    with torch.no_grad():
        exec(code, names)
    expected = grid_of(run.task.backbone)
    torch.testing.assert_close(names["grid"], expected, rtol=1e-5, atol=1e-5)
    assert names["features"].shape == expected.shape[:2]
    assert torch.equal(grid_of(names["backbone"]), expected)


def test_a_model_folder_holds_what_timm_and_virtex_read_and_nothing_else(run, tmp_path):
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "weights.safetensors",
    ]
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert same(network.state_dict(), run.task.backbone.cnn.state_dict())
    data = timm.data.resolve_model_data_config(network)
    assert (data["input_size"], data["mean"]) == ([3, SIZE, SIZE], [0.485, 0.456, 0.406])
    assert data["crop_pct"] == pytest.approx(SIZE / 73)
    classifier = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5)
    assert torch.equal(classifier.conv1.weight, network.conv1.weight)
    captions = [
        virtex.load_captioner(init).caption(Image.new("RGB", (80, 70), "red"))
        for init in (run.folder, folder)
    ]
    assert captions[0] == captions[1]


def result(initialisation, value):
    return {
        "protocol": "voc07",
        "headline": "mAP",
        "numbers": {"mAP": value, "other": 1.0},
        "settings": {"image_size": 224},
        "initialisation": initialisation,
        "data": {
            "train": {"source": "voc", "split": "trainval"},
            "test": {"source": "voc", "split": "test"},
        },
    }


def test_a_card_states_data_recipe_and_only_the_scores_of_these_weights(tmp_path):
    run = write_run(tmp_path / "run")
    sha256 = open_backbone(run.folder)[1].sha256
    results = tmp_path / "run" / "results"
    results.mkdir()
    for name, initialisation, value in [
        ("mine", {"init": "RUN", "step": 30, "sha256": sha256}, 81.25),
        ("early_stopping", {"init": "RUN", "step": 30}, 82.25),
        ("earlier", {"init": "RUN", "step": 20}, 83.25),
        ("other", {"init": "OTHER", "step": 30, "sha256": "0" * 64}, 84.25),
        ("random", {"init": "random", "step": None, "sha256": None}, 85.25),
    ]:
        (results / f"{name}.json").write_text(json.dumps(result(initialisation, value)))
    card = (exported(run.folder, "huggingface", tmp_path / "model") / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["library_name"] == "timm"
    assert "license" not in front_matter
    rows = [line for line in card.splitlines() if line.startswith("| voc07")]
    assert rows == [
        "| voc07 | voc trainval -> test | 224 | mAP 82.25 |",
        "| voc07 | voc trainval -> test | 224 | mAP 81.25 |",
    ]
    data, recipe = (
        yaml.safe_load(card.partition(f"## {name}\n\n```yaml\n")[2].partition("```")[0])
        for name in ("Data", "Recipe")
    )
    assert data == {"source": "coco", "root": "COCO", "share": 0.5}
    assert recipe["run"] == {"batch_size": 16, "num_steps": 30}
    assert recipe["backbone"]["name"] == "resnet18"


@pytest.mark.parametrize(
    ("data", "stated"),
    [
        ({"source": "huggingface", "root": "someone/pairs"}, ["someone/pairs"]),
        ({"source": "huggingface", "root": "someone/pairs@v1.0"}, ["someone/pairs"]),
        ({"source": "huggingface", "root": "/data/pairs"}, None),
        ({"source": "coco", "root": "someone/COCO"}, None),
    ],
)
def test_a_card_names_data_sets_of_the_hub_alone(data, stated, run, tmp_path):
    weights = open_init(run.folder)
    config = {**weights.config, "data": data}
    path = tmp_path / "run.safetensors"
    save_weights(path, weights.state, config=config, tokenizer=weights.tokenizer, step=30)
    card = (exported(path, "huggingface", tmp_path / "model") / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1]).get("datasets") == stated


def test_folders_are_cut_wherever_a_config_names_them():
    mix = {"/home/me/cc3m": 0.7, "s3://bucket/pairs": 0.3}
    values = {"init": "local-dir:/home/me/backbone", "data": {"mix": mix, "root": None}}
    assert without_folders(values) == {
        "init": "backbone",
        "data": {"mix": {"cc3m": 0.7, "s3://bucket/pairs": 0.3}, "root": None},
    }
    same = {"/home/me/train": 0.7, "/home/you/train": 0.3}
    assert without_folders(same) == {"train (1)": 0.7, "train (2)": 0.3}


def test_a_published_config_does_not_contain_folders_of_the_trainer(run, tmp_path):
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    for name in ("README.md", "config.json", "weights.safetensors"):
        content = (folder / name).read_bytes()
        assert b"someone" not in content
        assert run.folder.encode() not in content


def test_a_broken_result_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "run" / "results").mkdir()
    (tmp_path / "run" / "results" / "half.json").write_text("{")
    with pytest.raises(DataError, match=r"half\.json is not a transfer result"):
        exported(run.folder, "huggingface", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_folder_of_a_bare_backbone_says_what_is_not_known(tmp_path):
    torch.save(torchvision_resnet("resnet18").state_dict(), tmp_path / "init.pth")
    folder = exported(tmp_path / "init.pth", "huggingface", tmp_path / "model")
    card = (folder / "README.md").read_text()
    assert "Not recorded" in card
    assert "None was measured" in card
    assert "virtex transfer" not in card
    assert "import virtex" not in card
    assert not (folder / "weights.safetensors").exists()


def test_the_card_of_a_published_model_states_paper_address_and_data(tmp_path, monkeypatch):
    name = "multilabel_classification_R_50"
    monkeypatch.setenv("VIRTEX_MIRROR", str(tmp_path))
    torch.save(torchvision_resnet("resnet50").state_dict(), tmp_path / f"{name}.pth")
    card = (exported(name, "huggingface", tmp_path / "model") / "README.md").read_text()
    for told in (name, find(name).url, "arXiv:2006.06666", "train2017: images and their object"):
        assert told in card
    assert "VOC07 linear mAP 86.2, ImageNet-1k linear top-1 46.2" in card
    assert "virtex transfer" not in card


def test_existing_files_are_replaced_only_with_overwrite(run, tmp_path):
    out = tmp_path / "out.pth"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"out\.pth exists: .*--overwrite"):
        exported(run.folder, "timm", out)
    assert out.read_text() == "mine"
    exported(run.folder, "timm", out, overwrite=True)
    assert "conv1.weight" in read_torch(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.pth"]


def test_other_files_of_a_folder_stay_when_it_is_overwritten(run, tmp_path):
    (tmp_path / "model" / ".git").mkdir(parents=True)
    (tmp_path / "model" / "README.md").write_text("as it was")
    exported(run.folder, "huggingface", tmp_path / "model", overwrite=True)
    assert "as it was" not in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "model" / ".git").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_overwriting_a_folder_leaves_no_weights_of_another_model(run, tmp_path):
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    torch.save(torchvision_resnet("resnet18").state_dict(), tmp_path / "init.pth")
    exported(tmp_path / "init.pth", "huggingface", folder, overwrite=True)
    assert not (folder / "weights.safetensors").exists()
    assert (folder / "model.safetensors").exists()


def test_a_path_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write .*choose another path"):
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
