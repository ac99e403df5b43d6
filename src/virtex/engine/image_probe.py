"""What a validation shows of the images: whether the loss needs them, how their features spread."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import normalize as to_unit_length

from virtex.data.transforms import normalize
from virtex.engine.device_batches import to_device
from virtex.engine.evaluation import evaluate
from virtex.engine.run import RunConfig, autocast
from virtex.tasks.base import Batch, Task

MAX_BATCHES = 4
"""Most batches that are looked at: they bound the cost."""
FEWEST_EXAMPLES = 8
"""Validation images from which the probe says something."""
MAX_FEATURES = 512
"""Most images whose features are compared."""


class ImageProbe:
    """A few evenly spaced batches of a validation, kept while it goes through all.

    Args:
        num_batches: Number of batches of the validation on this process.
        most: Number of them to keep at most.
    """

    def __init__(self, num_batches: int, *, most: int = MAX_BATCHES) -> None:
        self.every, self.most = max(1, num_batches // most), most
        self.kept: list[Batch] = []

    def keep(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield all batches."""
        for number, batch in enumerate(batches):
            if number % self.every == 0 and len(self.kept) < self.most:
                self.kept.append(batch)
            yield batch

    def numbers(self, task: Task, *, run: RunConfig, device: torch.device) -> dict[str, float]:
        """Return how the loss rises with other images, and spread and rank of the features.

        All processes take part in the first.
        """
        own = evaluate(task, self.kept, run=run, device=device)
        other = evaluate(task, exchanged(self.kept), run=run, device=device)
        rise = {"shuffled_rise": other["loss"] - own["loss"]} if "loss" in own else {}
        features = list(self._features(task, run, device))
        return {**rise, **(spread(torch.cat(features)) if features else {})}

    @torch.no_grad()
    def _features(self, task: Task, run: RunConfig, device: torch.device) -> Iterator[Tensor]:
        """Yield the pooled features (B, C) of kept batches."""
        was_training = task.training
        task.eval()
        with torch.compiler.set_stance("force_eager"):
            for batch in islice(self.kept, 1 + MAX_FEATURES // max(1, run.piece_size)):
                images = {"image": batch[image_name(batch)]}
                moved = to_device(images, device, channels_last=run.channels_last)
                with autocast(run.precision, device):
                    yield task.backbone.pooled(normalize(moved["image"])).float()
        task.train(was_training)


def exchanged(batches: list[Batch]) -> Iterator[Batch]:
    """Yield batches with images of others: those of half of all further.

    Neighbours may be alike, as where a folder is a class.
    """
    if not batches:
        return
    name = image_name(batches[0])
    images = [image for batch in batches for image in batch[name]]
    alike = len({image.shape for image in images}) == 1
    moved = [*images[len(images) // 2 :], *images[: len(images) // 2]]
    start = 0
    for batch in batches:
        number = len(batch[name])
        others = torch.stack(moved[start : start + number]) if alike else batch[name].roll(1, 0)
        start += number
        yield {**batch, name: others}


def image_name(batch: Batch) -> str:
    """Return the name of a batch's images (B, 3, H, W), of MoCo's two views the first."""
    return next(n for n, value in batch.items() if value.dim() == 4 and value.dtype == torch.uint8)


def spread(features: Tensor) -> dict[str, float]:
    """Return the spread and the effective rank of features (B, C).

    `feature_spread` is the standard deviation over the batch of the features at unit length, all
    channels together: 0 if all are equal, 1 if their mean is 0. `effective_rank` is the exponential
    of the entropy of the singular values of what differs from the mean (Roy and Vetterli, 2007).
    """
    unit = to_unit_length(features[:MAX_FEATURES], dim=1)
    centred = unit - unit.mean(0)
    deviation = float(centred.square().sum(1).mean().sqrt())
    values = torch.linalg.svdvals(centred.cpu())
    probs = values / values.sum().clamp(min=1e-12)
    rank = float(torch.special.entr(probs).sum().exp())
    return {"feature_spread": deviation, "effective_rank": rank}
