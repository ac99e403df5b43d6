"""Steps of a pretext task in the project's training loop, and of a bare backbone, timed."""

import gc
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from benchmarks.gpu.batches import Numbers, made_up_batches, plain_images, rotation
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stopwatch import Stopwatch, Timed
from virtex import distributed
from virtex.data.transforms import normalize
from virtex.engine.loop import fit
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder, autocast, choose_device
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.text_encoder import TextEncoderConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Task, TaskConfig, TaskData
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.contrastive import ContrastiveConfig

Compile = Literal["none", "task", "step"]
Result = TypeVar("Result")
SHARED_MEMORY = Path("/dev/shm")
ROOM_FOR_CHECKPOINT = 12 * 2**30
TOYS: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "vit_base_patch16_224": {"depth": 1, "embed_dim": 32, "num_heads": 2},
}


@dataclass(frozen=True)
class Network:
    """A pretext task on a backbone, with its optimizer."""

    name: str
    backbone: str
    task: TaskConfig
    optimizer: Literal["sgd", "adamw"]

    @property
    def optim(self) -> OptimConfig:
        """Options of the optimizer: SGD with Lookahead as the paper's, AdamW as CLIP's."""
        lookahead = 5 if self.optimizer == "sgd" else 0
        small = 1e-4  # as random captions teach nothing
        return OptimConfig(self.optimizer, small, small, lookahead_steps=lookahead)


NETWORKS = (
    Network("R-50 bicaptioning H1024", "resnet50", CaptioningConfig(HeadConfig(1024)), "sgd"),
    Network("R-50 bicaptioning H2048", "resnet50", CaptioningConfig(HeadConfig(2048)), "sgd"),
    Network("ViT-B/16 CapPa", "vit_base_patch16_224", CapPaConfig(HeadConfig(1024)), "adamw"),
    Network("ViT-B/16 CLIP", "vit_base_patch16_224", ContrastiveConfig(), "adamw"),
)


def build_backbone(network: Network, settings: Settings) -> Backbone:
    """Return a network's backbone with random weights, tiny if everything is."""
    options = TOYS[network.backbone] if settings.is_toy else {}
    name = "resnet18" if settings.is_toy and network.backbone == "resnet50" else network.backbone
    backbone = Backbone(BackboneConfig(name, options=options))
    backbone.fix_size(settings.image_size)
    return backbone


def build_task(network: Network, settings: Settings) -> Task:
    """Return a pretext task, with a vocabulary of numbers."""
    torch.manual_seed(0)
    config: Any = network.task
    if settings.is_toy and isinstance(config, ContrastiveConfig):
        config = replace(config, text=TextEncoderConfig(hidden_size=64, num_layers=1))
    elif settings.is_toy:
        config = replace(config, head=HeadConfig(hidden_size=64))
    vocabulary: Any = Numbers()
    data = TaskData(plain_images(settings.image_size), vocabulary, (), 100_000)
    return config.build(build_backbone(network, settings), data)


def stopwatch_of(settings: Settings, device: torch.device) -> Stopwatch:
    """Return a stopwatch for enough steps; it begins to run."""
    if settings.is_toy:
        return Stopwatch(device, num_warmup=4, window=2, num_windows=1)
    return Stopwatch(device, num_warmup=8, window=8)


def time_task(
    network: Network,
    settings: Settings,
    *,
    batch_size: int,
    compile: Compile,
    stopwatch: Stopwatch | None = None,
) -> Stopwatch:
    """Train a task for some steps in the training loop; return their times.

    Args:
        batch_size: Images of this process's part of a step.
        stopwatch: One of another kind.
    """
    device = choose_device(settings.device)
    task = build_task(network, settings)
    batches = made_up_batches(task, batch_size=batch_size, size=settings.image_size)
    stopwatch = stopwatch or stopwatch_of(settings, device)
    run = RunConfig(
        num_steps=stopwatch.num_steps,
        batch_size=batch_size * distributed.world_size(),
        precision=settings.precision,
        log_every=10**6,
        validate_every=0,
        checkpoint_every=0,
        tensorboard=False,
        compile=compile,
    )
    folders = tempfile.TemporaryDirectory(dir=_fast_folder(settings))
    with folders as folder, _toy_compiler(settings):
        fit(
            task,
            lambda step: Timed(rotation(batches), stopwatch),
            folder=RunFolder(Path(folder)),
            run=run,
            optim=network.optim,
            device=device,
            config={},
        )
    return stopwatch


def time_bare(
    network: Network, settings: Settings, *, batch_size: int, is_compiled: bool
) -> Stopwatch:
    """Train a bare backbone on images that are on the device; return the times of its steps."""
    torch.manual_seed(0)
    device = choose_device(settings.device)
    torch.backends.cudnn.benchmark = True
    backbone = build_backbone(network, settings).to(device, memory_format=torch.channels_last)
    if is_compiled:
        backbone.compile()
    optimizer = _bare_optimizer(network, backbone)
    shape = batch_size, 3, settings.image_size, settings.image_size
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    stopwatch = stopwatch_of(settings, device)
    for _ in range(stopwatch.num_steps):
        stopwatch.step()
        with autocast(settings.precision, device):
            loss = backbone(normalize(images)).float().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return stopwatch


def _bare_optimizer(network: Network, backbone: Backbone) -> torch.optim.Optimizer:
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if network.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)


def halving(attempt: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
    """Return an attempt's result and the batch size: halved until it fits the GPU's memory."""
    while True:
        try:
            return attempt(batch_size), batch_size
        except torch.OutOfMemoryError:
            if batch_size < 4:
                raise
        free_memory()  # outside of the handler, whose traceback holds the tensors
        batch_size //= 2


def free_memory() -> None:
    """Give back the memory of compiled code and of tensors that nobody holds."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _toy_compiler(settings: Settings) -> AbstractContextManager[object]:
    """Return a context in which torch.compile finds graphs as ever, but generates no code."""
    if not settings.is_toy:
        return nullcontext()
    return torch.compiler.set_stance("default", force_backend="eager")


def _fast_folder(settings: Settings) -> Path:
    """Return where the checkpoint at the end costs least."""
    try:
        has_room = shutil.disk_usage(SHARED_MEMORY).free > ROOM_FOR_CHECKPOINT
    except OSError:
        has_room = False
    return SHARED_MEMORY if has_room else settings.work
