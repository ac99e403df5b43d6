"""Others' checkpoints as INIT: timm's names, safetensors, and weights put into a given backbone."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tests.zoo.opened import foreign, open_backbone
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.backbones import architecture_to_train, build_backbone, start_from
from virtex.zoo.init import Opened, open_init

CONVNEXT = BackboneConfig(
    "convnext_atto", options={"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
)
VIT = BackboneConfig("vit_tiny_patch16_224", options={"embed_dim": 24, "depth": 2, "img_size": 64})
RESNET = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})


def timm_network(config):
    """With timm's own classifier, and weights that differ from those of any new one."""
    torch.manual_seed(1)
    return timm.create_model(config.name, num_classes=10, **config.options).eval()


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("config", [CONVNEXT, VIT, RESNET], ids=lambda config: config.name)
@torch.no_grad()
def test_timms_checkpoints_load_into_the_architecture_that_is_named(config, suffix, tmp_path):
    network = timm_network(config)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": network.state_dict(), "epoch": 300}, path)
    else:
        save_file(network.state_dict(), path, {"format": "pt"})
    backbone, initialisation = open_backbone(path, config=config)
    features = network.forward_features(images())
    found = backbone.eval().cnn.forward_features(images())
    torch.testing.assert_close(found, features)
    assert initialisation.backbone == config
    assert (initialisation.step, len(initialisation.sha256)) == (None, 64)


def test_a_timm_resnet_in_safetensors_needs_no_architecture(tmp_path):
    network = timm.create_model("resnet18")
    save_file(network.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    backbone, initialisation = open_backbone(tmp_path / "model.safetensors")
    assert initialisation.backbone == BackboneConfig("resnet18")
    assert torch.equal(backbone.cnn.conv1.weight, network.conv1.weight)


def test_an_architecture_that_a_file_does_not_tell_must_be_named(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(timm_network(CONVNEXT).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"keys are stem.*; expected conv1\.weight"):
        open_backbone(path)
    with pytest.raises(CheckpointError, match=r"keys are stem.*; expected blocks\.0"):
        open_backbone(path, config=VIT)


def saved(tmp_path, config=RESNET):
    network = timm_network(config)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    return network, tmp_path / "model.pth"


def test_a_backbone_starts_from_what_init_names(tmp_path):
    network, path = saved(tmp_path)
    network.bn1.running_mean.fill_(3.0)
    torch.save(network.state_dict(), path)
    backbone = Backbone(RESNET)
    start_from(open_init(path), backbone)
    assert torch.equal(backbone.cnn.conv1.weight, network.conv1.weight)
    assert torch.equal(backbone.cnn.bn1.running_mean, network.bn1.running_mean)


def test_starting_leaves_the_global_generator_and_a_frozen_backbone_as_they_are(tmp_path):
    _, path = saved(tmp_path)
    frozen = BackboneConfig(RESNET.name, frozen=True, options=RESNET.options)
    backbone = Backbone(frozen)
    before = torch.random.get_rng_state()
    start_from(open_init(path), backbone)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_random_leaves_a_backbone_as_it_was_built():
    backbone = Backbone(RESNET)
    before = [parameter.clone() for parameter in backbone.parameters()]
    start_from(open_init("random"), backbone)
    assert all(map(torch.equal, before, backbone.parameters()))


def test_another_network_than_the_one_to_be_filled_is_refused(tmp_path):
    _, path = saved(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        start_from(open_init(path), Backbone(BackboneConfig("resnet34")))


def test_a_moco_checkpoint_gives_its_query_encoder(tmp_path):
    network = timm_network(RESNET)
    own = {f"module.encoder_q.{name}": value for name, value in network.state_dict().items()}
    other = {f"module.encoder_k.{name}": value + 1 for name, value in network.state_dict().items()}
    values = {"state_dict": {**other, **own, "module.queue": nn.Parameter(torch.zeros(4, 8))}}
    torch.save(values, tmp_path / "moco.pth.tar")
    backbone, _ = open_backbone(tmp_path / "moco.pth.tar", config=RESNET)
    assert torch.equal(backbone.cnn.conv1.weight, network.conv1.weight)


def a_run(channels=(8, 16, 24, 32)):
    """A run's weights, as if they had been opened."""
    config = BackboneConfig(RESNET.name, options={**RESNET.options, "channels": [*channels]})
    state = {f"backbone.{name}": value for name, value in Backbone(config).state_dict().items()}
    options = {"backbone": {"name": config.name, "options": config.options}}
    return Opened("run", "run", Path("run/weights.safetensors"), state=state, config=options)


def a_file():
    """Weights of others, whose names and shapes tell the network."""
    return foreign(timm.create_model("resnet18").state_dict())


@pytest.mark.parametrize("opened", [a_run(), a_file()], ids=["run", "file"])
def test_weights_start_a_network_with_a_finer_grid(opened):
    coarse = build_backbone(opened)
    fine = architecture_to_train(
        opened, BackboneConfig("init", options={"output_stride": 8}), image_size=64
    )
    assert fine.options == {**coarse.config.options, "output_stride": 8}
    backbone = Backbone(fine)
    start_from(opened, backbone)
    assert backbone(images()).shape[2:] == (8, 8)
    assert coarse(images()).shape[2:] == (2, 2)
    assert torch.equal(backbone.cnn.conv1.weight, coarse.cnn.conv1.weight)


def test_a_stride_at_which_weights_do_not_fit_is_refused_with_a_remedy():
    fine = {**RESNET.options, "output_stride": 8}
    with pytest.raises(CheckpointError, match=r"downsample.* at output_stride 8: give that of the"):
        build_backbone(a_run([8, 8, 16, 16]), config=BackboneConfig("resnet18", options=fine))
    with pytest.raises(ConfigError, match=r"\(AssertionError\)\. .* output_stride .* leave it out"):
        Backbone(BackboneConfig("resnet18", options={**RESNET.options, "output_stride": 7}))


def test_other_options_of_the_network_of_weights_are_refused():
    options = {"output_stride": 8, "act_layer": "silu"}
    with pytest.raises(ConfigError, match=r"backbone\.options act_layer belong to a network that"):
        architecture_to_train(a_run(), BackboneConfig("init", options=options), image_size=64)


def lite0(path):
    """A file of bare weights in timm's names, which state no normalization."""
    torch.manual_seed(0)
    save_file(timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict(), path)
    return open_init(path)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"])
def test_bare_weights_have_the_normalization_of_timms_weights_of_their_name(name, tmp_path):
    opened, half = lite0(tmp_path / "model.safetensors"), (0.5, 0.5, 0.5)
    config = BackboneConfig(name)
    assert build_backbone(opened, config=config).config.image_mean == half
    trained = architecture_to_train(opened, config, image_size=64)
    assert (trained.image_mean, trained.image_std) == (half, half)
    own = BackboneConfig(name, image_mean=(0.4, 0.4, 0.4), image_std=(0.2, 0.2, 0.2))
    assert build_backbone(opened, config=own).config == own


def test_a_name_of_weights_of_several_normalizations_is_told_and_not_guessed(tmp_path, caplog):
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "model.pth")
    opened = open_init(tmp_path / "model.pth")
    assert build_backbone(opened, config=BackboneConfig("resnet34")).config.image_mean is None
    assert "weights resnet34 were trained on images of 2 normalizations" in caplog.text
    caplog.clear()
    for config in (None, BackboneConfig("resnet34.tv_in1k")):
        assert build_backbone(opened, config=config).config.image_mean is None
    assert "normalizations" not in caplog.text


def test_weights_of_another_size_than_timms_have_no_normalization_of_theirs(tmp_path):
    torch.save(timm_network(VIT).state_dict(), tmp_path / "model.pth")
    assert build_backbone(open_init(tmp_path / "model.pth"), config=VIT).config.image_mean is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value, tmp_path):
    network = timm.create_model("resnet18")
    with torch.no_grad():
        network.layer1[0].conv1.weight[0, 0] = value
    torch.save(network.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"infinite or NaN: layer1\.0\.conv1\.weight\."):
        open_backbone(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("mean", "std"), [((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)), ((-0.1, 0, 0), (0, 1, 1))]
)
def test_a_normalization_of_pixels_to_255_is_refused(mean, std):
    with pytest.raises(ConfigError, match=r"image_mean .* from 0 to 1.*\n- image_std"):
        BackboneConfig(image_mean=mean, image_std=std)
