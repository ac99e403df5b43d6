"""A network that is built for one image size, from pretraining to transfer."""

import json
from pathlib import Path

import pytest

from virtex import config as configs
from virtex.cli import main
from virtex.errors import ConfigError
from virtex.options.command_line import load
from virtex.pretrain import PretrainConfig, check
from virtex.zoo.backbones import load_backbone

SMALL = json.dumps({"depths": [1] * 4, "embed_dim": 24, "num_heads": [1, 2, 4, 8]})
SWIN = f"--backbone.name swin_tiny_patch4_window7_224 --backbone.options|{SMALL}"
PRETRAIN = """--data.source scenes --data.num_images 8 --data.num_val_images 4 --data.image_size 64
    --image.size 64 --tokenizer.vocab_size 60 --task bicaptioning --task.head.hidden_size 64
    --run.batch_size 4 --run.num_steps 1 --run.device cpu --loader.num_workers 0 --num_samples 0"""
VOC07 = """transfer voc07 --data.source scenes --data.num_images 40 --data.num_val_images 20
    --data.image_size 64 --num_workers 0 --batch_size 4 --labels 0.9 --num_seeds 2
    --leave_out_rare"""


def words(*texts: str) -> list[str]:
    """Words of command lines; what follows | is one word."""
    parts = (text.partition("|") for text in texts)
    return [word for head, bar, tail in parts for word in (*head.split(), *([tail] if bar else []))]


def test_a_swin_trains_resumes_and_transfers_at_the_size_of_the_images(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = words("pretrain", PRETRAIN, SWIN, f"--out {run}")
    assert main(command) == 0
    assert load(run / "config.yaml")["backbone"]["options"]["img_size"] == 64
    assert main(command) == 0  # it is complete
    assert main(words(f"pretrain --out {run}")) == 0
    assert load_backbone(run).grid_size(64) == (2, 2)
    transfer = words(VOC07, f"--init {run} --out {tmp_path / 'results'}")
    assert main([*transfer, "--image_size", "96"]) == 2
    assert "takes no images of 96 px" in (error := capfd.readouterr().err)
    assert "Set the image size to 64" in error
    assert main([*transfer, "--image_size", "64"]) == 0


def test_a_random_network_is_built_for_the_size_of_the_protocol(tmp_path: Path) -> None:
    command = words(VOC07, SWIN, f"--init random --image_size 64 --out {tmp_path}")
    assert main(command) == 0


def test_a_size_that_cannot_be_had_is_an_error_before_the_data_are_read(tmp_path: Path) -> None:
    network = "--backbone.name vit_tiny_patch16_224 --image.size 100"
    arguments = words(PRETRAIN, network, f"--out {tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=r"takes no images of 100 px.*Set the image size to 224"):
        check(configs.parse(PretrainConfig, arguments, prog="virtex pretrain"))
