"""Every released kind: what a file gives is what the released model computes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from tests.oracles.decoding import slow_beam_search
from tests.oracles.released import CLASSIFICATION, ReleasedModel
from tests.real_data import real
from tests.tasks.padded_batch import padded_captions, padded_hidden
from tests.tasks.small_tasks import IMAGE, SCENES, tokenizer
from tests.zoo.opened import foreign, open_backbone
from virtex.data.transforms import normalize
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.decoding import DecodingConfig
from virtex.models.k_hot import NO_TARGET
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tokens import EOS_ID
from virtex.zoo.foreign import unwrap
from virtex.zoo.init import open_init
from virtex.zoo.released import (
    load_released,
    load_released_classifier,
    released_kind,
    to_released,
)

PATH = Path("released.pth")
WRITERS = ["bicaptioning", "captioning"]
KINDS = [*WRITERS, "masked_lm", *CLASSIFICATION]


def head(norm="post"):
    return HeadConfig(64, num_layers=2, feedforward_size=96, norm=norm, dropout=0.0, max_tokens=24)


def released_model(kind, norm="post"):
    vocab_size = tokenizer().vocab_size
    if kind == "multilabel_classification":
        vocab_size = 1 + len(SCENES.categories)
    model = ReleasedModel(kind, head=head(norm), vocab_size=vocab_size, cnn="resnet18")
    return model.scramble()


def task_of(kind, norm="post"):
    config = {
        "bicaptioning": CaptioningConfig(head(norm)),
        "captioning": CaptioningConfig(head(norm), bidirectional=False),
        "masked_lm": MaskedLmConfig(head(norm)),
        "token_classification": TokenClassificationConfig(max_tokens=24),
        "multilabel_classification": LabelClassificationConfig(original=True),
    }[kind]
    data = TaskData(IMAGE, tokenizer(), SCENES.categories, len(SCENES))
    return config.build(Backbone(BackboneConfig("resnet18")), data).eval()


def filled_task(released, norm="post"):
    """Our task with what our loader makes of the released model's file."""
    task = task_of(released.kind, norm)
    state = unwrap({"model": released.state_dict(), "iteration": 500_000}, PATH)
    if released.kind in CLASSIFICATION:
        task.load_state_dict(load_released_classifier(foreign(state)).state_dict())
    else:
        task.captioner.load_state_dict(load_released(foreign(state)).state_dict())
    return task


def batch_of(task):
    return task.collate([task.encode(SCENES[i], np.random.default_rng(i)) for i in range(4)])


def own_targets(batch):
    return [[c for c in row if c != NO_TARGET] for row in batch["targets"].tolist()]


def released_loss(released, batch):
    images = normalize(batch["image"])
    if released.kind in CLASSIFICATION:
        return released.class_loss(images, own_targets(batch))
    if released.kind == "masked_lm":
        return released.mask_loss(images, *padded_hidden(batch))
    return released.caption_loss(images, *padded_captions(batch))


@pytest.mark.parametrize("kind", ["bicaptioning", "bicaptioning_prenorm", *KINDS[1:]])
def test_the_slow_model_has_the_released_names_and_shapes_of_each_kind(kind):
    path = real(f"reference/keys_{kind}.json")
    config = HeadConfig(norm="pre" if kind.endswith("prenorm") else "post")
    vocab_size = 81 if kind == "multilabel_classification" else 10_000
    kind = kind.removesuffix("_prenorm")
    with torch.device("meta"):
        model = ReleasedModel(kind, head=config, vocab_size=vocab_size, cnn="resnet50")
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("kind", "norm"), [*((kind, "post") for kind in KINDS), ("bicaptioning", "pre")]
)
@torch.no_grad()
def test_a_released_file_gives_the_released_models_loss(kind, norm):
    released = released_model(kind, norm)
    task = filled_task(released, norm)
    batch = batch_of(task)
    loss = task(batch).loss.item()
    assert loss == pytest.approx(released_loss(released, batch).item(), abs=1e-4)
    assert loss > 0.5


@pytest.mark.parametrize("kind", CLASSIFICATION)
@torch.no_grad()
def test_a_released_classifier_gives_the_released_logits(kind):
    released = released_model(kind)
    images = torch.randn(2, 3, 64, 64)
    found = load_released_classifier(foreign(released.state_dict())).logits(images)
    torch.testing.assert_close(found, released.class_logits(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "norm"), [("captioning", "post"), ("bicaptioning", "pre")])
@torch.no_grad()
def test_the_released_search_finds_the_released_models_captions(kind, norm):
    released = released_model(kind, norm)
    released.textual.output.bias[EOS_ID] += 1
    captioner = load_released(foreign(released.state_dict()))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    found = captioner.generate(images, DecodingConfig(original=True, max_steps=8)).best()
    for image, tokens, length in zip(images, found.tokens, found.lengths, strict=True):
        grid = released.grid(image[None])
        beams = slow_beam_search(
            lambda prefix, grid=grid: released.next_token(grid, prefix),
            num_beams=5, per_node_beams=2, max_steps=8, original=True,
        )  # fmt: skip
        assert tokens[:length].tolist() == beams[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tasks_state_in_the_released_layout_is_the_file_that_it_came_from(kind):
    released = released_model(kind)
    back = to_released(filled_task(released).state_dict())
    expected = released.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["bicaptioning", "token_classification"])
def test_old_files_load_as_new_ones_do(kind, tmp_path):
    state = released_model(kind).state_dict()
    old = {
        f"module.{name}": value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": state}, tmp_path / "new.pth")
    load = load_released_classifier if kind in CLASSIFICATION else load_released
    models = [load(open_init(tmp_path / f"{age}.pth")) for age in ("old", "new")]
    vectors = [parameters_to_vector(model.parameters()) for model in models]
    assert torch.equal(*vectors)
    backbones = [open_backbone(tmp_path / f"{age}.pth")[0] for age in ("old", "new")]
    assert torch.equal(*(parameters_to_vector(b.parameters()) for b in backbones))


def test_the_order_of_names_does_not_matter():
    released = released_model("bicaptioning")
    state = filled_task(released).state_dict()
    expected = released.state_dict()
    for names in (sorted(state), sorted(state, reverse=True)):
        back = to_released({name: state[name] for name in names})
        assert all(torch.equal(back[name], value) for name, value in expected.items())


def test_a_backbone_alone_is_written_as_it_was_published():
    backbone = Backbone(BackboneConfig("resnet18"))
    released = to_released(backbone.state_dict())
    expected = backbone.cnn.state_dict()
    assert released.keys() == expected.keys()
    assert all(torch.equal(released[name], value) for name, value in expected.items())


def test_what_the_released_layout_cannot_hold_is_refused_by_name():
    task = task_of("token_classification")
    state = {**task.state_dict(), "frequencies.counts": torch.zeros(3)}
    with pytest.raises(
        CheckpointError, match=r"frequencies\.counts have no equivalent in the released"
    ):
        to_released(state)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_follows_from_the_names(kind):
    names = {"masked_lm": "captioning", **dict.fromkeys(CLASSIFICATION, "classification")}
    assert released_kind(released_model(kind).state_dict(), PATH) == names.get(kind, kind)


def test_wrong_files_are_refused_with_what_was_found_and_expected():
    classifier = released_model("token_classification").state_dict()
    captioner = released_model("captioning").state_dict()
    cnn = {n: v for n, v in captioner.items() if n.startswith("visual.cnn.")}
    with pytest.raises(CheckpointError, match="but a classification model"):
        load_released(foreign(classifier))
    with pytest.raises(CheckpointError, match="but a backbone model"):
        load_released(foreign(cnn))
    with pytest.raises(CheckpointError, match=r"\(captioning\); expected .*textual\.output\.bias"):
        load_released_classifier(foreign(captioner))
    with pytest.raises(CheckpointError, match=r"found a, b; expected visual\.cnn"):
        load_released(foreign({"a": torch.zeros(1), "b": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="found task, step; expected tensors"):
        unwrap({"task": {}, "step": 3}, PATH)
    both = captioner | {"backward_textual.output.bias": torch.zeros(150)}
    with pytest.raises(CheckpointError, match=r"missing: backward_textual"):
        load_released(foreign(both))
    lacking = {n: v for n, v in classifier.items() if n != "textual.output.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing: textual\.output\.bias$"):
        load_released_classifier(foreign(lacking))
