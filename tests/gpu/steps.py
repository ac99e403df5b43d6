"""Steps of any pretext task in the training loop, on batches of drawn scenes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from tests.small_run import small_config
from tests.task_options import task_flags
from virtex.data.caption_sample import drawn_references
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig, training_batches
from virtex.data.source import SourceConfig, open_source
from virtex.data.source_options import Needs
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.engine.loop import fit
from virtex.engine.run import RunFolder
from virtex.models.backbone import Backbone
from virtex.tasks.base import Batch, Task, TaskData

NUM_SCENES, BATCH_SIZE, NUM_BATCHES = 64, 8, 6
Hook = Callable[[int], None]


@cache
def scenes() -> tuple[Source, Tokenizer]:
    """Return scenes with captions and objects, and a vocabulary."""
    needs = Needs(captions=True, objects=True)
    source = open_source(
        SourceConfig(num_images=NUM_SCENES, image_size=64), split="train", needs=needs
    )
    assert source is not None
    captions = (caption for index in range(len(source)) for caption in source[index].captions)
    return source, train_tokenizer(captions, vocab_size=250)


@dataclass
class Steps:
    """Data of steps in rotation, as a loader's stream; a hook hears of each before it is given."""

    data: Sequence[list[Batch]]
    hook: Hook
    count: int = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Batch]:
        self.hook(self.count)
        self.count += 1
        return self.data[(self.count - 1) % len(self.data)]

    def close(self) -> None:
        """Do nothing."""


def build(name: str, folder: Path) -> tuple[Task, list[list[Batch]]]:
    """Return a pretext task of tests/task_options.py, and the data of some steps."""
    source, tokenizer = scenes()
    config = small_config(folder, *task_flags(name))
    torch.manual_seed(0)
    references = partial(drawn_references, source, most=len(source))
    data = TaskData(config.image, tokenizer, source.categories, len(source), references)
    task = config.task.build(Backbone(config.backbone), data)
    batches: Iterator[list[Batch]] = training_batches(
        source,
        task.encode,
        task.collate,
        seed=0,
        batch_size=BATCH_SIZE,
        config=LoaderConfig(num_workers=0),
    )
    return task, list(islice(batches, NUM_BATCHES))


def train(
    name: str,
    folder: Path,
    *,
    device: str,
    num_steps: int,
    hook: Hook = lambda step: None,
    **options: Any,
) -> dict[str, Tensor]:
    """Train a task for some steps, and return its state on the CPU.

    Args:
        hook: Called with the number of each step when its data are fetched, one step ahead.
        options: Values of RunConfig's fields.
    """
    task, data = build(name, folder)
    config = small_config(folder, *task_flags(name))
    run = replace(
        config.run,
        num_steps=num_steps,
        log_every=1000,
        checkpoint_every=0,
        validate_every=0,
        **options,
    )
    fit(
        task,
        lambda start: Steps(data, hook),
        folder=RunFolder(folder),
        run=run,
        optim=config.optim,
        device=torch.device(device),
        config={},
    )
    return {key: value.cpu() for key, value in task.state_dict().items()}
