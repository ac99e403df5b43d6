"""The released models in plain torch and torchvision: parameters bear the released names."""

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.oracles.textual_head import PaddedHead, reversed_captions
from virtex.models.textual_head import HeadConfig

CLASSIFICATION = ("token_classification", "multilabel_classification")
STAGES = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class ReleasedModel(nn.Module):
    def __init__(self, kind: str, *, head: HeadConfig, vocab_size: int, cnn: str) -> None:
        super().__init__()
        self.kind = kind
        self.visual = nn.Module()
        self.visual.cnn = getattr(torchvision.models, cnn)()
        num_channels = self.visual.cnn.fc.in_features
        self.visual.cnn.fc = nn.Identity()
        if kind in CLASSIFICATION:
            self.textual = nn.Module()
            self.textual.output = nn.Linear(num_channels, vocab_size)
            return
        self.textual = PaddedHead(num_channels, head, vocab_size)
        if kind == "bicaptioning":
            self.backward_textual = PaddedHead(num_channels, head, vocab_size)
            for name in ("visual_projection", "embedding", "output"):
                setattr(self.backward_textual, name, getattr(self.textual, name))

    @torch.no_grad()
    def scramble(self) -> "ReleasedModel":
        """Values far from where training starts, in evaluation mode."""
        torch.manual_seed(0)
        for name, value in self.state_dict().items():
            if value.dim() == 1:  # norms, biases and statistics
                value.uniform_(0.5, 1.5)
            elif value.dim() == 2:
                value.normal_(std=0.05)
            if name.endswith("bn2.weight"):
                value.mul_(0.3)
        return self.eval()

    def grid(self, images: Tensor) -> Tensor:
        for stage in STAGES:
            images = getattr(self.visual.cnn, stage)(images)
        return images

    def class_logits(self, images: Tensor) -> Tensor:
        features = self.grid(images).flatten(2).mean(2)
        return features @ self.textual.output.weight.T + self.textual.output.bias

    def class_loss(self, images: Tensor, targets: list[list[int]]) -> Tensor:
        """Minus the mean log-probability of each image's classes, averaged over images."""
        rows = self.class_logits(images).log_softmax(1)
        losses = [-row[own].mean() for row, own in zip(rows, targets, strict=True)]
        return torch.stack(losses).mean()

    def caption_loss(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        grid = self.grid(images)
        readings = [(self.textual, tokens)]
        if self.kind == "bicaptioning":
            readings.append((self.backward_textual, reversed_captions(tokens, lengths)))
        return sum(
            _loss(head(grid, reading, lengths)[:, :-1], reading[:, 1:])
            for head, reading in readings
        )

    def mask_logits(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.textual(self.grid(images), tokens, lengths, is_causal=False)

    def mask_loss(self, images: Tensor, tokens: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        return _loss(self.mask_logits(images, tokens, lengths), targets)

    def next_token(self, grid: Tensor, prefix: list[int]) -> list[float]:
        """Log-probabilities of the token after `prefix`, for a grid (1, C, h, w)."""
        tokens = torch.tensor([prefix])
        logits = self.textual(grid, tokens, torch.tensor([len(prefix)]))
        return logits[0, -1].double().log_softmax(0).tolist()


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0)
