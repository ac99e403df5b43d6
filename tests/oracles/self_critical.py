"""Self-critical training, written out slowly: the expected reward over all captions there are."""

import torch
from torch import Tensor

from virtex.models.captioner import Captioner
from virtex.tokens import EOS_ID, MASK_ID, PAD_ID, SOS_ID


def next_log_probs(captioner: Captioner, image: Tensor, prefix: list[int]) -> Tensor:
    """Log-probabilities (V,) of the token that a search writes after a prefix."""
    tokens = torch.tensor([[SOS_ID, *prefix]])
    logits = captioner.logits(image, tokens, torch.tensor([len(prefix) + 1]))[0, -1].clone()
    logits[[PAD_ID, SOS_ID, MASK_ID, *prefix[-1:]]] = float("-inf")
    return logits.log_softmax(0)


def caption_log_prob(captioner: Captioner, image: Tensor, caption: list[int]) -> Tensor:
    """Log-probability of a caption with its end token, if it has one."""
    return sum(
        next_log_probs(captioner, image, caption[:position])[token]
        for position, token in enumerate(caption)
    )


def expected_reward(captioner: Captioner, image: Tensor, reward, *, max_steps: int) -> Tensor:
    """Sum over all captions of up to `max_steps` tokens of probability times reward."""

    def total(prefix: list[int], prob: Tensor) -> Tensor:
        if prefix[-1:] == [EOS_ID] or len(prefix) == max_steps:
            return prob * reward(prefix)
        probs = next_log_probs(captioner, image, prefix).exp()
        allowed = [token for token, one in enumerate(probs.tolist()) if one > 0]
        return sum(total([*prefix, token], prob * probs[token]) for token in allowed)

    return total([], torch.tensor(1.0))
