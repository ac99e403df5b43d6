"""Runs that go on from weights: the network comes from them, and so do the recipes' options."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from tests.drawn_images import write_classes
from tests.engine.test_resume import assert_identical
from tests.oracles import efficientnet_lite
from tests.small_run import small_config
from virtex.engine.checkpoint import load
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError
from virtex.models import backbone as backbone_module
from virtex.models.backbone import Backbone
from virtex.pretrain import PretrainConfig, check, parse_pretrain, pretrain
from virtex.zoo.init import open_init

SIZES = """
data: {source: scenes, num_images: 24, num_val_images: 8, image_size: 64}
tokenizer: {vocab_size: 200}
image: {size: 64}
run: {batch_size: 8, num_steps: 4, checkpoint_every: 2, precision: fp32, tensorboard: false}
early_stopping: {image_size: 32, num_workers: 0, first_step: 2}
loader: {num_workers: 0}
num_samples: 0
"""
RECIPES = {
    "adapt_captions": {"head": "{hidden_size: 64}"},
    "adapt_clip": {"text": "{hidden_size: 64, num_layers: 1}"},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    pretrain(small_config(out, "--num_samples=0", "--run.num_steps=1"))
    return out / "weights.safetensors"


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("probe") / "classes"
    write_classes(root)
    return root


def adapted(name: str, out: Path, *arguments: object) -> PretrainConfig:
    sizes = "".join(f"task: {{{key}: {value}}}\n" for key, value in RECIPES[name].items())
    words = ["--config", name, "--config", SIZES + sizes, "--out", str(out)]
    return parse_pretrain([*words, *map(str, arguments)])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_adapts_the_network_of_the_weights(
    name: str, weights: Path, probe: Path, tmp_path: Path
) -> None:
    given = "--init", weights, "--early_stopping.data.root", probe
    result = pretrain(adapted(name, tmp_path / "run", *given))
    assert (result.step, result.reason) == (4, "finished")
    first, last = open_init(weights), open_init(tmp_path / "run" / "weights_ema.safetensors")
    assert last.backbone == first.backbone
    assert len(list((tmp_path / "run" / "results").glob("linear*-step_*.json"))) == 2
    again = pretrain(adapted(name, tmp_path / "run", *given))  # the same command resumes it
    assert again.step == 4
    assert pretrain(parse_pretrain(["--out", str(tmp_path / "run")])).step == 4


def test_a_run_keeps_the_normalization_of_its_weights(tmp_path: Path) -> None:
    torch.save(efficientnet_lite.random_state(0), tmp_path / "lite0.pth")
    options = small_config(
        tmp_path / "run", "--init", str(tmp_path / "lite0.pth"), "--backbone.name=init",
        "--run.num_steps=1", "--run.batch_size=4", "--num_samples=0", "--image.size=32",
    )  # fmt: skip
    pretrain(options)
    backbone = open_init(tmp_path / "run").backbone
    assert (backbone.name, backbone.image_mean) == ("tf_efficientnet_lite0", (0.5, 0.5, 0.5))
    with torch.device("meta"):
        assert Backbone(backbone).num_channels == 1280
    named = tmp_path / "named"
    pretrain(
        small_config(
            named, "--init", str(tmp_path / "lite0.pth"), "--backbone.name=tf_efficientnet_lite0",
            "--run.num_steps=1", "--run.batch_size=4", "--num_samples=0", "--image.size=32",
        )
    )  # fmt: skip
    assert open_init(named).backbone == backbone


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "init random states no network: name weights by --init"),
        ("--init imagenet", "init imagenet states no network"),
        ("--init WEIGHTS --backbone.options.layers [1]", "layers belong to a network that"),
    ],
)
def test_weights_that_state_no_network_are_refused_before_any_work(
    flags: str, message: str, weights: Path, probe: Path, tmp_path: Path
) -> None:
    words = flags.replace("WEIGHTS", str(weights)).split()
    given = ["--early_stopping.data.root", probe]
    config = adapted("adapt_captions", tmp_path / "run", *given, *words)
    with pytest.raises(ConfigError, match=message):
        check(config)


def test_a_check_of_a_named_network_opens_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("virtex.pretrain.open_init", opened.append)
    check(small_config(tmp_path / "run", "--init", str(tmp_path / "weights.pth")))
    assert opened == []


def test_a_recipe_without_classes_says_how_to_name_them(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder by --early_stopping\.data\.root DIR"):
        adapted("adapt_captions", tmp_path / "run", "--init", weights)
    flags = ["--early_stopping.protocol=none"]
    flags += [f"--early_stopping.{name}=0" for name in ("patience", "first_step")]
    check(adapted("adapt_captions", tmp_path / "run", "--init", weights, *flags))


def test_a_begun_run_needs_its_published_weights_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(name: str, options: dict[str, Any]) -> Any:
        fetched.append(name)
        return timm.create_model(name, pretrained=False, num_classes=0, **options)

    monkeypatch.setattr(backbone_module, "_with_published_weights", fetch)
    run = RunFolder(tmp_path / "run")
    named = ("--backbone.name", "resnet18.tv_in1k", "--backbone.pretrained", "--run.num_steps=4")
    pretrain(small_config(run.path, *named, "--num_samples", "0"))
    whole = load(run.checkpoints.at(4))
    run.checkpoints.at(4).unlink()
    assert fetched == ["resnet18.tv_in1k"]
    pretrain(parse_pretrain(["--out", str(run.path)]))
    assert fetched == ["resnet18.tv_in1k"]
    assert_identical(load(run.checkpoints.at(4)), whole)
