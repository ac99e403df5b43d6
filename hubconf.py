"""VirTex backbones for torch.hub: needs torch and torchvision alone.

    model = torch.hub.load(".", "resnet50", source="local", pretrained=True)

Each entry gives a torchvision ResNet that ends at its last grid: images (B, 3, H, W), normalised by
ImageNet's mean and deviation, become features (B, 2048, 7, 7) at 224 pixels. Parameters have
torchvision's names; `avgpool` and `fc` are nn.Identity.
"""

import os
import pickle

import torch
import torchvision

dependencies = ["torch", "torchvision"]

_ADDRESS = "https://www.dropbox.com/s/"
_PREFIXES = ("encoder_q.", "visual.cnn.", "")
"""What stands before `conv1.weight` in MoCo's, VirTex's and torchvision's files."""


def resnet50(pretrained: bool = False, weights: str | None = None, **kwargs):
    """ResNet-50; the published one learned bicaptioning with a head of L1 H2048.

    Args:
        pretrained: Fetch the weights that the VirTex project published; at random otherwise.
        weights: Instead, a .pth file or its http(s) address: a state dict with torchvision's names,
            or a released VirTex or MoCo checkpoint of this architecture.
        kwargs: Passed to torchvision's ResNet.
    """
    published = "pxgjxcva7oypf12/backbone_bicaptioning_R_50_L1_H2048.pth?dl=1"
    return _filled(_GridResNet([3, 4, 6, 3], **kwargs), pretrained, weights, published)


def resnet101(pretrained: bool = False, weights: str | None = None, **kwargs):
    """ResNet-101; the published one learned bicaptioning with a head of L1 H1024.

    Args:
        pretrained, weights, kwargs: As of `resnet50`.
    """
    published = "bb74jubt68cpn80/bicaptioning_R_101_L1_H1024.pth?dl=1"
    return _filled(_GridResNet([3, 4, 23, 3], **kwargs), pretrained, weights, published)


def wide_resnet50_2(pretrained: bool = False, weights: str | None = None, **kwargs):
    """ResNet-50 of twice the width; the published one learned bicaptioning with a head of L1 H1024.

    Args:
        pretrained, weights, kwargs: As of `resnet50`.
    """
    published = "5o198ux709r6376/bicaptioning_R_50W2X_L1_H1024.pth?dl=1"
    model = _GridResNet([3, 4, 6, 3], width_per_group=128, **kwargs)
    return _filled(model, pretrained, weights, published)


class _GridResNet(torchvision.models.ResNet):
    """torchvision's own forward flattens the grid, even without pooling and classifier."""

    def __init__(self, layers: list[int], **kwargs) -> None:
        options = {"zero_init_residual": True, **kwargs}
        super().__init__(torchvision.models.resnet.Bottleneck, layers, **options)
        self.avgpool, self.fc = torch.nn.Identity(), torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 2048, h, w)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(features))))


def _filled(model, pretrained, weights, published):
    if pretrained and weights is not None:
        raise ValueError("give pretrained=True or weights=..., not both")
    source = _ADDRESS + published if pretrained else weights
    if source is not None:
        _load(model, _read(os.fspath(source)), source)
    return model


def _read(source):
    """What a file or an address holds; nothing in it is run."""
    is_address = source.startswith(("http://", "https://"))
    try:
        if is_address:
            return torch.hub.load_state_dict_from_url(source, map_location="cpu", weights_only=True)
        return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        hint = ". Fetch it where there is a network, and give the file as weights=PATH"
        raise RuntimeError(f"cannot read {source}: {error}{hint if is_address else ''}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        kept = f"{torch.hub.get_dir()}/checkpoints" if is_address else source
        raise RuntimeError(
            f"{source} is damaged, or holds more than weights: {error}\nRemove it ({kept}), and "
            "fetch it again."
        ) from error


def _load(model, values, source):
    """Fill a network from a bare or wrapped state dict, strictly but for a classifier."""
    for wrapper in ("model", "state_dict"):
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict):
        raise RuntimeError(f"{source} holds a {type(values).__name__}, not a state dict")
    state = {name.removeprefix("module."): value for name, value in values.items()}
    prefix = next((p for p in _PREFIXES if f"{p}conv1.weight" in state), "")
    state = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    own = model.state_dict()
    counters = {name: value for name, value in own.items() if "num_batches_tracked" in name}
    state = {**counters, **state}  # files from before PyTorch 0.4.1 have no counters
    problems = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "of another shape": {
            n for n in own.keys() & state.keys() if _shape(state[n]) != own[n].shape
        },
    }
    found = "; ".join(f"{kind}: {', '.join(sorted(n)[:3])}" for kind, n in problems.items() if n)
    if found:
        raise RuntimeError(f"{source} holds another network: {found}")
    model.load_state_dict(state)


def _shape(value):
    return getattr(value, "shape", None)
