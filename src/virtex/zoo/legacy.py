"""Released VirTex checkpoints to ours, and back.

A released file is {"model": state dict, ...} or a bare state dict. It holds a weight that several
modules share once for each of them, and cross-attention's three projections as one matrix.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from virtex.errors import CheckpointError, ConfigError, listing
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.zoo.published import backbone_state, infer_resnet

RENAMED = {
    "backbone.": "visual.",
    "head.decoders.0.": "textual.transformer.",
    "head.decoders.1.": "backward_textual.transformer.",
    "head.output_bias": "textual.output.bias",
    "head.": "textual.",
    "self_attention.in_projection.": "self_attn.in_proj_",
    "self_attention.out_projection.": "self_attn.out_proj.",
    "grid_attention.query.": "multihead_attn.in_proj_",
    "grid_attention.key_value.": "multihead_attn.in_proj_",
    "grid_attention.out_projection.": "multihead_attn.out_proj.",
    "feedforward.expand.": "linear1.",
    "feedforward.contract.": "linear2.",
    "self_norm.": "norm1.",
    "grid_norm.": "norm2.",
    "feedforward_norm.": "norm3.",
}
"""Parts of our names to theirs, replaced in this order."""


def load_released(checkpoint: Mapping[str, Any], path: Path) -> Captioner:
    """The model that a released file holds, on the CPU, in evaluation mode.

    Sizes are inferred from shapes, but for the number of attention heads, which follows the rule
    that all released models keep: hidden_size / 64. A masked language model has the names of a
    forward captioning model and loads as one.

    Args:
        checkpoint: What the file holds.
        path: The file, for messages.

    Raises:
        CheckpointError: Not a released captioning model; or weights are missing, too many, of
            another shape, or contradict each other.
    """
    released = checkpoint.get("model", checkpoint)
    if "textual.visual_projection.weight" not in released:
        raise CheckpointError(
            f"{path} holds no released captioning model: its keys are {listing(released)}. "
            "Released classification models and bare backbones serve as backbones only."
        )
    captioner = _build(released, path)
    layout = released_layout(captioner.state_dict())
    _check_names(expected=layout, found=released, path=path)
    state = captioner.state_dict()
    try:
        for theirs, ours in layout.items():
            sizes = [len(state[name]) for name in ours] if len(ours) > 1 else []
            parts = released[theirs].split(sizes) if sizes else [released[theirs]]
            state |= zip(ours, parts, strict=True)
        captioner.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is no whole released model: {error}") from error
    _check_copies(captioner.state_dict(), released, path)
    return captioner.eval()


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Captioner's state dict under the released names."""
    return {
        theirs: state[ours[0]] if len(ours) == 1 else torch.cat([state[name] for name in ours])
        for theirs, ours in released_layout(state).items()
    }


def released_layout(names: Iterable[str]) -> dict[str, list[str]]:
    """Released names to those of a Captioner, of which several may be stacked in one."""
    names = list(names)
    bidirectional = any(name.startswith("head.decoders.1.") for name in names)
    layout: dict[str, list[str]] = {}
    for name in names:
        for theirs in _released_names(name, bidirectional=bidirectional):
            layout.setdefault(theirs, []).append(name)
    return layout


def _released_names(name: str, *, bidirectional: bool) -> list[str]:
    """Where the released model holds what we call `name`: more than once if it is shared."""
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    names = [name]
    if name == "textual.embedding.words.weight":
        names.append("textual.output.weight")
    if bidirectional and name.startswith("textual.") and ".transformer." not in name:
        names += [f"backward_{name}" for name in names]
    return names


def _build(released: Mapping[str, Tensor], path: Path) -> Captioner:
    """A captioner of the sizes that the released shapes tell."""
    names = list(released)
    layers = {
        name.split(".")[3] for name in names if name.startswith("textual.transformer.layers.")
    }
    try:
        vocab_size, hidden_size = released["textual.embedding.words.weight"].shape
        head = HeadConfig(
            hidden_size=hidden_size,
            num_layers=len(layers),
            feedforward_size=len(released["textual.transformer.layers.0.linear1.weight"]),
            norm="pre" if "textual.transformer.norm.weight" in released else "post",
            max_tokens=len(released["textual.embedding.positions.weight"]),
        )
    except (KeyError, ConfigError) as error:
        raise CheckpointError(f"{path} is no whole released model: {error}") from error
    backbone = Backbone(infer_resnet(backbone_state(dict(released), path), path))
    bidirectional = any(name.startswith("backward_textual.") for name in names)
    return Captioner(backbone, head, vocab_size, bidirectional=bidirectional)


def _check_names(*, expected: Iterable[str], found: Iterable[str], path: Path) -> None:
    missing, unexpected = set(expected) - set(found), set(found) - set(expected)
    if missing or unexpected:
        raise CheckpointError(
            f"{path} is no whole released model: missing {listing(sorted(missing)) or 'nothing'}; "
            f"unexpected {listing(sorted(unexpected)) or 'nothing'}"
        )


def _check_copies(state: Mapping[str, Tensor], released: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file where the copies of a shared weight differ: one would be lost in silence."""
    differing = [
        name for name, value in to_released(state).items() if not torch.equal(value, released[name])
    ]
    if differing:
        raise CheckpointError(
            f"{path}: weights that the model shares differ from their other copy: "
            f"{listing(differing)}"
        )
