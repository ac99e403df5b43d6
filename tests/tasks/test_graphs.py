"""Tasks without a textual head compile to one graph, whatever a batch holds."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import pad

from tests.tasks.small_tasks import build, scenes_batch
from virtex.engine.device_batches import mark_dynamic
from virtex.models.text_encoder import TextEncoderConfig
from virtex.tasks.base import Batch, Task, TaskConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig

TEXT = TextEncoderConfig(hidden_size=16, num_layers=1, num_heads=2)
BIDIRECTIONAL = TextEncoderConfig(hidden_size=16, num_layers=1, num_heads=2, causal=False)
CONFIGS = {
    "superclass": TokenClassificationConfig(idf=True),
    "label_classification": LabelClassificationConfig(loss="bce"),
    "clip": ContrastiveConfig(text=TEXT, token_weight=1.0, token_idf=True),
    "siglip": ContrastiveConfig(loss="sigmoid", text=BIDIRECTIONAL),
    "moco": MocoConfig(dim=6, queue_size=8, group_size=2),
    "pirl": PirlConfig(dim=6, num_negatives=4),
}


@pytest.fixture(autouse=True)
def fresh_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batches(task: Task) -> Iterator[Batch]:
    """Batches that differ in what their sizes depend on."""
    batch = {**scenes_batch(task), "index": torch.arange(4)}
    for more in (0, 2, 6):
        yield {
            name: pad(value, (0, more), value=value.min().item()) if name in task.dynamic else value
            for name, value in batch.items()
        }


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_all_batches_take_one_graph(config: TaskConfig, is_training: bool) -> None:
    task, counter = build(config).train(is_training), CompileCounter()
    compiled = torch.compile(task, backend=counter, fullgraph=True, dynamic=False)
    for batch in batches(task):
        (piece,) = task.prepare_step([batch], seed=0) if is_training else [batch]
        mark_dynamic(piece, task.dynamic)
        with torch.set_grad_enabled(is_training):
            found, expected = compiled(piece), task(piece)
        if not isinstance(config, PirlConfig) or is_training:  # which draws negatives
            torch.testing.assert_close(found.loss, expected.loss)
    assert counter.frame_count == 1
