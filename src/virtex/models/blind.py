"""A backbone that sees nothing, as a control: what a textual head learns from captions alone."""

import torch
from torch import Tensor, nn

from virtex.errors import ConfigError, raise_all

BLIND = "blind"
"""Name of the network among those of timm."""
NUM_CHANNELS = 2048
"""Number of channels, a ResNet-50's."""


class BlindNetwork(nn.Module):
    """A network whose grid is one cell, the same for every image.

    It is the blind backbone of the released code, with one difference: its constant starts at 1 as
    there, but is learned, like the first token of a language model. The textual head's projection
    could learn the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_features = NUM_CHANNELS
        self.pretrained_cfg = {"input_size": (3, 224, 224)}
        self.constant = nn.Parameter(torch.ones(NUM_CHANNELS))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the grid (B, C, 1, 1) of images (B, 3, H, W)."""
        return self.constant[:, None, None].expand(len(images), -1, 1, 1)


def build_blind(*, has_options: bool, pretrained: bool) -> BlindNetwork:
    """Return a network that sees nothing.

    Args:
        has_options: Whether the user gave options of a network.
        pretrained: Whether published weights are requested.

    Raises:
        ConfigError: It has neither.
    """
    no_options = "leave backbone.options and backbone.drop_path out, it has no layers"
    no_weights = "leave backbone.pretrained out, it has no published weights"
    wrong = ((has_options, no_options), (pretrained, no_weights))
    problems = [text for is_given, text in wrong if is_given]
    raise_all(ConfigError, f"the backbone {BLIND!r} sees nothing", problems)
    return BlindNetwork()
