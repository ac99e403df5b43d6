import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.oracles import classification as slow
from tests.tasks.small_tasks import (
    SCENES,
    build,
    scenes_batch,
    tokenizer,
    training_pass,
    without_gradient,
)
from virtex.data.source_options import Needs
from virtex.data.transforms import normalize
from virtex.errors import ConfigError
from virtex.models.k_hot import NO_TARGET
from virtex.tasks.base import Task, TaskConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig

CONFIGS = [
    TokenClassificationConfig(),
    TokenClassificationConfig(loss="bce"),
    TokenClassificationConfig(idf=True),
    LabelClassificationConfig(),
    LabelClassificationConfig(loss="bce", original=True),
]


def targets_of(task: Task, example=SCENES[0], *, seed=0) -> list[int]:
    return task.encode(example, np.random.default_rng(seed))["targets"].tolist()


def as_lists(targets: torch.Tensor) -> list[list[int]]:
    return [[c for c in row if c != NO_TARGET] for row in targets.tolist()]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_loss_of_a_batch_is_that_of_its_slow_twin(config: TaskConfig):
    task = build(config)
    task.backbone.eval()
    batch = scenes_batch(task)
    (output,) = training_pass(task, batch)
    logits = task.logits(normalize(batch["image"])).tolist()
    targets = as_lists(batch["targets"])
    if config.loss == "bce":
        expected = slow.bce_loss(logits, targets)
    else:
        weights = slow.idf_weights(targets, len(logits[0])) if config.idf else None
        expected = slow.softmax_loss(logits, targets, weights)
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)
    assert output.logs["classification"].item() == output.loss.item()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_parameter_learns_even_where_no_example_has_a_target(config: TaskConfig):
    task = build(config)
    batch = {**scenes_batch(task), "targets": torch.empty(4, 0, dtype=torch.int64)}
    (output,) = training_pass(task, batch)
    output.loss.backward()
    assert without_gradient(task) == []
    assert output.loss.isfinite()
    assert output.logs["top1"] == 0


def test_token_targets_are_the_captions_different_known_tokens():
    task = build(TokenClassificationConfig())
    caption = "a dog, a dog ☃ on the left"
    known = set(tokenizer().encode(caption)) - {0}
    example = replace(SCENES[0], captions=(caption,))
    generator = np.random.default_rng(0)
    targets = task.encode_validation(example, generator)["targets"].tolist()
    assert 0 in tokenizer().encode(caption)
    assert targets == sorted(known)
    assert min(targets) >= 4


@pytest.mark.parametrize(("original", "num_kept"), [(False, 4), (True, 5)])
def test_long_captions_are_cut_and_the_released_code_kept_one_token_more(original, num_kept):
    task = build(TokenClassificationConfig(max_tokens=6, original=original))
    caption = "a dog on the left and a dog on the right"
    example = replace(SCENES[0], captions=(caption,))
    targets = task.encode_validation(example, np.random.default_rng(0))["targets"].tolist()
    assert targets == sorted(set(tokenizer().encode(caption)[:num_kept]))


def test_a_flip_swaps_left_and_right_among_the_targets():
    task = build(TokenClassificationConfig())
    left, right = ("a dog on the left", "a dog on the right")
    example = replace(SCENES[0], captions=(left,))
    seen = {tuple(targets_of(task, example, seed=seed)) for seed in range(20)}
    assert seen == {tuple(sorted(set(tokenizer().encode(side)))) for side in (left, right)}


def test_each_caption_of_an_image_is_drawn():
    task = build(TokenClassificationConfig())
    seen = {tuple(targets_of(task, seed=seed)) for seed in range(60)}
    first = [
        task.encode_validation(replace(SCENES[0], captions=(caption,)), np.random.default_rng())
        for caption in SCENES[0].captions
    ]
    assert {tuple(encoded["targets"].tolist()) for encoded in first} <= seen


@pytest.mark.parametrize(("original", "rows"), [(False, [2, 5]), (True, [3, 6])])
def test_label_targets_are_rows_of_the_output_and_the_released_row_0_stays_unused(original, rows):
    task = build(LabelClassificationConfig(original=original))
    example = replace(SCENES[0], labels=(5, 2, 5))
    encoded = task.encode_validation(example, np.random.default_rng(0))
    assert targets_of(task, example) == encoded["targets"].tolist() == rows
    assert task.output.out_features == len(SCENES.categories) + original


def test_labels_need_no_caption():
    task = build(LabelClassificationConfig())
    assert LabelClassificationConfig().needs == Needs(labels=True)
    assert targets_of(task, replace(SCENES[0], captions=())) == list(SCENES[0].labels)


def test_an_image_without_labels_is_encoded_and_padded():
    task = build(LabelClassificationConfig())
    examples = [replace(SCENES[0], labels=labels) for labels in ((), (1, 2))]
    batch = task.collate([task.encode(e, np.random.default_rng(0)) for e in examples])
    assert batch["targets"].tolist() == [8 * [NO_TARGET], [1, 2, *6 * [NO_TARGET]]]
    assert batch["image"].shape == (2, 3, 32, 32)


def test_top1_asks_whether_the_best_score_is_one_of_the_true_classes():
    task = build(LabelClassificationConfig())
    batch = scenes_batch(task)
    with torch.no_grad():
        task.output.weight.zero_()
        task.output.bias.copy_(torch.arange(len(task.output.bias)) == 3)
    batch["targets"] = torch.tensor([[1, 3], [3, NO_TARGET], [2, 4], [NO_TARGET, NO_TARGET]])
    assert task(batch).logs["top1"] == 0.5


def test_with_bce_about_one_class_is_expected_at_the_start():
    task = build(TokenClassificationConfig(loss="bce"))
    with torch.no_grad():
        task.output.weight.zero_()
    logits = task.logits(torch.zeros(2, 3, 32, 32))
    assert logits.sigmoid().sum(1).tolist() == pytest.approx([1, 1], rel=0.01)


def test_validation_leaves_the_document_frequencies_alone_and_uses_them():
    task = build(TokenClassificationConfig(idf=True))
    training_pass(task, scenes_batch(task))
    counts = task.frequencies.counts.clone()
    task.eval()
    other = scenes_batch(task, range(4, 8))
    loss = task(other).loss.item()
    assert torch.equal(task.frequencies.counts, counts)
    assert task.frequencies.num_examples == 4
    logits = task.logits(normalize(other["image"])).tolist()
    weights = task.frequencies.weights().tolist()
    expected = slow.softmax_loss(logits, as_lists(other["targets"]), weights)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_document_frequencies_are_part_of_the_state():
    first, second = (build(TokenClassificationConfig(idf=True)) for _ in range(2))
    training_pass(first, scenes_batch(first))
    second.load_state_dict(first.state_dict())
    batch = scenes_batch(first, range(4, 8))
    losses = [training_pass(task, batch)[0].loss for task in (first, second)]
    assert torch.equal(*losses)
    assert torch.equal(first.frequencies.counts, second.frequencies.counts)


def test_parameters_have_the_released_names():
    state = build(LabelClassificationConfig(original=True)).state_dict()
    head = {k: tuple(v.shape) for k, v in state.items() if not k.startswith("backbone.")}
    rows = len(SCENES.categories) + 1
    assert head == {"output.weight": (rows, 16), "output.bias": (rows,)}


@pytest.mark.parametrize("config", [TokenClassificationConfig(), LabelClassificationConfig()])
def test_encodings_are_picklable(config: TaskConfig):
    task = build(config)
    encode = pickle.loads(pickle.dumps(task.encode))
    again = encode(SCENES[1], np.random.default_rng(3))
    here = task.encode(SCENES[1], np.random.default_rng(3))
    assert all(torch.equal(again[name], here[name]) for name in here)


def test_options_that_cannot_work_are_refused_together():
    with pytest.raises(ConfigError, match=r"(?s)'hinge'.*max_tokens 2"):
        TokenClassificationConfig(loss="hinge", max_tokens=2)
    with pytest.raises(ConfigError, match="idf weighs the targets of a softmax"):
        LabelClassificationConfig(loss="bce", idf=True)
    with pytest.raises(ConfigError, match="no classes"):
        build(LabelClassificationConfig(), categories=())


def test_a_single_class_is_nothing_to_learn_but_present_or_absent():
    with pytest.raises(
        ConfigError, match=r"would learn nothing: 'dog' is the only class\. Is --data"
    ):
        build(LabelClassificationConfig(), categories=("dog",))
    build(LabelClassificationConfig(loss="bce"), categories=("dog",))
