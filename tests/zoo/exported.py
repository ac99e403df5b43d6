"""Runs as training leaves them, and exports of them."""

from dataclasses import dataclass

import torch
import torchvision
from torch import nn

from virtex.config import to_dict
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.zoo.export import ExportConfig, export
from virtex.zoo.weights_file import save_weights

SLIM = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})


SLIM_VIT = BackboneConfig(
    "vit_tiny_patch16_224", options={"depth": 1, "embed_dim": 24, "num_heads": 3}
)


SLIM_CONVNEXT = BackboneConfig(
    "convnext_atto", options={"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
)


SIZE = 64


@dataclass(frozen=True)
class Run:
    """A run folder, and what it holds."""

    folder: str
    task: nn.Module


def scramble(module):
    """Weights and statistics of no special values: timm starts some at zero."""
    torch.manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) if "var" in name else 0.2 * torch.randn_like(value))
    return module.eval()


def write_run(folder, backbone=SLIM, *, head=None, step=30, kind=CaptioningConfig):
    """A run folder as training leaves it, on data at an absolute path."""
    tokenizer = train_tokenizer(["a red ball on a table", "two dogs"], vocab_size=40)
    image = ImageConfig(size=SIZE)
    options = kind(head=head or HeadConfig(64, max_tokens=7))
    task = scramble(options.build(Backbone(backbone), TaskData(image, tokenizer)))
    config = {
        "out": str(folder),
        "data": {"source": "coco", "root": "/home/someone/COCO", "share": 0.5, "val_root": None},
        "tokenizer": {"tokenizer_path": "/home/someone/tokenizer.model"},
        "image": to_dict(image),
        "backbone": to_dict(backbone),
        "task": {"class_path": kind.__name__, "init_args": to_dict(options)},
        "run": {"batch_size": 16, "num_steps": 30},
    }
    save_weights(
        folder / "weights.safetensors",
        task.state_dict(),
        config=config,
        tokenizer=tokenizer,
        step=step,
    )
    return Run(str(folder), task)


def images(batch_size=2, size=SIZE):
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def grid_of(backbone, inputs=None):
    return backbone.eval()(images() if inputs is None else inputs)


def exported(init, format, out, **options):
    return export(ExportConfig(init=str(init), format=format, out=out, **options))


def read_torch(path):
    return torch.load(path, weights_only=True)


def torchvision_resnet(name):
    resnet = getattr(torchvision.models, name)()
    resnet.fc = nn.Identity()
    return resnet.eval()


def same(state, other):
    return state.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in state.items()
    )
