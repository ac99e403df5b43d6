"""Models that the VirTex project published, and the download of their files.

Names, addresses and scores are from the project's model zoo, version 1.0 and later
(github.com/kdexd/virtex, docs/virtex/usage/model_zoo.rst and hubconf.py). It states no checksums
and no sizes, and publishes no vocabulary.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from virtex.errors import CheckpointError, did_you_mean
from virtex.models.backbone import BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.zoo.download import download

PublishedKind = Literal[
    "bicaptioning",
    "captioning",
    "masked_lm",
    "token_classification",
    "multilabel_classification",
    "backbone",
]
ADDRESS = "https://www.dropbox.com/s/{dropbox_id}/{file_name}?dl=1"
BACKBONES = {"R_50": "resnet50", "R_50W2X": "wide_resnet50_2", "R_101": "resnet101"}
ARCHITECTURE = re.compile(
    r"(?P<kind>\w+?)_(?P<backbone>R_\d+(?:W2X)?)(?:_L(?P<layers>\d)_H(?P<width>\d+))?"
)
CACHE, MIRROR = "VIRTEX_CACHE", "VIRTEX_MIRROR"
"""Environment variables: the folder of downloaded files, and the mirror to take them from."""
TORCH_FILE = (b"PK\x03\x04", b"\x80")
"""First bytes of a torch file: of a zip, or of a pickle, as before PyTorch 1.6."""


@dataclass(frozen=True)
class Published:
    """A published model."""

    name: str
    """Name, with the table of the paper as its folder."""
    kind: PublishedKind
    backbone: BackboneConfig
    head: HeadConfig | None
    """Textual head, if it is a Transformer."""
    url: str
    voc07: float
    """Linear mAP on VOC07 in percent, as the paper reports it."""
    imagenet: float
    """Linear top-1 accuracy on ImageNet-1k in percent, as the paper reports it."""
    sha256: str | None = None
    """SHA-256 of the file, if it is known."""

    @property
    def file_name(self) -> str:
        """Name of the file in the cache and on mirrors."""
        return f"{_short(self.name)}.pth"

    @property
    def writes_captions(self) -> bool:
        """Whether the model generates text."""
        return self.kind in ("bicaptioning", "captioning")


@dataclass(frozen=True)
class Storage:
    """The cache of downloaded files, and the mirror to take them from."""

    cache: Path
    mirror: str | None = None
    """Folder or http(s) address of files named `file_name`; by default the published addresses."""


def _published(name: str, dropbox_id: str, voc07: float, imagenet: float) -> Published:
    match = ARCHITECTURE.fullmatch(_short(name).removeprefix("backbone_"))
    assert match is not None, f"{name} is a constant below"
    kind = "backbone" if name.startswith("backbone_b") else match["kind"]
    has_head = match["width"] is not None and kind != "backbone"
    return Published(
        name,
        cast("PublishedKind", kind),
        BackboneConfig(BACKBONES[match["backbone"]]),
        HeadConfig(int(match["width"]), num_layers=int(match["layers"])) if has_head else None,
        ADDRESS.format(dropbox_id=dropbox_id, file_name=f"{_short(name)}.pth"),
        voc07,
        imagenet,
    )


def _short(name: str) -> str:
    return name.rpartition("/")[2]


MODELS: tuple[Published, ...] = (
    _published("task_ablations/bicaptioning_R_50_L1_H2048", "mbeeso8wyieq8wy", 88.7, 53.8),
    _published("task_ablations/captioning_R_50_L1_H2048", "r6zen9k43m5oo58", 88.6, 50.8),
    _published("task_ablations/token_classification_R_50", "o4p9lki505r0mef", 88.8, 48.6),
    _published("task_ablations/multilabel_classification_R_50", "hbspp3jv3u8h3bc", 86.2, 46.2),
    _published("task_ablations/masked_lm_R_50_L1_H2048", "ldzrk6vem4mg6bl", 86.4, 46.7),
    _published("width_ablations/bicaptioning_R_50_L1_H512", "o9fr69jjqfn8a65", 88.4, 51.8),
    _published("width_ablations/bicaptioning_R_50_L1_H768", "1zxglqrrbfufv9d", 88.3, 52.3),
    _published("width_ablations/bicaptioning_R_50_L1_H1024", "pdat4tvhnqxel64", 88.3, 53.2),
    _published("width_ablations/bicaptioning_R_50_L1_H2048", "mbeeso8wyieq8wy", 88.7, 53.8),
    _published("depth_ablations/bicaptioning_R_50_L1_H1024", "pdat4tvhnqxel64", 88.3, 53.2),
    _published("depth_ablations/bicaptioning_R_50_L2_H1024", "ft1vtt4okirzjgo", 88.8, 53.8),
    _published("depth_ablations/bicaptioning_R_50_L3_H1024", "5ldo1rcsnrshmjr", 88.7, 53.9),
    _published("depth_ablations/bicaptioning_R_50_L4_H1024", "zgiit2wcluuq3xh", 88.7, 53.9),
    _published("backbone_ablations/bicaptioning_R_50_L1_H1024", "pdat4tvhnqxel64", 88.3, 53.2),
    _published("backbone_ablations/bicaptioning_R_50W2X_L1_H1024", "5o198ux709r6376", 88.5, 52.9),
    _published("backbone_ablations/bicaptioning_R_101_L1_H1024", "bb74jubt68cpn80", 88.7, 52.1),
    _published("backbone_bicaptioning_R_50_L1_H2048", "pxgjxcva7oypf12", 88.7, 53.8),
)


def names() -> list[str]:
    """Return all names, in full and without the folder, sorted."""
    return sorted({name for model in MODELS for name in (model.name, _short(model.name))})


def find(name: str | Path) -> Published | None:
    """Return the model of a name; None if there is no such model, or a file or folder of that name.

    The name may be given without its folder, and with the suffix `.yaml` of the original project.
    """
    if user_path(name).exists():
        return None
    bare = str(name).removesuffix(".yaml")
    return next((model for model in MODELS if bare in (model.name, _short(model.name))), None)


def find_by_file(path: Path) -> Published | None:
    """Return the model whose file has the name of `path`."""
    return next((model for model in MODELS if model.file_name == path.name), None)


def user_path(text: str | Path) -> Path:
    """Return a path that the user gave, with `~` expanded; it need not exist.

    Raises:
        CheckpointError: The text cannot be a path, or the path may not be accessed.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # a name too long; no such user's home
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{str(text)!r} cannot be a path here: {reason}.") from error
    return path


def storage_from(environment: Mapping[str, str]) -> Storage:
    """Return the cache and mirror that VIRTEX_CACHE, XDG_CACHE_HOME and VIRTEX_MIRROR name."""
    user_cache = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    cache = user_path(environment.get(CACHE) or user_cache / "virtex")
    return Storage(cache, environment.get(MIRROR) or None)


def fetch(model: str | Published, *, storage: Storage | None = None) -> Path:
    """Return the file of a published model, downloaded unless the cache or a local mirror has it.

    Args:
        model: A published model, or its name.
        storage: Cache and mirror; by default `storage_from` the environment.

    Raises:
        CheckpointError: The name is unknown, there is no network, or the file is not as expected.
    """
    if isinstance(model, str):
        name, found = model, find(model)
        if found is None:
            raise CheckpointError(f"no published model {name!r}. {did_you_mean(name, names())}")
        model = found
    storage = storage or storage_from(os.environ)
    url = model.url
    if storage.mirror is not None:
        url = f"{storage.mirror.rstrip('/')}/{model.file_name}"
    if storage.mirror is None or storage.mirror.startswith(("http://", "https://")):
        cached = storage.cache / model.file_name
        return download(url, cached, sha256=model.sha256, first_bytes=TORCH_FILE)
    local = user_path(storage.mirror) / model.file_name
    if not local.is_file():
        raise CheckpointError(
            f"no file {local}. The mirror ({MIRROR}) must be a folder that holds it, or the "
            "http(s) address of one."
        )
    return local


def table() -> str:
    """Return a Markdown table of all models."""
    lines = ["| name | kind | VOC07 mAP | ImageNet-1k top-1 |", "|---|---|---|---|"]
    lines += [
        f"| {model.name} | {model.kind} | {model.voc07:.1f} | {model.imagenet:.1f} |"
        for model in MODELS
    ]
    return "\n".join([*lines, "", "Scores are the paper's, in percent; none was measured here."])
