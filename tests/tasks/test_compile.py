"""Tasks that read captions compile without a break, to few graphs, and compute the same."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.tasks.small_tasks import IMAGE, build, scenes_batch, training_pass
from virtex.engine.device_batches import mark_dynamic
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, Task, TaskConfig
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.locca import LocCaConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tasks.prefix_lm import PrefixLmConfig

HEAD = HeadConfig(hidden_size=32, num_heads=2, dropout=0.0, max_tokens=30)
CONFIGS = {
    "bicaptioning": CaptioningConfig(head=HEAD, token_weight=1.0),
    "cappa": CapPaConfig(head=HEAD),
    "masked_lm": MaskedLmConfig(head=HEAD),
    "prefix_lm": PrefixLmConfig(),
}
TRAINED = {
    **{name: CONFIGS[name] for name in ("bicaptioning", "cappa", "prefix_lm")},
    "locca": LocCaConfig(head=HEAD),
}
NUM_BATCHES, BATCH_SIZE = 100, 16
COMMON = torch.tensor([0.0] * 9 + [4, 46, 161, 200, 192, 142, 95, 59, 35, 22, 14, 9, 6, 4, 3, 2, 2]
                      + [1, 1, 1, 0, 1])  # fmt: skip
"""Weights of the lengths of COCO's captions, by the number of tokens."""


@pytest.fixture(autouse=True)
def fresh_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batches(
    task: Task, weights: torch.Tensor = COMMON, num_batches: int = NUM_BATCHES
) -> Iterator[Batch]:
    """Batches of black images and captions of real length."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(3, IMAGE.size, IMAGE.size, dtype=torch.uint8)
    for _ in range(num_batches):
        encoded = []
        for index, length in enumerate(weights.multinomial(BATCH_SIZE, True, generator=generator)):
            words = torch.randint(5, 150, (int(length) - 2,), generator=generator)
            tokens = torch.cat([torch.tensor([1]), words, torch.tensor([2])])
            targets = torch.zeros_like(tokens)
            targets[1 : 1 + -(-len(words) // 7)] = 7
            parallel = torch.tensor(index % 4 > 0)
            encoded.append(
                {"image": image, "tokens": tokens, "targets": targets, "parallel": parallel}
            )
        yield task.collate(encoded)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_run_of_batches_of_real_length_compiles_at_most_four_graphs(config: TaskConfig) -> None:
    task, counter = build(config), CompileCounter()
    task.backbone.eval()
    compiled = torch.compile(task, backend=counter, fullgraph=True, dynamic=False)
    sizes = set()
    with torch.no_grad():
        for batch in batches(task):
            mark_dynamic(batch, task.dynamic)
            sizes.add((len(batch["rows"]), batch["places"].shape[1]))
            compiled(batch)
    assert len(sizes) > 5
    assert len({num_tokens for _, num_tokens in sizes}) == counter.frame_count <= 4


def test_long_captions_compile_at_most_four_graphs() -> None:
    task, counter = build(CaptioningConfig(head=replace(HEAD, max_tokens=256))), CompileCounter()
    task.backbone.eval()
    compiled = torch.compile(task, backend=counter, fullgraph=True, dynamic=False)
    lengths = set()
    with torch.no_grad():
        for weights in (COMMON, torch.cat([torch.zeros(3), torch.ones(254)])):
            for batch in batches(task, weights, num_batches=15):
                mark_dynamic(batch, task.dynamic)
                lengths.add(batch["places"].shape[1])
                assert compiled(batch).loss.isfinite()
    assert max(lengths) >= 256
    assert counter.frame_count == len(lengths) <= 4


@pytest.mark.parametrize("config", TRAINED.values(), ids=TRAINED.keys())
def test_losses_and_gradients_are_the_uncompiled_ones(config: TaskConfig) -> None:
    task = build(config)
    batch = scenes_batch(task)
    outputs, gradients = [], []
    compiled = torch.compile(task, backend="aot_eager", fullgraph=True, dynamic=False)
    for module in (task, compiled):
        task.zero_grad()
        (output,) = training_pass(task, batch) if module is task else [compiled(batch)]
        output.loss.backward()
        outputs.append(output)
        gradients.append({name: value.grad.clone() for name, value in task.named_parameters()})
    torch.testing.assert_close(outputs[1].loss, outputs[0].loss)
    torch.testing.assert_close(outputs[1].logs, outputs[0].logs)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
