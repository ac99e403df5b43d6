"""Released VirTex checkpoints to ours, and back.

A released file is {"model": state dict, ...} or a bare state dict; its names may begin with
`module.`, as data-parallel training leaves them, and old files lack BatchNorm's counters. It holds
a weight that several modules share once for each of them, and cross-attention's three projections
as one matrix.

Mind: pre-norm is told from post-norm by the final LayerNorm, which every known pre-norm file has.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError, listing
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.state_dict import COUNTER, differences
from virtex.models.textual_head import HeadConfig
from virtex.zoo.init import Opened

Kind = Literal["bicaptioning", "captioning", "classification", "backbone"]
"""What names tell: a masked language model has those of forward captioning, and token
classification those of multi-label classification."""
CNN = "visual.cnn."
CAPTIONER = "captioner."
"""What stands before a Captioner's names in the state dict of a task that trains one."""
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
"""Parts of a Captioner's names to theirs, replaced in this order."""


class Classifier(nn.Module):
    """A linear layer on the pooled grid: released token and multi-label classification."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.output = nn.Linear(backbone.num_channels, num_classes)

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised, to a score for each class (B, V)."""
        return self.output(self.backbone.pooled(images))


def released_kind(state: Mapping[str, Tensor], path: Path) -> Kind:
    """What a released state dict holds, by its names.

    Raises:
        CheckpointError: Nothing that was released.
    """
    if any(name.startswith("backward_textual.") for name in state):
        return "bicaptioning"
    textual = [name for name in state if name.startswith("textual.")]
    if any(not name.startswith("textual.output.") for name in textual):
        return "captioning"
    if textual:
        return "classification"
    if "conv1.weight" in state or f"{CNN}conv1.weight" in state:
        return "backbone"
    raise CheckpointError(
        f"{path} holds no released model: found {listing(state)}; expected {CNN}* with textual.*, "
        "or a ResNet alone."
    )


def load_released(opened: Opened) -> Captioner:
    """Return the captioning model of an opened released file, on the CPU, in evaluation mode.

    Sizes are inferred from shapes, but for the number of attention heads, which follows the rule
    that all released models keep: hidden_size / 64. A masked language model has the names of a
    forward captioning model and loads as one.

    Raises:
        CheckpointError: Not a released captioning model, or another one than INIT names; or weights
            are missing, too many, of another shape, or contradict each other.
    """
    released, path = opened.state, opened.path
    kind = released_kind(released, path)
    if kind not in ("bicaptioning", "captioning"):
        raise CheckpointError(
            f"{path} holds no released captioning model, but a {kind} model: its keys are "
            f"{listing(released)}. Classification models and bare backbones write no captions; "
            "they serve as backbones only."
        )
    captioner = _build(opened)
    _check_published(captioner, opened)
    _fill(captioner, opened)
    return captioner.eval()


def load_released_classifier(opened: Opened) -> Classifier:
    """Return the classification model of an opened released file, in evaluation mode.

    A row of the output belongs to each token id, or, in multi-label classification, to each of
    COCO's 80 classes, after a row 0 that stands for none.

    Raises:
        CheckpointError: Not a released classification model; or weights are missing, too many or
            of another shape.
    """
    released, path = opened.state, opened.path
    kind = released_kind(released, path)
    if kind != "classification" or "textual.output.weight" not in released:
        raise CheckpointError(
            f"{path} holds no released classification model: found {listing(released)} ({kind}); "
            f"expected {CNN}*, textual.output.weight and textual.output.bias."
        )
    classifier = Classifier(Backbone(opened.backbone), len(released["textual.output.weight"]))
    _fill(classifier, opened)
    return classifier.eval()


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the released names.

    Args:
        state: Of a Captioner, a Classifier, a Backbone, or a task whose parts bear their names. A
            backbone alone gets torchvision's names, as its released file has them.

    Raises:
        CheckpointError: Names that have no place in the released layout.
    """
    return {
        theirs: state[ours[0]] if len(ours) == 1 else torch.cat([state[name] for name in ours])
        for theirs, ours in released_layout(state).items()
    }


def released_layout(names: Iterable[str]) -> dict[str, list[str]]:
    """Released names to ours, of which several may be stacked in one: queries, keys, values."""
    names = sorted(names, key=lambda name: ".key_value." in name)  # weights files are alphabetical
    bidirectional = any(".decoders.1." in name for name in names)
    layout: dict[str, list[str]] = {}
    strangers = []
    for name in names:
        found = _released_names(name.removeprefix(CAPTIONER), bidirectional=bidirectional)
        strangers += [] if found else [name]
        for theirs in found:
            layout.setdefault(theirs, []).append(name)
    if strangers:
        raise CheckpointError(
            f"{listing(strangers)} have no place in the released layout, which holds a captioning, "
            "masked language or classification model, or a backbone alone."
        )
    return layout


def _released_names(name: str, *, bidirectional: bool) -> list[str]:
    """Where the released model holds what we call `name`: more than once if it is shared."""
    if name in ("output.weight", "output.bias"):
        return [f"textual.{name}"]
    if name.startswith("cnn."):
        return [name.removeprefix("cnn.")]
    if not name.startswith(("backbone.cnn.", "head.")):
        return []
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    names = [name]
    if name == "textual.embedding.words.weight":
        names.append("textual.output.weight")
    if bidirectional and name.startswith("textual.") and ".transformer." not in name:
        names += [f"backward_{name}" for name in names]
    return names


def _build(opened: Opened) -> Captioner:
    """Return a captioner of the sizes that the released shapes tell."""
    released, path = opened.state, opened.path
    layers = {
        name.split(".")[3] for name in released if name.startswith("textual.transformer.layers.")
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
    except KeyError as error:
        raise CheckpointError(f"{path} is no whole released model: missing {error}") from error
    except (ConfigError, ValueError, TypeError) as error:  # TypeError: len of a scalar
        raise CheckpointError(f"{path} is no whole released model: {error}") from error
    bidirectional = any(name.startswith("backward_textual.") for name in released)
    return Captioner(Backbone(opened.backbone), head, vocab_size, bidirectional=bidirectional)


def _check_published(captioner: Captioner, opened: Opened) -> None:
    """Refuse a file that holds another captioning model than the published one of INIT's name."""
    published = opened.published
    if published is None or published.head is None:
        return
    kind = "bicaptioning" if captioner.bidirectional else "captioning"
    head, wanted = captioner.config, published.head
    found = f"{kind} {opened.backbone.name} L{head.num_layers} H{head.hidden_size}"
    expected = (
        f"{published.kind} {published.backbone.name} L{wanted.num_layers} H{wanted.hidden_size}"
    )
    if found != expected:
        raise CheckpointError(
            f"{opened.path} holds another model than {published.name}: found {found}; expected "
            f"{expected}. Remove it to fetch it again."
        )


def _fill(model: nn.Module, opened: Opened) -> None:
    """Put released weights into a model whose layout they must have.

    Raises:
        CheckpointError: Names or shapes differ, or two copies of a weight that the model shares.
    """
    released, path = opened.state, opened.path
    state = model.state_dict()
    layout = released_layout(state)
    expected = {
        theirs: _stacked_shape([state[name] for name in ours])
        for theirs, ours in layout.items()
        if theirs in released or not theirs.endswith(COUNTER)  # which old files lack
    }
    problems = differences(expected, {name: tuple(value.shape) for name, value in released.items()})
    if problems:
        raise CheckpointError(f"{path} is no whole released model: {problems}")
    for theirs, ours in layout.items():
        if theirs not in expected:
            continue
        sizes = [len(state[name]) for name in ours] if len(ours) > 1 else []
        parts = released[theirs].split(sizes) if sizes else [released[theirs]]
        state |= zip(ours, parts, strict=True)
    copies = to_released(state)
    differing = [n for n in expected if not torch.equal(copies[n], released[n].to(copies[n].dtype))]
    if differing:
        raise CheckpointError(
            f"{path}: weights that the model shares differ from their other copy: "
            f"{listing(differing)}"
        )
    model.load_state_dict(state)


def _stacked_shape(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Of tensors one below the other, or of one alone."""
    first = tuple(tensors[0].shape)
    return first if len(tensors) == 1 else (sum(map(len, tensors)), *first[1:])
