"""Prefix language modelling: what attends to what, the loss, and the networks that can do it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.oracles.prefix_lm import token_losses
from tests.small_run import small_config
from tests.task_options import SMALL_VIT, task_flags
from tests.tasks.padded_batch import padded_captions
from tests.tasks.small_tasks import IMAGE, SCENES, build, scenes_batch, tokenizer, without_gradient
from virtex.data.transforms import normalize
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.grad_checkpointing import kept_bytes
from virtex.models.packing import Packing
from virtex.pretrain import check, pretrain
from virtex.tasks.base import TaskData
from virtex.tasks.prefix_lm import PrefixLm, PrefixLmConfig, prefix_mask, read_prefix_and_text
from virtex.zoo.backbones import load_backbone

WIDTH = {"embed_dim": 32, "depth": 3, "num_heads": 2}
VITS = {
    "class_token": ("vit_tiny_patch16_224", {"img_size": 64}),
    "registers": ("vit_medium_patch16_reg4_gap_256", {"img_size": 64, "init_values": 0.5}),
    "deit3": ("deit3_small_patch16_224", {"img_size": 64, "init_values": 0.5}),
    "distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 64}),
    "norm_before": ("vit_base_patch16_clip_224", {"img_size": 64}),
    "no_class_token": ("vit_base_patch16_siglip_224", {"img_size": 64}),
}
"""Kinds of ViTs: what stands before the patches, and where norms are."""
REFUSED = {
    "convolutional": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}),
    "hierarchical": ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": [1, 1, 1, 1]}),
    "rotary": ("vit_small_patch16_dinov3", WIDTH),
    "relative": ("beit_base_patch16_224", WIDTH),
    "one_block": ("vit_tiny_patch16_224", WIDTH | {"depth": 1}),
    "blocks_of_convolutions": ("efficientnet_lite0", {}),
}


def task_of(**options: float) -> PrefixLm:
    """A task far from where training starts, so that small errors show."""
    task = build(PrefixLmConfig(**options))
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task


def losses(task: PrefixLm, batch: dict[str, Tensor]) -> Tensor:
    """Losses (P,) of packed tokens."""
    packing = Packing(batch["rows"], batch["places"])
    images = normalize(batch["image"]).to(task.output.weight.dtype)
    return task.token_losses(images, batch["inputs"][0], batch["targets"][0], packing)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return scenes_batch(build(PrefixLmConfig()))


def test_losses_and_gradients_are_those_of_the_slow_twin(batch: dict[str, Tensor]) -> None:
    task = task_of().double()
    (tokens, lengths), images = padded_captions(batch), normalize(batch["image"]).double()
    expected = [
        loss
        for image, row, length in zip(images, tokens, lengths.tolist(), strict=True)
        for loss in token_losses(task, image, row[:length].tolist())
    ]
    found, own = losses(task, batch)[: len(expected)], list(task.parameters())
    torch.testing.assert_close(found, torch.stack(expected))
    mean = torch.stack(expected).mean()
    for gradient, other in zip(
        torch.autograd.grad(mean, own), torch.autograd.grad(found.mean(), own), strict=True
    ):
        torch.testing.assert_close(other, gradient)
    torch.testing.assert_close(task.float()(batch).loss, mean.float(), rtol=1e-4, atol=1e-5)


def test_all_see_the_prefix_and_text_sees_text_up_to_itself() -> None:
    assert prefix_mask(2, 3, device=torch.device("cpu")).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("mean", [None, (0.5, 0.5, 0.5)])
@pytest.mark.parametrize("kind", VITS)
def test_an_image_has_the_features_that_it_has_without_text(
    kind: str, mean: tuple[float, float, float] | None
) -> None:
    name, options = VITS[kind]
    torch.manual_seed(0)
    config = BackboneConfig(name, options=WIDTH | options, image_mean=mean, image_std=mean)
    backbone = Backbone(config).eval()
    images, text = torch.randn(2, 3, 64, 64), torch.randn(2, 5, 32)
    prefix, _ = read_prefix_and_text(backbone, images, text)
    other, _ = read_prefix_and_text(backbone, images, 10 * text)
    assert torch.equal(prefix, other)
    grid = backbone(images)
    found = prefix[:, -grid[0, 0].numel() :].mT.view_as(grid)
    torch.testing.assert_close(found, grid, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.mean((2, 3)), backbone.pooled(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", VITS)
def test_text_sees_the_image_and_the_text_before_it(kind: str) -> None:
    name, options = VITS[kind]
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name, options=WIDTH | options)).eval()
    images, text = torch.randn(1, 3, 64, 64), torch.randn(1, 5, 32)
    _, found = read_prefix_and_text(backbone, images, text)
    _, of_other_image = read_prefix_and_text(backbone, -images, text)
    assert not torch.isclose(found, of_other_image).all(-1).any()
    text[:, 2] = torch.randn(32)
    _, changed = read_prefix_and_text(backbone, images, text)
    assert (found == changed).all(-1)[0].tolist() == [True, True, False, False, False]


def test_the_trained_backbone_is_loaded_with_the_features_of_the_prefix(tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = small_config(out, *task_flags("prefix_lm"), "--run.num_steps=1", "--num_samples=0")
    pretrain(config)
    backbone, images = load_backbone(out).eval(), torch.randn(2, 3, 64, 64)
    prefix, _ = read_prefix_and_text(backbone, images, torch.randn(2, 7, 32))
    torch.testing.assert_close(prefix[:, 1:].mean(1), backbone.pooled(images), rtol=0, atol=1e-6)


def test_padding_changes_nothing(batch: dict[str, Tensor]) -> None:
    task = task_of()
    expected, more = losses(task, batch), 8
    size = len(batch["rows"])
    num_tokens = batch["places"].shape[1]
    wider = batch["rows"] // num_tokens * (num_tokens + more) + batch["rows"] % num_tokens
    padded = {
        **batch,
        "rows": pad(wider, (0, more), value=num_tokens),
        "places": pad(
            batch["places"].masked_fill(batch["places"] == size - 1, size + more - 1),
            (0, more),
            value=size + more - 1,
        ),
        "inputs": pad(batch["inputs"], (0, more)),
        "targets": pad(batch["targets"], (0, more)),
    }
    found = losses(task, padded)
    torch.testing.assert_close(found[:size], expected, rtol=1e-5, atol=1e-5)
    assert not found[size:].any()
    torch.testing.assert_close(task(padded).loss, task(batch).loss)


def test_a_captions_losses_do_not_depend_on_its_batch() -> None:
    task = task_of()
    encoded = [task.encode(SCENES[i], np.random.default_rng(i)) for i in range(4)]
    together = losses(task, task.collate(encoded))
    alone = [losses(task, task.collate([item]))[: len(item["tokens"]) - 1] for item in encoded]
    expected = torch.cat(alone)
    torch.testing.assert_close(together[: len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(batch: dict[str, Tensor]) -> None:
    task = build(PrefixLmConfig())
    task(batch).loss.backward()
    assert without_gradient(task) == []


def test_checkpointed_blocks_keep_less_and_give_the_same_gradients(
    batch: dict[str, Tensor],
) -> None:
    found, kept = [], []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        config = BackboneConfig(**SMALL_VIT, grad_checkpointing=grad_checkpointing)
        task = PrefixLmConfig().build(Backbone(config), TaskData(IMAGE, tokenizer()))
        kept.append(kept_bytes(lambda task=task: task(batch)))
        task(batch).loss.backward()
        found.append({name: value.grad for name, value in task.named_parameters()})
    assert kept[1] < kept[0]
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())


@pytest.mark.parametrize("kind", REFUSED)
def test_a_network_that_cannot_read_a_caption_is_refused(kind: str) -> None:
    name, options = REFUSED[kind]
    backbone = Backbone(BackboneConfig(name, options=options))
    with pytest.raises(ConfigError, match=rf"'{name}' cannot read .* a plain ViT of timm"):
        PrefixLmConfig().build(backbone, TaskData(IMAGE, tokenizer()))


def test_it_is_built_on_the_meta_device_where_features_have_no_values() -> None:
    with torch.device("meta"):
        task = build(PrefixLmConfig())
    assert all(value.is_meta for value in task.state_dict().values())
    shapes = {name: value.shape for name, value in build(PrefixLmConfig()).state_dict().items()}
    assert {name: value.shape for name, value in task.state_dict().items()} == shapes


def test_it_is_refused_before_data_are_read(tmp_path: Path) -> None:
    too_many_pieces = ["--tokenizer.vocab_size", "100000"]
    config = small_config(tmp_path / "run", "--task", "prefix_lm", *too_many_pieces)
    for begin in (check, pretrain):
        with pytest.raises(ConfigError, match="'resnet18' cannot read a caption"):
            begin(config)


@pytest.mark.parametrize("options", [{"max_tokens": 2}, {"label_smoothing": 1.0}])
def test_options_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PrefixLmConfig(**options)


def test_training_is_smoothed_and_validation_is_not(batch: dict[str, Tensor]) -> None:
    plain, smoothed = task_of(), task_of(label_smoothing=0.2)
    smoothed.load_state_dict(plain.state_dict())
    assert smoothed(batch).loss != plain(batch).loss
    assert torch.equal(smoothed.eval()(batch).loss, plain.eval()(batch).loss)


def test_it_writes_no_captions() -> None:
    assert not PrefixLmConfig.writes_captions
    assert build(PrefixLmConfig()).writer is None
