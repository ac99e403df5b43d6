"""The network that sees nothing: one grid for all images, and a loss that no image changes."""

from pathlib import Path

import pytest
import torch

from tests.small_run import small_config
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain

BLIND = ("--backbone.name", "blind", "--run.num_steps", "3")


def test_every_image_has_the_same_single_cell() -> None:
    backbone = Backbone(BackboneConfig("blind")).eval()
    grid = backbone(torch.randn(3, 3, 96, 64))
    assert grid.shape == (3, 2048, 1, 1)
    assert torch.equal(grid, torch.ones_like(grid))
    assert (backbone.num_channels, backbone.grid_size(224)) == (2048, (1, 1))


def test_a_captioner_trained_blind_finds_a_text_as_likely_for_any_image(tmp_path: Path) -> None:
    pretrain(small_config(tmp_path / "run", *BLIND))
    captioner = load_captioner(tmp_path / "run")
    noise = torch.randint(0, 255, (2, 40, 56, 3), dtype=torch.uint8).numpy()
    first, second = captioner.score(list(noise), ["a red circle"] * 2)
    assert first == second
    start = captioner.captioner.backbone.cnn.constant
    assert not torch.equal(start, torch.ones_like(start))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BackboneConfig("blind", options={"layers": [1]}), "leave backbone.options and"),
        (BackboneConfig("blind", pretrained=True), "no published weights"),
        (BackboneConfig("blind", frozen_norm=True), "BatchNorm"),
        (BackboneConfig("blind", freeze_stages=1), "no groups of layers"),
        (BackboneConfig("blind", drop_path=0.1), "backbone.drop_path out"),
    ],
)
def test_what_a_blind_backbone_does_not_have_is_refused(
    config: BackboneConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Backbone(config)
