"""EfficientNet-Lite's weights under EfficientNet-PyTorch's names, for timm's networks.

EfficientNet-PyTorch (Melas-Kyriazi) numbers all blocks, timm those of each stage, which are the
blocks of one width. Its weights for Lite are converted from TensorFlow's: of timm's networks they
are of those with TensorFlow's padding and epsilon, `tf_efficientnet_lite*`, for images normalized
by a mean and deviation of one half.
"""

import re
from collections.abc import Mapping
from itertools import groupby

from torch import Tensor

BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
NETWORKS = {
    # number of blocks, width of the last one
    (16, 320): "tf_efficientnet_lite0",
    (21, 320): "tf_efficientnet_lite1",
    (21, 352): "tf_efficientnet_lite2",
    (24, 384): "tf_efficientnet_lite3",
    (30, 448): "tf_efficientnet_lite4",
}
ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
"""timm's names of the layers outside the blocks."""
EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""timm's names of the layers of a block with an expansion, and of one without."""


def from_efficientnet_pytorch(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """Return timm's name of an EfficientNet-Lite and its state dict; None if it is none.

    A layer that Lite does not have keeps its name, so that loading names it.
    """
    widths: list[int] = []
    while (name := f"_blocks.{len(widths)}._project_conv.weight") in state and state[name].dim():
        widths.append(len(state[name]))
    network = NETWORKS.get((len(widths), widths[-1])) if widths else None
    if network is None:
        return None
    stages = [range(len(list(group))) for _, group in groupby(widths)]
    places = [f"{stage}.{block}" for stage, blocks in enumerate(stages) for block in blocks]
    return network, {_timm_name(name, places, state): value for name, value in state.items()}


def _timm_name(name: str, places: list[str], state: Mapping[str, Tensor]) -> str:
    """Return timm's name of a weight.

    Args:
        places: Stage and number of each block, as in timm's names.
    """
    if match := BLOCK.fullmatch(name):
        number, layer, kind = int(match[1]), match[2], match[3]
        names = EXPANDED if f"_blocks.{number}._expand_conv.weight" in state else SEPARABLE
        if number < len(places) and layer in names:
            return f"blocks.{places[number]}.{names[layer]}.{kind}"
    layer, _, kind = name.partition(".")
    return f"{ENDS[layer]}.{kind}" if layer in ENDS else name
