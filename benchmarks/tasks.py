"""Time of a step of each pretext task, relative to its backbone's: `python -m benchmarks.tasks`.

Prints the time of a full step (loss, backward pass, SGD update, `after_step`) as a multiple of the
bare backbone's step on as many images of the same size, at the same precision and channels-last.
The backbone is a ResNet-50, or ViT-S/16 for prefix LM, unless --backbone names another.
The batches are drawn scenes with captions and a vocabulary of 1,500 pieces, without the time of
loading. Text heads are L1 H1024, other sizes are each task's defaults. The steps alternate, and
ratios are of medians.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from virtex.data.caption_sample import drawn_references
from virtex.data.example import Source
from virtex.data.source import SourceConfig, open_source
from virtex.data.source_options import Needs
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.data.transforms import ImageConfig, normalize
from virtex.engine.device_batches import to_device
from virtex.engine.optim import OptimConfig, build_optimizer, set_lr
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.detection import InstanceSegmentationConfig
from virtex.tasks.locca import LocCaConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig
from virtex.tasks.prefix_lm import PrefixLmConfig
from virtex.tasks.self_critical import SelfCriticalConfig

VOCAB_SIZE = 1_500
NUM_SCENES = 4_000
TASKS: dict[str, TaskConfig] = {
    "bicaptioning": CaptioningConfig(),
    "forward captioning": CaptioningConfig(bidirectional=False),
    "masked LM": MaskedLmConfig(),
    "ICMLM": MaskedLmConfig(masked_words="concepts"),
    "CapPa": CapPaConfig(),
    "LocCa": LocCaConfig(),
    "prefix LM": PrefixLmConfig(),
    "self-critical": SelfCriticalConfig(),
    "token classification": TokenClassificationConfig(),
    "token classification, BCE": TokenClassificationConfig(loss="bce"),
    "SuperClass": TokenClassificationConfig(idf=True),
    "multi-label classification": LabelClassificationConfig(),
    "CLIP": ContrastiveConfig(),
    "SigLIP": ContrastiveConfig(loss="sigmoid"),
    "MoCo": MocoConfig(),
    "PIRL": PirlConfig(),
    "instance segmentation": InstanceSegmentationConfig(),
}
BACKBONES = {"prefix LM": "vit_small_patch16_224"}
"""Backbones of the tasks that do not train a ResNet-50."""
Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = open_source(
        SourceConfig(num_images=NUM_SCENES, image_size=arguments.size),
        split="train",
        needs=Needs(captions=True, objects=True),
    )
    assert source is not None
    captions = (caption for index in range(NUM_SCENES) for caption in source[index].captions)
    tokenizer = train_tokenizer(captions, vocab_size=VOCAB_SIZE)
    for name in arguments.only:
        backbone = arguments.backbone or BACKBONES.get(name, "resnet50")
        task, batch = prepare(TASKS[name], backbone, source, tokenizer, arguments)
        ratio, seconds = compare(task, batch, backbone, arguments)
        print(f"{name}: x {ratio:.2f} ({seconds:.2f} s)", flush=True)


def prepare(
    config: TaskConfig,
    backbone: str,
    source: Source,
    tokenizer: Tokenizer,
    arguments: argparse.Namespace,
) -> tuple[Task, Batch]:
    """Return a task and a batch for it."""
    image = ImageConfig(size=arguments.size)
    references = partial(drawn_references, source, most=NUM_SCENES)
    data = TaskData(image, tokenizer, source.categories, len(source), references)
    torch.manual_seed(0)
    task = config.build(Backbone(BackboneConfig(backbone)), data)
    encoded = []
    for index in range(arguments.batch):
        rng = np.random.default_rng(index)
        encoded.append(task.encode(source[index], rng))
    task.to(device=arguments.device, memory_format=torch.channels_last).train()
    batch = {**task.collate(encoded), "index": torch.arange(arguments.batch)}
    return task, to_device(batch, task_device(task), channels_last=True)


def compare(
    task: Task, batch: Batch, backbone: str, arguments: argparse.Namespace
) -> tuple[float, float]:
    """Return the time of the task's step, as a multiple of the bare backbone's and in seconds."""
    bare = Backbone(BackboneConfig(backbone))
    bare.to(device=arguments.device, memory_format=torch.channels_last)
    shape = arguments.batch, 3, arguments.size, arguments.size
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=arguments.device)
    images = images.contiguous(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(bare.parameters(), lr=1e-4, momentum=0.9, fused=True)
    optimizer = build_optimizer(task, OptimConfig(lookahead_steps=0))
    set_lr(optimizer, 1e-4)

    def bare_step() -> None:
        sgd.zero_grad()
        with autocast(arguments):
            loss = bare(normalize(images)).mean()
        loss.backward()
        sgd.step()

    def task_step() -> None:
        optimizer.zero_grad()
        (piece,) = task.prepare_step([batch], seed=1)
        with autocast(arguments):
            output = task(piece)
        output.loss.backward()
        optimizer.step()
        task.after_step(1, [output.kept])

    times: dict[Step, list[float]] = {bare_step: [], task_step: []}
    for _ in range(1 + arguments.rounds):
        for step, seconds in times.items():
            start = time.perf_counter()
            step()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    own, floor = (statistics.median(times[step][1:]) for step in (task_step, bare_step))
    gc.collect()
    return own / floor, own


def autocast(arguments: argparse.Namespace) -> torch.autocast:
    return torch.autocast(
        torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.bf16
    )


def task_device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


if __name__ == "__main__":
    main()
