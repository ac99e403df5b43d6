"""The zoo: models that the VirTex project published, by name.

Names, addresses and scores are those of the project's model zoo, of version 1.0 and later
(github.com/kdexd/virtex, docs/virtex/usage/model_zoo.rst and hubconf.py). It states no checksums
and no sizes, and publishes no vocabulary.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virtex.errors import CheckpointError, did_you_mean
from virtex.models.backbone import BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.zoo.download import download

Kind = Literal[
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
"""Environment variables: the folder of fetched files; the folder or address to take them from."""
TORCH_FILE = (b"PK\x03\x04", b"\x80")
"""How a torch file begins: a zip, or a pickle in files from before PyTorch 1.6."""


@dataclass(frozen=True)
class Published:
    """A model of the zoo."""

    name: str
    """With the folder of the paper's table that it belongs to."""
    kind: Kind
    backbone: BackboneConfig
    head: HeadConfig | None
    """Of its textual head, where it has a Transformer."""
    url: str
    voc07: float
    """Linear mAP on VOC07, in percent: the paper's, not measured here."""
    imagenet: float
    """Linear top-1 accuracy on ImageNet-1k, in percent: the paper's, not measured here."""
    sha256: str | None = None
    """Of the file, where it is known."""

    @property
    def file_name(self) -> str:
        """What the file is called in the cache and on mirrors."""
        return f"{_short(self.name)}.pth"

    @property
    def writes_captions(self) -> bool:
        """Whether it generates text."""
        return self.kind in ("bicaptioning", "captioning")


@dataclass(frozen=True)
class Places:
    """Where files are kept, and where they are taken from."""

    cache: Path
    mirror: str | None = None
    """A folder, or an http(s) address below which files lie under their `file_name`."""


def _published(name: str, dropbox_id: str, voc07: float, imagenet: float) -> Published:
    match = ARCHITECTURE.fullmatch(_short(name).removeprefix("backbone_"))
    assert match is not None, name
    kind = "backbone" if name.startswith("backbone_b") else match["kind"]
    has_head = match["width"] is not None and kind != "backbone"
    return Published(
        name,
        kind,  # type: ignore[arg-type]
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
    """Every name, in full and without its folder, sorted."""
    return sorted({name for model in MODELS for name in (model.name, _short(model.name))})


def named(name: str | Path) -> Published | None:
    """The model of that name, or None where there is none, or a file or folder is called so.

    A name may lack its folder (models of one short name are one file), and may end in `.yaml`, as
    the original project's names do.
    """
    if path_of(name).exists():
        return None
    asked = str(name).removesuffix(".yaml")
    return next((model for model in MODELS if asked in (model.name, _short(model.name))), None)


def of_file(path: Path) -> Published | None:
    """The model whose file is called so, or None."""
    return next((model for model in MODELS if model.file_name == path.name), None)


def path_of(text: str | Path) -> Path:
    """A path that the user gave, `~` expanded; there may be nothing at it.

    Raises:
        CheckpointError: Nothing can be called so, or it cannot be looked at.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # a name too long; no such user's home
        told = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{str(text)!r} cannot be a path here: {told}.") from error
    return path


def find(name: str) -> Published:
    """The model of that name.

    Raises:
        CheckpointError: There is none; names the closest.
    """
    model = named(name)
    if model is None:
        raise CheckpointError(f"no published model {name!r}. {did_you_mean(name, names())}")
    return model


def places_from(environment: Mapping[str, str]) -> Places:
    """The places that environment variables name: VIRTEX_CACHE, VIRTEX_MIRROR, XDG_CACHE_HOME."""
    user_cache = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    cache = path_of(environment.get(CACHE) or user_cache / "virtex")
    return Places(cache, environment.get(MIRROR) or None)


def fetch(model: str | Published, *, places: Places | None = None) -> Path:
    """The file of a published model, fetched unless the cache or a local mirror has it.

    Args:
        model: It, or its name.
        places: Cache and mirror; by default those of the environment.

    Raises:
        CheckpointError: An unknown name, no network, or not the file that it should be.
    """
    model = find(model) if isinstance(model, str) else model
    places = places or places_from(os.environ)
    url = model.url
    if places.mirror is not None:
        url = f"{places.mirror.rstrip('/')}/{model.file_name}"
    if places.mirror is None or places.mirror.startswith(("http://", "https://")):
        cached = places.cache / model.file_name
        return download(url, cached, sha256=model.sha256, beginnings=TORCH_FILE)
    local = path_of(places.mirror) / model.file_name
    if not local.is_file():
        raise CheckpointError(
            f"no file {local}. The mirror ({MIRROR}) is a folder that holds it, or the http(s) "
            "address of one."
        )
    return local


def table() -> str:
    """The zoo as a Markdown table."""
    lines = ["| name | kind | VOC07 mAP | ImageNet-1k top-1 |", "|---|---|---|---|"]
    lines += [
        f"| {model.name} | {model.kind} | {model.voc07:.1f} | {model.imagenet:.1f} |"
        for model in MODELS
    ]
    return "\n".join([*lines, "", "Scores are the paper's, in percent; none was measured here."])
