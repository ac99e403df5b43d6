"""INIT: the one way to say where weights come from, opened once for whatever is built from it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from virtex.config import from_dict
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.checkpoint import CheckpointFolder
from virtex.errors import CheckpointError, ConfigError, did_you_mean
from virtex.models.backbone import BackboneConfig
from virtex.tasks import registry  # noqa: F401 (a config names its task's class)
from virtex.tasks.base import TaskConfig
from virtex.zoo import models
from virtex.zoo.foreign import backbone_state, infer_resnet, unwrap
from virtex.zoo.tensor_file import TensorFile, read_tensor_file
from virtex.zoo.weights_file import WEIGHTS_NAME, is_of_a_run, weights_in

Kind = Literal["random", "imagenet", "run", "foreign"]
ALLOWED = (
    "INIT is random, imagenet, a run folder, one of its checkpoints (checkpoints/step_*.pt), a "
    f"{WEIGHTS_NAME}, a .pth or .safetensors of a released VirTex, torchvision, timm or MoCo "
    "model, or a published name (docs/zoo.md)"
)


@dataclass(frozen=True)
class Trained:
    """The part of a run's config that says what was trained."""

    backbone: BackboneConfig
    task: TaskConfig
    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True)
class Opened:
    """The content of an INIT."""

    init: str
    """The text that the user gave."""
    kind: Kind
    """random and imagenet: no file; run: trained by this package; foreign: others' weights, those
    of the released VirTex among them."""
    path: Path = Path()
    """The file, where there is one."""
    sha256: str | None = None
    """Digest of the file."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """State dict of a run's whole task, or others' weights under their own names."""
    config: dict[str, Any] = field(default_factory=dict)
    """The run's config as plain values."""
    tokenizer: Tokenizer | None = None
    """The run's vocabulary, where its task reads captions."""
    categories: tuple[str, ...] = ()
    """Names of the classes that the run learned, where it did."""
    step: int | None = None
    """The run's training step."""
    published: models.Published | None = None
    """The published model that INIT names."""

    @cached_property
    def backbone(self) -> BackboneConfig:
        """The architecture that the run was trained with, or that others' names and shapes tell.

        Raises:
            CheckpointError: The run's config does not say it, or says what is not allowed; or
                others' weights are none of torchvision's ResNets.
        """
        if self.kind == "foreign":
            return infer_resnet(backbone_state(self.state, self.path), self.path)
        try:
            return replace(from_dict(BackboneConfig, self.config["backbone"]), pretrained=False)
        except (ConfigError, KeyError, TypeError) as error:
            raise self._unreadable("backbone", error) from error

    @cached_property
    def trained(self) -> Trained:
        """What the run trained.

        Raises:
            CheckpointError: The run's config does not say it, or says what is not allowed.
        """
        names = self.config.keys() & {"backbone", "task", "image"}
        try:
            trained = from_dict(Trained, {name: self.config[name] for name in names})
        except (ConfigError, TypeError) as error:
            raise self._unreadable("task", error) from error
        return replace(trained, backbone=self.backbone)

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """Build on the meta device, where nothing takes memory.

        Raises:
            CheckpointError: The run's config names a network that cannot be built.
        """
        try:
            with torch.device("meta"):
                yield
        except ConfigError as error:
            if self.kind != "run":
                raise  # the user named the architecture
            raise self._unreadable("network", error) from error

    def _unreadable(self, part: str, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.path}: its config has no readable {part}: {error}")


def open_init(init: str | Path) -> Opened:
    """Read what INIT names, once; what it says is taken for plain values and never run.

    A published name is fetched, unless it was before; a file or folder of that name wins.

    Args:
        init: random, imagenet, a run folder, a file, or a published name.

    Raises:
        CheckpointError: INIT names nothing, or a file that is damaged or no weights.
    """
    text = str(init)
    if text in ("random", "imagenet"):
        return Opened(text, text)  # type: ignore[arg-type]
    published = models.named(text)
    path = models.fetch(published) if published else _file_in(Path(text).expanduser(), text)
    file = _read(path, published)
    if is_of_a_run(file):
        return Opened(text, "run", path, file.sha256, **vars(weights_in(file, path)))
    return Opened(
        text, "foreign", path, file.sha256, unwrap(file.values, path), published=published
    )


def _read(path: Path, published: models.Published | None) -> TensorFile:
    try:
        return read_tensor_file(path)
    except CheckpointError as error:
        if published is None:
            raise
        raise CheckpointError(f"{error} Remove {path} to fetch it again.") from error


def _file_in(path: Path, text: str) -> Path:
    """Return a file itself, or of a run folder its weights, or else its last checkpoint.

    Raises:
        CheckpointError: There is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        hint = did_you_mean(text, ["random", "imagenet", *models.names()], few=True)
        raise CheckpointError(f"{text!r}: no such file or folder. {hint} {ALLOWED}.")
    if (path / WEIGHTS_NAME).is_file():
        return path / WEIGHTS_NAME
    checkpoints = CheckpointFolder(path / "checkpoints")
    steps = checkpoints.steps()
    if not steps:
        raise CheckpointError(
            f"{path} is no run folder that has been trained: it holds neither {WEIGHTS_NAME} nor "
            f"checkpoints/step_*.pt. {ALLOWED}."
        )
    return checkpoints.at(steps[-1])
