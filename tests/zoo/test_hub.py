"""Folders in timm's layout, here and on the hub, as INIT and as the name of an architecture."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch

from tests.demo.small_run import write_run
from tests.zoo.opened import open_backbone
from tests.zoo.timm_folder import RESNET, written
from virtex.cli import main
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.predict.loading import load_captioner
from virtex.zoo.backbones import load_backbone, whole_architecture
from virtex.zoo.init import open_init

CONVNEXT = BackboneConfig("convnext_atto", options={"depths": [1] * 4, "dims": [8, 8, 16, 16]})
SWIN = BackboneConfig(
    "swin_tiny_patch4_window7_224",
    options={"depths": [1] * 4, "embed_dim": 24, "num_heads": [1, 2, 4, 8], "img_size": 64},
)
VIT = BackboneConfig("vit_tiny_patch16_224", options={"depth": 1, "embed_dim": 24, "num_heads": 2})
FIXED = {"fixed_input_size": True}


def grid(backbone: Backbone) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.eval()(images)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The folder that our export makes of a run."""
    run = write_run(tmp_path / "run")
    command = f"export {run} --format huggingface --out {tmp_path / 'folder'}"
    assert main(command.split()) == 0
    return tmp_path / "folder"


def test_our_own_folder_is_the_whole_run_again(exported: Path, tmp_path: Path) -> None:
    name = f"local-dir:{exported}"
    run, opened = open_init(tmp_path / "run"), open_init(name)
    assert (opened.kind, opened.step, opened.tokenizer) == ("run", run.step, run.tokenizer)
    assert torch.equal(grid(load_backbone(name)), grid(load_backbone(tmp_path / "run")))
    load_captioner(name)


@pytest.mark.parametrize("config", [RESNET, CONVNEXT, SWIN, VIT], ids=lambda c: c.name)
def test_a_backbone_alone_goes_through_our_folder_and_timm(
    config: BackboneConfig, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = timm.create_model(config.name, num_classes=7, **config.options)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    options = json.dumps(config.options)
    command = f"export {tmp_path / 'model.pth'} --format huggingface --out {tmp_path / 'folder'}"
    arguments = [*command.split(), "--backbone.name", config.name, "--backbone.options", options]
    assert main(arguments) == 0
    backbone, initialisation = open_backbone(f"local-dir:{tmp_path / 'folder'}")
    assert torch.equal(
        grid(backbone), grid(open_backbone(tmp_path / "model.pth", config=config)[0])
    )
    assert initialisation.backbone.name == config.name
    version = tuple(int(part) for part in timm.__version__.split(".")[:3])
    if config == SWIN and version < (1, 0, 31):
        pytest.skip("this version of timm takes a Swin without classifier for an older file")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = backbone.cnn.forward_features(images)
        torch.testing.assert_close(theirs.forward_features(images), features)


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
@pytest.mark.parametrize("is_safe", [True, False])
def test_a_folder_that_timm_wrote_is_an_init(prefix: str, is_safe: bool, tmp_path: Path) -> None:
    network = written(tmp_path, CONVNEXT, safe_serialization=is_safe)
    backbone, initialisation = open_backbone(f"{prefix}{tmp_path}")
    assert torch.equal(backbone.cnn.stem[0].weight, network.stem[0].weight)
    assert initialisation.backbone.name == "convnext_atto"
    assert CONVNEXT.options.items() <= initialisation.backbone.options.items()
    with pytest.raises(CheckpointError, match=r"holds a convnext_atto .*but resnet18"):
        open_backbone(f"{prefix}{tmp_path}", config=RESNET)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_of_a_folder_is_what_the_folder_is(name: str, tmp_path: Path) -> None:
    config = BackboneConfig("resnetblur18", options=RESNET.options)  # resnet18's names and shapes
    written(tmp_path, config, safe_serialization=name.endswith(".safetensors"))
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    path.write_text(json.dumps(values))
    whole, file = (load_backbone(str(init)) for init in (tmp_path, tmp_path / name))
    assert whole.config == file.config
    assert (file.config.name, file.config.image_mean) == ("resnetblur18", (0.5, 0.5, 0.5))
    assert torch.equal(grid(whole), grid(file))
    path.write_text('{"model_type": "of another library"}')
    named = BackboneConfig("resnetblur18", options=RESNET.options)
    assert load_backbone(str(tmp_path / name), config=named).config.name == "resnetblur18"
    with pytest.raises(CheckpointError, match="states no architecture"):
        load_backbone(str(tmp_path))


def test_the_image_size_that_timm_states_is_kept(tmp_path: Path) -> None:
    config = BackboneConfig(VIT.name, options={**VIT.options, "img_size": 64})
    written(tmp_path, config)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["model_args"]["img_size"]
    values["pretrained_cfg"]["input_size"] = [3, 64, 64]
    path.write_text(json.dumps(values))
    assert open_init(f"local-dir:{tmp_path}").backbone.options["img_size"] == 64
    assert load_backbone(f"local-dir:{tmp_path}").cnn.pos_embed.shape[1] == 1 + 4 * 4


def test_a_folder_names_an_architecture(exported: Path) -> None:
    named = BackboneConfig(f"local-dir:{exported}", frozen=True, options={"drop_rate": 0.1})
    config = whole_architecture(named, image_size=64)
    options = {**RESNET.options, "drop_rate": 0.1}
    assert config == BackboneConfig("resnet18", frozen=True, options=options)
    assert load_backbone("random", config=named).config == config
    with pytest.raises(ConfigError, match="gives an architecture, no weights"):
        load_backbone("random", config=BackboneConfig(named.name, pretrained=True))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_backbone(f"local-dir:{tmp_path / 'absent'}")
    with pytest.raises(CheckpointError, match=r"neither weights.safetensors .* nor config.json"):
        load_backbone(f"local-dir:{tmp_path}")
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json: No such file"):
        whole_architecture(BackboneConfig(f"local-dir:{tmp_path}"), image_size=64)


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {"architecture": 3},
        {"architecture": "local-dir:."},
        {"architecture": "hf-hub:other/name"},
        {"architecture": "../resnet18"},
        {"architecture": "resnet18", "model_args": {"checkpoint_path": "other.pth"}},
        {"architecture": "resnet18", "model_args": {"channels": [10**9] * 4}},
        {"architecture": "resnet18", "model_args": [1]},
        {"architecture": "resnet18", "pretrained_cfg": FIXED},
        {"architecture": "resnet18", "pretrained_cfg": {**FIXED, "input_size": []}},
        {"architecture": "resnet18.no_tag", "pretrained_cfg": FIXED},
        {
            "architecture": "resnet18",
            "pretrained_cfg": {"file": "other.pth"},
            "model_args": {"x": 1},
        },
    ],
)
def test_a_config_beside_weights_opens_nothing(values: Any, tmp_path: Path) -> None:
    written(tmp_path, RESNET)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError):
        load_backbone(f"local-dir:{tmp_path}")


def test_a_deep_config_is_refused(tmp_path: Path) -> None:
    written(tmp_path, RESNET)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="states no architecture"):
        load_backbone(f"local-dir:{tmp_path}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cached(cache: Path, repository: str) -> Path:
    """The folder of a repository's main revision in the cache."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    revision = "0123456789" * 4
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    return folder / "snapshots" / revision


def test_a_repository_in_the_cache_is_an_init_without_a_network(cache: Path) -> None:
    network = written(cached(cache, "someone/small"), RESNET)
    assert torch.equal(load_backbone("hf-hub:someone/small").cnn.conv1.weight, network.conv1.weight)
    config = whole_architecture(BackboneConfig("hf-hub:someone/small"), image_size=64)
    assert (config.name, config.options["channels"]) == (RESNET.name, RESNET.options["channels"])


def test_our_repository_in_the_cache_is_the_whole_run(cache: Path, exported: Path) -> None:
    snapshot = cached(cache, "someone/captioner")
    snapshot.parent.mkdir()
    exported.rename(snapshot)
    load_captioner("hf-hub:someone/captioner")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["hf-hub:someone/absent", "hf-hub:someone/absent@v1"])
def test_without_a_network_a_repository_that_is_not_cached_is_named(name: str) -> None:
    told = rf"cannot get {name} from .*OFFLINE.*local-dir:FOLDER"
    with pytest.raises(CheckpointError, match=told):
        load_backbone(name)
    with pytest.raises(CheckpointError, match=told):
        load_backbone("random", config=BackboneConfig(name))
