"""The losses of a model that learned nothing of the image: the entropy of its targets, ln(batch).

Shapes: V vocabulary, T tokens.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virtex.monitors.history import Chance
from virtex.tasks.base import TaskConfig
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.locca import LocCaConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig
from virtex.tasks.prefix_lm import PrefixLmConfig
from virtex.tasks.token_loss import distinct_tokens
from virtex.tokens import NUM_SPECIAL

TOKENS = "the entropy of single tokens"
FEWEST_CAPTIONS = 20
"""Captions from which frequencies can be estimated."""


def chance_losses(
    task: TaskConfig,
    *,
    batch_size: int,
    captions: Sequence[Tensor] = (),
    labels: Sequence[Sequence[int]] = (),
    num_negatives: int = 0,
) -> dict[str, Chance]:
    """Return the losses of chance by the name under which a task logs each, as far as known.

    Args:
        captions: Token ids (T,) of a sample of captions, start and end included.
        labels: Classes of a sample of images.
        num_negatives: Memories that PIRL compares with.
    """
    sets = [distinct_tokens(tokens).tolist() for tokens in captions]
    match task:
        case CaptioningConfig():
            names = ["captioning_forward"] + ["captioning_backward"] * task.bidirectional
            return {**_next_tokens(names, captions), **_sets(task.token_weight, "tokens", sets)}
        case CapPaConfig():
            names = ["autoregressive"] + ["parallel"] * (task.parallel_share > 0)
            return _next_tokens(names, captions)
        case LocCaConfig():
            return _next_tokens(["caption"], captions)
        case PrefixLmConfig():
            return _next_tokens(["loss"], captions)
        case MaskedLmConfig(masked_words="tokens"):
            ordinary = [tokens[tokens >= NUM_SPECIAL] for tokens in captions]
            return _entropies(["loss"], [np.ones(len(t)) for t in ordinary], ordinary)
        case TokenClassificationConfig(loss="softmax", idf=False):
            return _sets(1, "classification", sets)
        case LabelClassificationConfig(loss="softmax", idf=False):
            return _sets(1, "classification", labels, "the entropy of the classes")
        case ContrastiveConfig():
            own = {"contrastive": _of_pairs(task.loss, batch_size)}
            weight = 0 if task.token_idf else task.token_weight
            return {**own, **_sets(weight, "tokens", sets)}
        case MocoConfig():
            return {"loss": Chance(math.log(task.queue_size + 1), "ln(queue + 1)")}
        case PirlConfig():
            return {"loss": Chance(_of_noise(num_negatives), "the loss of equal similarities")}
    return {}


def entropy(weights: NDArray[np.float64]) -> float:
    """Return the entropy in nats of a distribution with weights (V,)."""
    probs = weights[weights > 0] / weights.sum()
    return float(-(probs * np.log(probs)).sum())


def _next_tokens(names: Sequence[str], captions: Sequence[Tensor]) -> dict[str, Chance]:
    """Return the entropy of the tokens after the first of each caption."""
    targets = [tokens[1:] for tokens in captions]
    return _entropies(names, [np.ones(len(t)) for t in targets], targets)


def _sets(
    weight: float, name: str, sets: Sequence[Sequence[int]], what: str = TOKENS
) -> dict[str, Chance]:
    """Return the entropy of sets of classes, each set of one weight."""
    if not weight:
        return {}
    targets = [torch.tensor(list(found), dtype=torch.int64) for found in sets if len(found)]
    shares = [np.full(len(found), 1 / len(found)) for found in targets]
    return _entropies([name], shares, targets, what)


def _entropies(
    names: Sequence[str],
    shares: Sequence[NDArray[np.float64]],
    targets: Sequence[Tensor],
    what: str = TOKENS,
) -> dict[str, Chance]:
    """Return the entropy of targets with their weights, corrected for those not in the sample.

    The correction is that of Miller and Madow, (classes - 1) / (2 * targets).
    """
    if len(targets) < FEWEST_CAPTIONS or not (number := sum(map(len, targets))):
        return {}
    counts = np.bincount(torch.cat(list(targets)).numpy(), weights=np.concatenate(list(shares)))
    value = entropy(counts.astype(np.float64)) + (int((counts > 0).sum()) - 1) / (2 * number)
    return {name: Chance(value, what) for name in names}


def _of_pairs(loss: str, batch_size: int) -> Chance:
    """Return the loss of equal similarities: ln(batch), or for a sigmoid its entropy per image."""
    if loss == "softmax" or batch_size == 1:
        return Chance(math.log(batch_size), "ln(batch)")
    others = (batch_size - 1) * math.log(batch_size / (batch_size - 1))
    return Chance(math.log(batch_size) + others, "the loss of equal similarities")


def _of_noise(num_negatives: int) -> float:
    """Return PIRL's loss where all similarities are equal."""
    number = max(1, num_negatives)
    return math.log(number + 1) - number * math.log(number / (number + 1))
