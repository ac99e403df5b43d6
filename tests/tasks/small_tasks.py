"""Parts of the tests of pretext tasks: a slim backbone, a vocabulary, and scenes."""

from functools import cache

import numpy as np
import torch

from tests.models.small import SLIM
from tests.task_options import SMALL_VIT
from virtex.data.sources.scenes import ScenesSource
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData, TaskOutput
from virtex.tasks.prefix_lm import PrefixLmConfig

IMAGE = ImageConfig(size=32)
SCENES = ScenesSource(8, image_size=64)


@cache
def tokenizer() -> Tokenizer:
    captions = [caption for index in range(len(SCENES)) for caption in SCENES[index].captions]
    return train_tokenizer([*captions, "a dog on the left", "a dog on the right"], vocab_size=150)


def build(config: TaskConfig, *, categories: tuple[str, ...] = SCENES.categories) -> Task:
    """A task whose initial weights are always the same."""
    torch.manual_seed(0)
    data = TaskData(IMAGE, tokenizer(), categories, len(SCENES), references)
    return config.build(Backbone(small_backbone(config)), data)


def references() -> list[tuple[str, ...]]:
    """The captions of all scenes."""
    return [SCENES.captions(index) for index in range(len(SCENES))]


def small_backbone(config: TaskConfig, **options: str) -> BackboneConfig:
    """A slim ResNet with these options, or a small ViT for the task that needs one."""
    if isinstance(config, PrefixLmConfig):
        return BackboneConfig(**SMALL_VIT)
    return BackboneConfig("resnet18", options=SLIM | options)


def scenes_batch(task: Task, indices: range = range(4)) -> Batch:
    """A training batch of the scenes at these indices."""
    return task.collate([task.encode(SCENES[i], np.random.default_rng(i)) for i in indices])


def without_gradient(task: Task) -> list[str]:
    """Names of trainable parameters that the last backward pass left out."""
    return [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None]


def training_pass(task: Task, *pieces: Batch) -> list[TaskOutput]:
    """Outputs of the forward passes of a training step on these pieces."""
    return [task(piece) for piece in task.prepare_step(list(pieces), seed=0)]


def training_step(task: Task, *pieces: Batch, step: int = 1) -> None:
    """A training step without gradient: what it changes is not learned by gradient."""
    task.after_step(step, [output.kept for output in training_pass(task, *pieces)])
