"""Released VirTex checkpoints, converted to this package's layout and back.

A released file is {"model": state dict, ...} or a bare state dict. Its names may have the prefix
`module.` of data-parallel training, and old files lack BatchNorm's counters. A weight that several
modules share occurs once for each of them, and the three projections of cross-attention are one
matrix.

A file is taken as pre-norm if it has a final LayerNorm, as every known pre-norm file does.
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

ReleasedKind = Literal["bicaptioning", "captioning", "classification", "backbone"]
"""Kinds of models whose names differ. A masked language model has the names of forward captioning,
and token classification those of multi-label classification."""
CNN = "visual.cnn."
CAPTIONER = "captioner."
"""Prefix of a Captioner's names in the state dict of a task."""
OTHER_TASK = (
    ". Set backbone, task, its head and the vocabulary as they were when the file was trained, or "
    "leave init_parts out to start from its backbone alone."
)
"""Remedy for a file of another task or size than the options say."""
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
"""Parts of our names and of the released ones, to be replaced in this order."""


class Classifier(nn.Module):
    """Released model of token or multi-label classification: a linear layer on the pooled grid."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.output = nn.Linear(backbone.num_channels, num_classes)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, V) of V classes for normalised images (B, 3, H, W)."""
        return self.output(self.backbone.pooled(images))


def released_kind(state: Mapping[str, Tensor], path: Path) -> ReleasedKind:
    """Return the kind of model that a released state dict holds, by its names.

    Raises:
        CheckpointError: The names are of no released model.
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

    Sizes are inferred from shapes. The number of attention heads is hidden_size / 64, as in all
    released models. A masked language model has the names of a forward captioning model and loads
    as one.

    Raises:
        CheckpointError: The file holds no captioning model, or another one than INIT names; or
            weights are missing, unexpected, of another shape, or contradictory.
    """
    released, path = opened.state, opened.path
    kind = released_kind(released, path)
    if kind not in ("bicaptioning", "captioning"):
        raise CheckpointError(
            f"{path} holds no released captioning model, but a {kind} model: its keys are "
            f"{listing(released)}. Classification models and bare backbones write no captions; "
            "load_backbone takes their backbone."
        )
    captioner = _build(opened)
    _check_published(captioner, opened)
    _fill(captioner, opened)
    return captioner.eval()


def load_released_classifier(opened: Opened) -> Classifier:
    """Return the classification model of an opened released file, in evaluation mode.

    Its outputs are the token ids or, in multi-label classification, COCO's 80 classes from index 1,
    with index 0 unused.

    Raises:
        CheckpointError: The file holds no classification model; or weights are missing, unexpected
            or of another shape.
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
    """Return a state dict in the released layout.

    Args:
        state: State dict of a Captioner, a Classifier, a Backbone, or a task with the same names. A
            backbone alone gets torchvision's names, as in its released file.

    Raises:
        CheckpointError: The released layout has no equivalent of a name.
    """
    return {
        theirs: state[ours[0]] if len(ours) == 1 else torch.cat([state[name] for name in ours])
        for theirs, ours in released_layout(state).items()
    }


def released_layout(names: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each released name, our names of the weights that it stacks.

    Queries, keys and values are stacked in one matrix.
    """
    names = sorted(names, key=lambda name: ".key_value." in name)  # queries come first
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
            f"{listing(strangers)} have no equivalent in the released layout, which is of a "
            "captioning, masked language or classification model, or a backbone alone."
        )
    return layout


def _released_names(name: str, *, bidirectional: bool) -> list[str]:
    """Return the released names of our weight: several if released modules share it."""
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
    """Return a captioner with sizes inferred from the released shapes."""
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
    """Check that the captioner has the architecture of the published model that INIT names."""
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
            f"{expected}. Remove it to download it again."
        )


def load_released_task(task: nn.Module, opened: Opened) -> None:
    """Load the model of an opened released file into a pretext task, backbone and head.

    Raises:
        CheckpointError: The file holds no released model, a backbone alone, or a model of another
            task or of other sizes.
    """
    if released_kind(opened.state, opened.path) == "backbone":
        raise CheckpointError(
            f"{opened.path} holds a backbone alone, not a whole task: leave init_parts out to "
            "start from it."
        )
    _fill(task, opened, remedy=OTHER_TASK)


def _fill(model: nn.Module, opened: Opened, *, remedy: str = "") -> None:
    """Load released weights into a model.

    Args:
        remedy: End of the message about names and shapes that differ.

    Raises:
        CheckpointError: Names or shapes differ, or the copies of a shared weight do.
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
        raise CheckpointError(f"{path} is no whole released model: {problems}{remedy}")
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
    """Return the shape of tensors stacked along the first dimension."""
    first = tuple(tensors[0].shape)
    return first if len(tensors) == 1 else (sum(map(len, tensors)), *first[1:])
