"""Time of solving VOC07's SVMs together, compared with LinearSVC one by one.

Features are synthetic and resemble pooled features of a ResNet: positive, heavy-tailed, of length
1, with a few strong directions that all images share, many weak ones and noise. Classes have
different frequencies and lie in the strong directions. Both methods choose costs by the same
cross-validation, run once with the same threads, and are compared on the same test images. The
differences of decision values include LinearSVC's own tolerance; `--tol` tightens it.

    python -m benchmarks.svm [--images 5011] [--channels 2048] [--classes 20] [--threads 2]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from tests.oracles.voc07_svm import one_by_one_scores
from virtex.transfer.metrics.classification import average_precisions
from virtex.transfer.solvers.svm import svm_scores

RANK = 128
SIGNAL = 1.5
"""Strength of a class's direction, in standard deviations of the labels' noise."""


def made_up(
    seed: int, *, num_images: int, num_channels: int, num_classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return features (N, C) of length 1 and signs (N, K); the seed affects only the images."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    strengths = np.arange(1, RANK + 1) ** -0.5
    mix = world.normal(size=(RANK, num_channels)) * strengths[:, None]
    mix /= np.linalg.norm(mix, axis=0)
    offsets = 0.7 * world.normal(size=num_channels)
    planes = world.normal(size=(RANK, num_classes))
    planes /= np.linalg.norm(planes, axis=0)
    shares = np.geomspace(0.04, 0.4, num_classes)
    latent = rng.normal(size=(num_images, RANK))
    noise = rng.normal(size=(num_images, num_channels))
    features = np.exp(0.5 * latent @ mix + offsets + 0.4 * noise)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    values = SIGNAL * latent @ planes + rng.normal(size=(num_images, num_classes))
    present = values > norm.isf(shares) * np.hypot(SIGNAL, 1)
    return features.astype(np.float32), np.where(present, 1, -1).astype(np.int8)


def timed(solve: Callable[[], NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    start = time.perf_counter()
    scores = solve()
    return scores, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5011)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tol", type=float, default=1e-4, help="tolerance of LinearSVC")
    parser.add_argument(
        "--device", default="cpu", help="device of our solver; LinearSVC uses the CPU"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    sizes = {"num_channels": options.channels, "num_classes": options.classes}
    train, signs = made_up(1, num_images=options.images, **sizes)
    test, answers = made_up(2, num_images=options.images, **sizes)
    with threadpool_limits(options.threads):
        ours, seconds = timed(
            lambda: svm_scores(train, signs, test, device=torch.device(options.device))
        )
        print(f"together    {seconds:7.1f} s   mAP {mean_ap(answers, ours):.3f}", flush=True)
    with threadpool_limits(1):  # the classes are what runs side by side
        theirs, slow = timed(
            lambda: one_by_one_scores(train, signs, test, num_jobs=options.threads, tol=options.tol)
        )
    print(f"one by one  {slow:7.1f} s   mAP {mean_ap(answers, theirs):.3f}")
    apart = np.abs(ours - theirs).max(axis=0)  # (K,) large where another cost was chosen
    print(
        f"{slow / seconds:.1f} times as fast; decision values differ by {np.median(apart):.1e} in "
        f"the median class, {apart.max():.1e} in the worst"
    )


def mean_ap(signs: NDArray[np.int8], scores: NDArray[np.float64]) -> float:
    return 100 * float(average_precisions(signs, scores).mean())


if __name__ == "__main__":
    main()
