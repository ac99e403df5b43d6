"""A contrastively trained run in the layout of open_clip.

Its text tower is the same Transformer as this package's (pre-norm, causal, exact GELU, the output
at the end token), its image tower takes timm's networks with their mean over cells, and both have
a projection without bias: so vectors are equal to rounding. What its config cannot say is refused.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError
from virtex.imagenet import IMAGENET_MEAN, IMAGENET_STD
from virtex.models.backbone import Backbone, native_size
from virtex.models.text_encoder import TextEncoderConfig
from virtex.tasks.contrastive import FIRST_BIAS, ContrastiveConfig
from virtex.zoo.export.model import Model
from virtex.zoo.export.shared_tokenizer import SharedTokenizer, share
from virtex.zoo.export.writing import save_tensors
from virtex.zoo.hub import HUB

CONFIG_NAME, WEIGHTS_NAME = "open_clip_config.json", "open_clip_model.safetensors"
NAMES = (CONFIG_NAME, WEIGHTS_NAME, "tokenizer.json", "tokenizer_config.json")
TOLERANCE = 1e-5
"""Largest allowed difference of the image tower's features, absolute and relative."""
LAYER = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "linear1",
    "mlp.c_proj": "linear2",
}
"""Parts of a layer in open_clip, each with weight and bias, and here."""


@dataclass(frozen=True)
class OpenClip:
    """What open_clip reads."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    texts: dict[str, str]
    """Contents of the tokenizer's files, by name."""

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        config = json.dumps(self.config, indent=2)
        for name, text in (self.texts | {CONFIG_NAME: config}).items():
            (folder / name).write_text(text + "\n", encoding="utf-8")
        save_tensors(self.state, folder / WEIGHTS_NAME)


def is_contrastive(model: Model) -> bool:
    """Return whether a model is a contrastively trained run, the one kind that has a layout."""
    return model.is_run and isinstance(model.opened.trained.task, ContrastiveConfig)


def open_clip_layout(model: Model, repository: str | None) -> OpenClip:
    """Return a contrastively trained run as open_clip has it.

    Args:
        repository: Repository of the Hugging Face hub, OWNER/NAME, that it will lie in.

    Raises:
        ConfigError: The layout cannot express the run, or the package tokenizers is missing.
        CheckpointError: The run's weights are incomplete.
    """
    task, tokenizer = model.opened.trained.task, model.opened.tokenizer
    assert isinstance(task, ContrastiveConfig), "the caller has checked it"
    if tokenizer is None:
        raise CheckpointError(f"{model.opened.path} has no vocabulary.")
    if not task.text.causal:
        raise ConfigError(
            "its text tower attends to the whole caption (text.causal: false), and open_clip's "
            "would attend to the padding as well"
        )
    network = image_tower(model.backbone, image_size=model.image.size)
    shared = share(tokenizer)
    try:
        state = _state(model.opened.state, network, task.text, shared)
    except KeyError as error:
        raise CheckpointError(f"{model.opened.path} is no whole run: missing {error}.") from error
    return OpenClip(
        _config(model, task, shared, repository),
        state,
        shared.files(max_tokens=task.text.max_tokens),
    )


def image_tower(backbone: Backbone, *, image_size: int) -> nn.Module:
    """Return timm's network that ends with the mean over cells, as open_clip makes it.

    Raises:
        ConfigError: It computes something else than the backbone's pooled features.
    """
    network = copy.deepcopy(backbone.cnn).eval()
    shape = (2, 3, image_size, image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        network.reset_classifier(0, global_pool="avg")
        with torch.no_grad():
            expected = backbone.eval().pooled(images)  # (2, C)
            found = network(backbone.renormalize(images))
        is_same = torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    except (AttributeError, TypeError, RuntimeError, AssertionError):  # of timm's networks
        is_same = False
    if not is_same:
        raise ConfigError(
            f"open_clip's mean over the grid of {backbone.config.name!r} is another one: its "
            "network normalizes or transforms what was averaged, which was not trained"
        )
    return network


def _config(
    model: Model, task: ContrastiveConfig, shared: SharedTokenizer, repository: str | None
) -> dict[str, Any]:
    text = task.text
    values = {
        "embed_dim": task.embedding_size,
        "vision_cfg": {
            "timm_model_name": _network_name(model, repository),
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": model.image.size,
        },
        "text_cfg": {
            "context_length": text.max_tokens,
            "vocab_size": len(shared.rows),
            "hf_tokenizer_name": repository or ".",
            "width": text.hidden_size,
            "heads": text.heads,
            "layers": text.num_layers,
            "mlp_ratio": _mlp_ratio(text),
            "eos_id": shared.end_id,
            "pool_type": "eos",
        },
        **({"init_logit_bias": FIRST_BIAS} if task.loss == "sigmoid" else {}),
    }
    backbone = model.backbone.config
    images = {
        "mean": backbone.image_mean or IMAGENET_MEAN,
        "std": backbone.image_std or IMAGENET_STD,
        "interpolation": "bilinear",
    }
    return {"model_cfg": values, "preprocess_cfg": {**images, "resize_mode": "shortest"}}


def _network_name(model: Model, repository: str | None) -> str:
    """Return the name by which timm builds the network: its own, or with options the repository."""
    backbone, name = model.backbone, model.backbone.config.name.partition(".")[0]
    takes_any_size = not getattr(backbone.cnn, "dynamic_img_size", False)
    if not backbone.config.options and (takes_any_size or model.image.size == native_size(name)):
        return name
    if repository is None:
        raise ConfigError(
            f"its network {name!r} has options or an image size that open_clip can read from a "
            "repository of the hub alone: give --push OWNER/NAME"
        )
    return f"{HUB}{repository}"


def _mlp_ratio(text: TextEncoderConfig) -> float:
    ratio = text.feedforward / text.hidden_size
    if int(text.hidden_size * ratio) != text.feedforward:
        raise ConfigError(
            f"text.feedforward_size {text.feedforward} is no multiple of text.hidden_size "
            f"{text.hidden_size} that open_clip can write"
        )
    return ratio


def _state(
    state: Mapping[str, Tensor],
    network: nn.Module,
    text: TextEncoderConfig,
    shared: SharedTokenizer,
) -> dict[str, Tensor]:
    """Return the state dict of open_clip's CLIP."""
    words, encoder = state["text_encoder.words.weight"], "text_encoder.transformer"
    found = {f"visual.trunk.{name}": value for name, value in network.state_dict().items()}
    found |= {
        "visual.head.proj.weight": state["image_projection.weight"],
        "token_embedding.weight": words[torch.tensor(shared.rows)],
        "positional_embedding": state["text_encoder.positions"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": state["log_scale"],
        **({"logit_bias": state["bias"]} if "bias" in state else {}),
    }
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = state[f"{encoder}.norm.{kind}"]
        for layer in range(text.num_layers):
            theirs, ours = f"transformer.resblocks.{layer}", f"{encoder}.layers.{layer}"
            found[f"{theirs}.attn.in_proj_{kind}"] = state[f"{ours}.self_attn.in_proj_{kind}"]
            for part, own in LAYER.items():
                found[f"{theirs}.{part}.{kind}"] = state[f"{ours}.{own}.{kind}"]
    return found
