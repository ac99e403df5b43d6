"""A captioner small enough to be tested fast, and a batch of captions of unequal length."""

import torch
from torch import Tensor

from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig

VOCAB_SIZE = 40
MAX_TOKENS = 10
SLIM = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


def small_captioner(norm="post", *, seed=0, bidirectional=True, dropout=0.0, **head) -> Captioner:
    """In evaluation mode, and far from where training starts, so that small errors show."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "num_layers": 2, "num_heads": 3, "max_tokens": MAX_TOKENS} | head
    captioner = Captioner(
        Backbone(BackboneConfig("resnet18", options=SLIM)),
        HeadConfig(norm=norm, dropout=dropout, **sizes),
        VOCAB_SIZE,
        bidirectional=bidirectional,
    )
    with torch.no_grad():
        for parameter in captioner.head.parameters():
            parameter.normal_(std=0.3)
        captioner.head.embedding.words.weight[0] = 0
        for name, parameter in captioner.backbone.named_parameters():
            if "bn" in name:
                parameter.uniform_(0.5, 1.5)
    return captioner.eval()


def small_batch(seed=0) -> tuple[Tensor, Tensor, Tensor]:
    """Images (4, 3, 64, 96), tokens (4, 9) and lengths (4,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4, 3, 64, 96, generator=generator)
    tokens = torch.randint(4, VOCAB_SIZE, (4, 9), generator=generator)
    lengths = torch.tensor([6, 9, 2, 5])
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        row[0], row[length - 1], row[length:] = 1, 2, 0
    return images, tokens, lengths
