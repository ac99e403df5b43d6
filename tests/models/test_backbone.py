import re

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.models.small import SLIM
from virtex import config as configs
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import (
    Backbone,
    BackboneConfig,
    fitted_to,
    imagenet_weights,
    named_normalizations,
    native_size,
    published_normalization,
)

SLIM_CONFIG = BackboneConfig("resnet18", options=SLIM)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnets_weights_have_torchvisions_names(name):
    expected = torchvision.models.get_model(name).state_dict()
    state = Backbone(BackboneConfig(name)).state_dict()
    shapes = {key.removeprefix("cnn."): value.shape for key, value in state.items()}
    assert shapes == {
        key: value.shape for key, value in expected.items() if not key.startswith("fc.")
    }


def test_a_resnet_computes_what_torchvisions_computes():
    theirs = torchvision.models.resnet18().eval()
    backbone = Backbone(BackboneConfig("resnet18")).eval()
    state = {f"cnn.{k}": v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    backbone.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs.fc(backbone.pooled(images)), theirs(images))


def test_residual_blocks_start_as_the_identity():
    backbone = Backbone(BackboneConfig("resnet50"))
    last = [value for name, value in backbone.named_parameters() if name.endswith("bn3.weight")]
    assert len(last) == 16
    assert not any(value.any() for value in last)


@pytest.mark.parametrize(
    ("name", "options", "stride"),
    [
        ("resnet18", SLIM, 32),
        ("resnet18", SLIM | {"output_stride": 16}, 16),
        ("convnext_atto", {}, 32),
        ("swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1]}, 32),
    ],
)
def test_a_grid_has_the_channels_and_stride_that_the_backbone_states(name, options, stride):
    backbone = Backbone(BackboneConfig(name, options=options))
    grid = backbone(torch.randn(2, 3, 224, 224))
    assert backbone.stride == stride
    assert grid.shape == (2, backbone.num_channels, 224 // stride, 224 // stride)


def test_the_layout_of_images_in_memory_does_not_change_the_grid():
    backbone = Backbone(SLIM_CONFIG).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = backbone(images)
    backbone.to(memory_format=torch.channels_last)
    grid = backbone(images.contiguous(memory_format=torch.channels_last))
    assert grid.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grid, expected)


def test_a_frozen_backbone_stays_as_it_was_in_training():
    backbone = Backbone(BackboneConfig("resnet18", frozen=True, options=SLIM)).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.randn(4, 3, 64, 64))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_frozen_norm_layers_stay_as_they_were_and_the_rest_learns():
    backbone = Backbone(BackboneConfig("resnet18", frozen_norm=True, options=SLIM)).eval().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(backbone.parameters(), 0.1, weight_decay=0.1)
    backbone(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    norms = {name for name, part in backbone.named_modules() if isinstance(part, nn.BatchNorm2d)}
    for name, value in backbone.state_dict().items():
        is_norm = name.rpartition(".")[0] in norms
        assert torch.equal(value, before[name]) is is_norm, name


def test_frozen_norm_normalizes_by_the_running_statistics_in_training_too():
    backbone = Backbone(BackboneConfig("regnety_002", frozen_norm=True))
    images = torch.randn(2, 3, 64, 64)
    training = backbone.train()(images)
    torch.testing.assert_close(backbone.eval()(images), training)


def test_frozen_norm_without_batchnorm_is_refused():
    with pytest.raises(ConfigError, match="'convnext_atto' has no BatchNorm"):
        Backbone(BackboneConfig("convnext_atto", frozen_norm=True))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "regnetx_002", "convnext_atto"])
def test_the_last_stage_makes_the_last_grid_of_the_one_before(name):
    backbone = Backbone(BackboneConfig(name)).eval()
    images = torch.randn(1, 3, 96, 64)
    (grid,) = backbone.stages(images, [16])
    assert torch.equal(backbone.last_stage()(grid), backbone(images))
    assert not backbone.training


def test_a_trained_backbone_counts_batches():
    backbone = Backbone(SLIM_CONFIG)
    backbone(torch.randn(4, 3, 64, 64))
    assert backbone.cnn.bn1.num_batches_tracked == 1


def test_an_unknown_backbone_is_refused_with_similar_names():
    with pytest.raises(ConfigError, match=r"'resnet5'.*resnet50"):
        Backbone(BackboneConfig("resnet5"))


TINY_VIT = {"depth": 1, "embed_dim": 24, "num_heads": 2}


def test_a_network_without_a_grid_is_refused():
    options = {"stages": [1, 1, 1, 1], "embed_dim": 12}
    with pytest.raises(ConfigError, match=r"no feature grid.*\(1, 49, 96\)"):
        Backbone(BackboneConfig("hiera_tiny_224", options=options))


def test_a_vits_grid_is_its_tokens_without_the_class_token():
    backbone = Backbone(BackboneConfig("vit_tiny_patch16_224", options=TINY_VIT)).eval()
    images = torch.randn(2, 3, 224, 224)
    tokens = backbone.cnn.forward_features(images)  # (2, 1 + 14 * 14, 24)
    assert (backbone.num_channels, backbone.stride) == (24, 16)
    assert torch.equal(backbone(images).flatten(2), tokens[:, 1:].transpose(1, 2))


def test_a_vits_position_embeddings_are_resized_to_the_image():
    backbone = Backbone(BackboneConfig("vit_tiny_patch16_224", options=TINY_VIT)).eval()
    assert backbone.grid_size(96) == (6, 6)
    flat = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        backbone.cnn.pos_embed[:, 1:] = torch.arange(14.0).repeat_interleave(14)[:, None]
        embedded = backbone.cnn._pos_embed(backbone.cnn.patch_embed(flat))[0, 1:]  # (4 * 4, 24)
    rows = embedded.view(4, 4, 24)
    assert (rows[1:] > rows[:-1]).all()
    torch.testing.assert_close(rows[:, 0], rows[:, 3])


def test_parameters_beside_the_grid_are_not_trained():
    options = {**TINY_VIT, "class_token": False, "global_pool": "map"}
    backbone = Backbone(BackboneConfig("vit_tiny_patch16_224", options=options))
    idle = {name for name, value in backbone.named_parameters() if not value.requires_grad}
    assert idle
    assert all(name.startswith(("cnn.attn_pool.", "cnn.fc_norm.")) for name in idle)


SMALL_OF_ONE_SIZE = {
    "swin_tiny_patch4_window7_224": {"depths": [1] * 4, "embed_dim": 24, "num_heads": [1, 2, 4, 8]},
    "swinv2_cr_tiny_ns_224": {"depths": [1] * 4, "embed_dim": 24, "num_heads": [1, 2, 4, 8]},
    "beit_base_patch16_224": {"depth": 1, "embed_dim": 24, "num_heads": 2},
    "cait_xxs24_224": {"depth": 1, "embed_dim": 24, "num_heads": 2},
    "mixer_s32_224": {},
    "coat_lite_tiny": {"serial_depths": [1] * 4},
    "levit_128s": {"depth": [1] * 3},
    "volo_d1_224": {},
    "coatnet_nano_rw_224": {"depths": [1] * 4},
    "maxvit_rmlp_nano_rw_256": {"depths": [1] * 4},
}
"""Options that make networks small which are built for one image size."""


@pytest.mark.parametrize("name", SMALL_OF_ONE_SIZE)
def test_a_network_of_one_size_is_built_for_the_size_of_the_images(name):
    if name.startswith("coat_") and not hasattr(timm.models.CoaT, "forward_intermediates"):
        pytest.skip("this version of timm gives CoaT no grid")
    config = BackboneConfig(name, options=SMALL_OF_ONE_SIZE[name])
    fitted = fitted_to(config, 96)
    assert fitted == BackboneConfig(name, options={**config.options, "img_size": 96})
    backbone = Backbone(fitted)
    assert backbone.grid_size(96) == (-(-96 // backbone.stride),) * 2
    assert fitted_to(fitted, 96) == fitted
    assert fitted_to(config, backbone.cnn.pretrained_cfg["input_size"][-1]) == config
    with torch.device("meta"):
        assert Backbone(fitted).stride == backbone.stride


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_a_network_that_takes_any_size_stays_as_it_is(name):
    assert fitted_to(BackboneConfig(name), 96) == BackboneConfig(name)


ADVICE = re.compile(r"takes no images of \d+ px \(\w+: .*\)\. Set the image size to (\d+), or")


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("swin_tiny_patch4_window7_224", SMALL_OF_ONE_SIZE["swin_tiny_patch4_window7_224"], 96),
        ("mixer_s32_224", {"img_size": 64}, 96),
        ("eva02_tiny_patch14_224", {"depth": 1}, 96),
        ("efficientformer_l1", {"depths": [1, 1, 1, 1]}, 96),
        ("inception_v3", {}, 64),
        ("vit_tiny_patch16_224", TINY_VIT, 100),
    ],
)
def test_an_image_size_that_a_network_does_not_take_is_refused_with_one_that_it_takes(
    name, options, size
):
    backbone = Backbone(BackboneConfig(name, options=options))
    with pytest.raises(ConfigError, match=ADVICE) as caught:
        backbone.grid_size(size)
    advised = int(ADVICE.search(str(caught.value))[1])
    assert min(backbone.grid_size(advised)) > 1
    assert backbone.training


def test_a_size_that_cannot_be_had_is_refused_before_the_network_is_used():
    with pytest.raises(ConfigError, match=ADVICE):
        fitted_to(BackboneConfig("efficientformer_l1", options={"depths": [1, 1, 1, 1]}), 96)
    with pytest.raises(ConfigError, match="for which it is built"):
        Backbone(BackboneConfig("vit_tiny_patch16_224", options={**TINY_VIT, "img_size": 7}))


def test_position_embeddings_are_resized_once_without_changing_the_grid():
    backbone = Backbone(BackboneConfig("vit_tiny_patch16_224", options=TINY_VIT)).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = backbone(images)
    backbone.fix_size(64)
    assert backbone.cnn.pos_embed.shape[1] == 1 + 4 * 4
    assert torch.equal(backbone(images), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint_path", "other.pth"),
        ("pretrained_cfg", "file"),
        ("pretrained", True),
        ("cache_dir", "folder"),
        ("act_layer", "../folder/file"),
        ("norm_layer", "https://host/x"),
        ("channels", [10**6, 8, 8, 8]),
        ("layers", [1] * 1000),
        ("layers", [1_000_000, 1, 1, 1]),
        ("drop_path_rate", float("nan")),
    ],
)
def test_options_choose_an_architecture_and_neither_files_nor_absurd_sizes(name, value):
    with pytest.raises(ConfigError, match=rf"backbone.options of 'resnet18' .*\n- {name} "):
        Backbone(BackboneConfig("resnet18", options={name: value}))


def test_dropping_tokens_inside_a_network_is_refused_with_what_thins_its_grid():
    with pytest.raises(ConfigError, match=r"patch_drop_rate 0\.5: .* no grid.* task\.grid_share"):
        Backbone(BackboneConfig("vit_tiny_patch16_224", options={"patch_drop_rate": 0.5}))


def test_an_option_that_the_network_does_not_have_is_named():
    with pytest.raises(ConfigError, match=r"output_strid is no .* Did you mean output_stride"):
        Backbone(BackboneConfig("resnet18", options={"output_strid": 16}))


def test_published_weights_without_a_network_are_an_error_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="fetch them on a machine that has a network"):
        Backbone(BackboneConfig("resnet18", pretrained=True))


def test_options_survive_the_way_through_yaml():
    options = {"layers": [1, 1], "output_stride": 16, "drop_path_rate": 0.5, "avg_down": True}
    config = BackboneConfig("resnet18", options=options | {"stem_type": "deep", "aa_layer": None})
    assert configs.from_dict(BackboneConfig, configs.to_dict(config)) == config


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", "resnet18.tv_in1k"),
        ("resnet34", "resnet34.tv_in1k"),
        ("resnet50", "resnet50.tv_in1k"),
        ("resnet101", "resnet101.tv_in1k"),
        ("resnet152", "resnet152.tv_in1k"),
        ("resnext50_32x4d", "resnext50_32x4d.tv_in1k"),
        ("resnext101_32x8d", "resnext101_32x8d.tv_in1k"),
        ("wide_resnet50_2", "wide_resnet50_2.tv_in1k"),
        ("wide_resnet101_2", "wide_resnet101_2.tv_in1k"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("densenet121", "densenet121.ra_in1k"),
        ("convnext_tiny", "convnext_tiny.in12k_ft_in1k"),
        ("vit_tiny_patch16_18", "vit_tiny_patch16_18"),
    ],
)
def test_imagenet_is_torchvisions_first_weights_for_resnets_and_timms_default_for_others(
    name, weights
):
    assert imagenet_weights(name) == weights


@pytest.mark.parametrize(
    "use", [native_size, imagenet_weights, published_normalization, named_normalizations]
)
def test_a_tag_that_timm_does_not_have_is_named(use):
    use("resnet18.tv_in1k")
    with pytest.raises(ConfigError, match=r"no weights 'tv_in1' of resnet18. Did you mean resnet"):
        use("resnet18.tv_in1")


def test_a_network_is_not_fitted_to_a_size_by_weights_that_timm_does_not_have():
    with pytest.raises(ConfigError, match="no weights 'tv_in1' of resnet18"):
        fitted_to(BackboneConfig("resnet18.tv_in1"), 64)
