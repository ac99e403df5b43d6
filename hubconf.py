"""VirTex backbones for torch.hub, which need only torch and torchvision.

    model = torch.hub.load(".", "resnet50", source="local", pretrained=True).eval()

Each function returns a torchvision ResNet without pooling and classifier. It maps images
(B, 3, H, W), normalised by ImageNet's mean and standard deviation, to features (B, 2048, h, w).
Parameters have torchvision's names; `avgpool` and `fc` are nn.Identity.
"""

import hashlib
import http.client
import json
import os
import pathlib
import urllib.parse

import torch
import torchvision

dependencies = ["torch", "torchvision"]

_ADDRESS = "https://www.dropbox.com/s/"
_PREFIXES = ("encoder_q.", "visual.cnn.", "")
"""Prefixes of a network's names in files of MoCo, VirTex and torchvision."""
_HUB = "hf-hub:"
_SAFETENSORS = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I64": torch.int64,
}
"""Types of tensors in a .safetensors file."""
_NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""ImageNet's normalization, as a config.json of timm's states it."""
_HARMLESS = (("num_classes", 0), ("in_chans", 3), ("output_stride", 32))
"""Options in a config.json that change nothing here."""
_OLDEST_TORCH = (2, 6)
"""Oldest torch whose weights_only=True runs no code in a file (CVE-2025-32434)."""


def resnet50(pretrained: bool = False, weights: str | None = None, **kwargs):
    """Return a ResNet-50; the published weights are of bicaptioning with a head of L1 H2048.

    Args:
        pretrained: Download the weights that the VirTex project published; by default the weights
            are random.
        weights: Path or http(s) address of other weights: a .pth or .safetensors file of a state
            dict with torchvision's names, or a released VirTex or MoCo checkpoint of this
            architecture; or `hf-hub:OWNER/NAME[@REVISION]`, a public model in timm's layout, whose
            config.json states ImageNet's normalization and no option that computes something else.
        kwargs: Further arguments of torchvision's ResNet.
    """
    published = "pxgjxcva7oypf12/backbone_bicaptioning_R_50_L1_H2048.pth?dl=1"
    return _filled("resnet50", _GridResNet([3, 4, 6, 3], **kwargs), pretrained, weights, published)


def resnet101(pretrained: bool = False, weights: str | None = None, **kwargs):
    """Return a ResNet-101; the published weights are of bicaptioning with a head of L1 H1024.

    Args:
        pretrained, weights, kwargs: See `resnet50`.
    """
    published = "bb74jubt68cpn80/bicaptioning_R_101_L1_H1024.pth?dl=1"
    model = _GridResNet([3, 4, 23, 3], **kwargs)
    return _filled("resnet101", model, pretrained, weights, published)


def wide_resnet50_2(pretrained: bool = False, weights: str | None = None, **kwargs):
    """Return a ResNet-50 of twice the width; published weights: bicaptioning, head of L1 H1024.

    Args:
        pretrained, weights, kwargs: See `resnet50`.
    """
    published = "5o198ux709r6376/bicaptioning_R_50W2X_L1_H1024.pth?dl=1"
    model = _GridResNet([3, 4, 6, 3], width_per_group=128, **kwargs)
    return _filled("wide_resnet50_2", model, pretrained, weights, published)


class _GridResNet(torchvision.models.ResNet):
    """A ResNet without pooling and classifier; torchvision's forward would flatten the grid."""

    def __init__(self, layers: list[int], **kwargs) -> None:
        options = {"zero_init_residual": True, **kwargs}
        super().__init__(torchvision.models.resnet.Bottleneck, layers, **options)
        self.avgpool, self.fc = torch.nn.Identity(), torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the grid (B, 2048, h, w) of images (B, 3, H, W)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(features))))


def _filled(name, model, pretrained, weights, published):
    if pretrained and weights is not None:
        raise ValueError("give pretrained=True or weights=..., not both")
    if pretrained or weights is not None:
        _refuse_old_torch()
    if pretrained:
        path = _fetched(_ADDRESS + published, _basename(published))
    elif weights is not None:
        source = os.fspath(weights)
        if source.startswith(_HUB):
            _check_hub_model(source, name)
            source = _hub_address(source, "model.safetensors")
        is_address = source.startswith(("http://", "https://"))
        path = _fetched(source, _own_name(source)) if is_address else source
    else:
        return model
    _load(model, _read(path), path)
    return model


def _check_hub_model(name, network):
    """Refuse a model of the hub whose config.json states another network or normalization.

    Args:
        name: The model, hf-hub:OWNER/NAME.
        network: Name of the network that takes its weights.
    """
    path = _fetched(address := _hub_address(name, "config.json"), _own_name(address))
    try:
        config = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        images = config.get("pretrained_cfg") or config  # timm's older files are flat
        options = dict(config.get("model_args") or {})
        architecture = str(config.get("architecture") or network).partition(".")[0]
        stated = {key: tuple(images.get(key, usual)) for key, usual in _NORMALIZATION.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RuntimeError(f"{address} states no model of timm's: {error}") from error
    others = {key: value for key, value in options.items() if (key, value) not in _HARMLESS}
    if architecture not in (network, f"tv_{network}"):  # which may have the same names and shapes
        others["architecture"] = architecture
    others |= {key: value for key, value in stated.items() if value != _NORMALIZATION[key]}
    if others:
        raise RuntimeError(
            f"{name} states {others}, and {network} of torchvision has no such options and takes "
            f"images normalised as ImageNet's: load it by virtex.load_backbone({name!r})"
        )


def _hub_address(name, file):
    """Return the address of a model's file on the Hugging Face hub."""
    repository, _, revision = name.removeprefix(_HUB).partition("@")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    revision = urllib.parse.quote(revision or "main", safe="")
    return f"{endpoint}/{urllib.parse.quote(repository)}/resolve/{revision}/{file}"


def _refuse_old_torch():
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST_TORCH:
        raise RuntimeError(
            f"torch {torch.__version__} may run code in a file even with weights_only=True "
            "(CVE-2025-32434): upgrade to torch 2.6 or later to load weights."
        )


def _basename(address):
    return urllib.parse.urlsplit(address).path.rpartition("/")[2]


def _own_name(address):
    """Return a file name that is different for each address: many end in `model.pth`."""
    try:
        name = _basename(address)
    except ValueError as error:
        raise RuntimeError(f"cannot read {address}: {error}") from error
    return f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{name}"


def _fetched(address, name):
    """Return the path in torch.hub's cache of the file at an address, downloaded if necessary."""
    path = pathlib.Path(torch.hub.get_dir(), "checkpoints", name)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RuntimeError(
            f"cannot read {address}: {error}. Fetch it where there is a network, and give the file "
            "as weights=PATH"
        ) from error
    return path


def _read(path):
    """Return the content of a torch or safetensors file, without running code in it."""
    try:
        if os.fspath(path).endswith(".safetensors"):
            return _read_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error}") from error
    except _OtherKindError as error:
        raise RuntimeError(f"{path} {error}") from None
    except Exception as error:  # torch raises many kinds, and some advise to load unsafely
        is_cached = pathlib.Path(path).is_relative_to(torch.hub.get_dir())
        again = "Remove it, so that it is fetched again" if is_cached else "Give another copy of it"
        raise RuntimeError(
            f"{path} is damaged, no torch file, or holds more than weights "
            f"({type(error).__name__}): it was not loaded. {again}, or ask its author for the bare "
            "state dict."
        ) from None


class _OtherKindError(Exception):
    """A whole file that holds something else than a ResNet's weights."""


def _read_safetensors(path):
    """Return the tensors of a file: a length in 8 bytes, that many of JSON, and their data."""
    content = bytearray(pathlib.Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    tensors = {}
    if any(name.startswith("backbone.") for name in entries):
        raise _OtherKindError(
            "is a weights file of virtex, which may state other options of the network: write it "
            "for torchvision by `virtex export FILE --format torchvision --out OUT.pth`"
        )
    for name, entry in entries.items():
        if name != "__metadata__":
            if entry["dtype"] not in _SAFETENSORS:
                kinds = ", ".join(_SAFETENSORS)
                raise _OtherKindError(f"holds {name} of type {entry['dtype']}; allowed is {kinds}")
            begin, end = (start + offset for offset in entry["data_offsets"])
            values = torch.frombuffer(content[begin:end], dtype=_SAFETENSORS[entry["dtype"]])
            tensors[name] = values.view(entry["shape"])
    return tensors


def _load(model, values, source):
    """Load a bare or wrapped state dict, strictly except for a classifier, into a network."""
    for wrapper in ("model", "state_dict"):
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict):
        raise RuntimeError(f"{source} holds a {type(values).__name__}, not a state dict")
    strangers = [repr(name) for name in values if not isinstance(name, str)]
    if strangers:
        raise RuntimeError(f"{source} holds no state dict: found {', '.join(strangers[:3])}")
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
    if not any(problems.values()):
        problems["not of finite floating-point numbers"] = {
            n for n in own if own[n].is_floating_point() and not _has_numbers(state[n])
        }
    found = "; ".join(f"{kind}: {', '.join(sorted(n)[:3])}" for kind, n in problems.items() if n)
    if found:
        raise RuntimeError(f"{source} holds another network: {found}")
    model.load_state_dict(state)


def _has_numbers(value):
    is_plain = value.layout == torch.strided and not value.is_meta and value.is_floating_point()
    return is_plain and bool(value.isfinite().all())


def _shape(value):
    return getattr(value, "shape", None)
