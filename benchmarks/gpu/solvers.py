"""Beam search and VOC07's SVMs on the device."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.decode import LENGTHS, VOCAB_SIZE, cached, reranked
from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.training import NETWORKS, build_backbone
from benchmarks.svm import made_up, mean_ap
from virtex.engine.run import autocast
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.textual_head import HeadConfig
from virtex.transfer.solvers.svm import svm_scores


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section."""
    sizes = [4] if settings.is_toy else [16, 128]
    return [
        *(Job(f"decoding, batch {n}", partial(decoding, settings, n), limit=60) for n in sizes),
        Job("SVMs", partial(svms, settings), limit=120),
    ]


@torch.no_grad()
def decoding(settings: Settings, batch_size: int, seconds: float) -> Iterator[Row]:
    """Yield the times of beam search, beside the backbone's forward pass."""
    torch.manual_seed(0)
    device, config = torch.device(settings.device), DecodingConfig()
    head = HeadConfig(64 if settings.is_toy else 1024)
    vocab_size = 200 if settings.is_toy else VOCAB_SIZE
    backbone = build_backbone(NETWORKS[0], settings)
    captioner = Captioner(backbone, head, vocab_size, bidirectional=True).eval().to(device)
    images = torch.randn(batch_size, 3, settings.image_size, settings.image_size, device=device)
    lengths = torch.tensor(LENGTHS, device=device).repeat(-(-batch_size // len(LENGTHS)))
    never = torch.full((batch_size,), config.max_steps + 1, device=device)
    with autocast(settings.precision, device):
        grid = captioner.backbone(images)
        contestants: dict[str, Callable[[], object]] = {
            "backbone's forward": partial(captioner.backbone, images),
            f"{config.max_steps} steps": partial(cached, captioner, grid, config, never),
            "real lengths": partial(cached, captioner, grid, config, lengths[:batch_size]),
            "real lengths, reranked": partial(
                reranked, captioner, grid, config, lengths[:batch_size]
            ),
        }
        times = {name: seconds_of(call, settings) for name, call in contestants.items()}
    forward = times["backbone's forward"]
    for name, value in times.items():
        yield {
            "what": name,
            "batch": batch_size,
            "ms_per_image": 1000 * value / batch_size,
            "images_per_second": batch_size / value,
            "backbone_forwards": value / forward,
        }


def seconds_of(call: Callable[[], object], settings: Settings) -> float:
    """Return the median seconds of a call on the device, after one that warms up."""
    times = []
    for _ in range(2 if settings.is_toy else 6):
        if settings.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if settings.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def svms(settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the seconds and mAP of VOC07's SVMs, on the device and on the CPU."""
    num_images, num_channels, num_classes = (300, 16, 3) if settings.is_toy else (5011, 2048, 20)
    sizes = {"num_channels": num_channels, "num_classes": num_classes}
    train, signs = made_up(1, num_images=num_images, **sizes)
    test, answers = made_up(2, num_images=num_images, **sizes)
    first: np.ndarray | None = None
    for name in dict.fromkeys((settings.device, "cpu")):
        start = time.perf_counter()
        scores = svm_scores(train, signs, test, device=torch.device(name))
        taken = time.perf_counter() - start
        first = scores if first is None else first
        yield {
            "what": f"SVMs on {name}",
            "seconds": taken,
            "mAP": f"{mean_ap(answers, scores):.3f}",
            "scores_differ_by": float(np.abs(scores - first).max()),
        }
