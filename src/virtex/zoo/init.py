"""INIT, the argument that says where weights come from, and its content.

A command opens INIT once; backbones, captioners and embedders are built from the `Opened`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from torch import Tensor

from virtex import distributed
from virtex.config import from_dict
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.checkpoint import CheckpointFolder
from virtex.errors import CheckpointError, ConfigError, did_you_mean
from virtex.models.backbone import BackboneConfig, published_normalization
from virtex.tasks import registry  # noqa: F401 (a config names its task's class)
from virtex.tasks.base import TaskConfig
from virtex.zoo import hub, models
from virtex.zoo.efficientnet_names import from_efficientnet_pytorch
from virtex.zoo.foreign import backbone_state, infer_resnet, unwrap
from virtex.zoo.tensor_file import TensorFile, read_tensor_file
from virtex.zoo.weights_file import WEIGHTS_NAME, is_run, parse_run

InitKind = Literal["random", "imagenet", "run", "foreign"]
UNTRAINED: dict[str, InitKind] = {"random": "random", "imagenet": "imagenet"}
"""Values of INIT that name no file."""
ALLOWED = (
    "INIT is random, imagenet, a run folder, one of its checkpoints (checkpoints/step_*.pt), a "
    f"{WEIGHTS_NAME}, a .pth or .safetensors of a released VirTex, torchvision, timm or MoCo "
    "model, a folder in timm's layout, local-dir:FOLDER, hf-hub:OWNER/NAME, or a published name "
    "(docs/zoo.md)"
)


@dataclass(frozen=True)
class Trained:
    """Backbone, task and image options in the config of a run."""

    backbone: BackboneConfig
    task: TaskConfig
    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True)
class Opened:
    """The content of an INIT."""

    init: str
    """INIT as the user wrote it."""
    kind: InitKind
    """random, imagenet: no file; run: trained by this package; foreign: weights of other software,
    including the released VirTex models."""
    path: Path = Path()
    """The file, for run and foreign."""
    sha256: str | None = None
    """SHA-256 of the file."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """State dict: of a run its whole task, of foreign weights under their own names."""
    config: dict[str, Any] = field(default_factory=dict)
    """Config of a run, as plain values."""
    tokenizer: Tokenizer | None = None
    """Vocabulary of a run whose task reads captions."""
    categories: tuple[str, ...] = ()
    """Names of the classes of a run whose task learns classes."""
    step: int | None = None
    """Training step of a run."""
    published: models.Published | None = None
    """Published model whose name INIT is."""
    stated: BackboneConfig | None = None
    """Architecture of foreign weights that the config.json beside them, or their names, state."""

    @cached_property
    def backbone(self) -> BackboneConfig:
        """Architecture of a run's backbone by its config, or of foreign weights by their shapes.

        Raises:
            CheckpointError: The run's config has no valid backbone, or the foreign weights are of
                none of torchvision's ResNets.
        """
        if self.stated is not None:
            return self.stated
        if self.kind == "foreign":
            return infer_resnet(backbone_state(self.state, self.path), self.path)
        try:
            return replace(from_dict(BackboneConfig, self.config["backbone"]), pretrained=False)
        except (ConfigError, KeyError, TypeError) as error:
            raise self._unreadable("backbone", error) from error

    @property
    def holds_task(self) -> bool:
        """Whether there is a pretext task beside the backbone, which a detector's file lacks."""
        return self.kind == "run" and "task" in self.config

    @cached_property
    def image(self) -> ImageConfig:
        """Options of the images of a run, the defaults where none are stated.

        Raises:
            CheckpointError: The run's config has no valid options of images.
        """
        try:
            return from_dict(ImageConfig, self.config.get("image", {}))
        except (ConfigError, TypeError) as error:
            raise self._unreadable("image", error) from error

    @cached_property
    def trained(self) -> Trained:
        """Options of the backbone, the task and the images of a run.

        Raises:
            CheckpointError: The run's config has no valid backbone or task.
        """
        names = self.config.keys() & {"backbone", "task", "image"}
        try:
            trained = from_dict(Trained, {name: self.config[name] for name in names})
        except (ConfigError, TypeError) as error:
            raise self._unreadable("backbone, task or image", error) from error
        return replace(trained, backbone=self.backbone)

    def _unreadable(self, part: str, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.path}: its config has no readable {part}: {error}")


def plain_init(init: str) -> str:
    """Return INIT without `./` and without a slash at its end, unless it then means another.

    So a record of the same weights is the same, and a folder called `random` is none of UNTRAINED.
    """
    if init.startswith(hub.HUB):
        return init
    prefix = hub.LOCAL if init.startswith(hub.LOCAL) else ""
    plain = prefix + str(PurePosixPath(init.removeprefix(prefix)))
    means_another = plain in UNTRAINED or (not prefix and hub.is_folder_name(plain))
    return init if means_another else plain


def open_init(init: str | Path) -> Opened:
    """Read the file that INIT names, without running any code in it.

    A published model is downloaded, unless it is in the cache. A file or folder takes precedence
    over a published model of the same name.

    Args:
        init: random, imagenet, a run folder, a file, a published name, or `local-dir:FOLDER` or
            `hf-hub:OWNER/NAME[@REVISION]`: a model that `virtex export` wrote, or in timm's layout.

    Raises:
        CheckpointError: INIT does not exist or may not be read, or the file is damaged or holds no
            weights.
    """
    text = str(init)
    if not text:
        raise CheckpointError(f"INIT is empty. {ALLOWED}.")
    if text in UNTRAINED:
        return Opened(text, UNTRAINED[text])
    try:
        return _opened(text)
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename or text}: {error.strerror}.") from error


def open_init_in_all(init: str | Path) -> Opened:
    """Read the file that INIT names in all processes of a run, which all call this.

    The main process alone asks the hub for a revision, so that all read the same commit even while
    somebody pushes another.

    Raises:
        CheckpointError: See `open_init`.
    """
    text = str(init)
    if distributed.world_size() == 1 or not text.startswith(hub.HUB):
        return open_init(text)
    return replace(open_init(distributed.on_main(lambda: hub.pinned(text))), init=text)


def _opened(text: str) -> Opened:
    """Return the content of an INIT that names a file."""
    published = models.find(text)
    folder = hub.folder_of(text) if hub.is_folder_name(text) else Path(text).expanduser()
    path = models.fetch(published) if published else _file_in(folder, text)
    file = _read(path, published)
    if is_run(file):
        return Opened(text, "run", path, file.sha256, **vars(parse_run(file, path)))
    state = unwrap(file.values, path)
    stated = hub.stated_beside(path) if path == folder else None
    if path == hub.timm_weights(folder):
        stated = hub.architecture_in(folder)
    if stated is None and (lite := from_efficientnet_pytorch(state)):
        name, state = lite
        stated = from_dict(BackboneConfig, {"name": name, **published_normalization(name)})
    return Opened(text, "foreign", path, file.sha256, state, published=published, stated=stated)


def _read(path: Path, published: models.Published | None) -> TensorFile:
    try:
        return read_tensor_file(path)
    except CheckpointError as error:
        if published is None:
            raise
        raise CheckpointError(f"{error} Remove {path} to download it again.") from error


def _file_in(path: Path, text: str) -> Path:
    """Return a file itself, or a folder's weights: of a run, its last checkpoint, or for timm.

    Raises:
        CheckpointError: The path does not exist, or is a folder without these.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        hint = did_you_mean(text, [*UNTRAINED, *models.names()], few=True)
        raise CheckpointError(f"{text!r}: no such file or folder. {hint} {ALLOWED}.")
    if (path / WEIGHTS_NAME).is_file():
        return path / WEIGHTS_NAME
    checkpoints = CheckpointFolder(path / "checkpoints")
    steps = checkpoints.steps()
    if not steps and (weights := hub.timm_weights(path)):
        return weights
    if not steps:
        raise CheckpointError(
            f"{path} is no run folder that has been trained: it holds neither {WEIGHTS_NAME} nor "
            f"checkpoints/step_*.pt, nor config.json and model.safetensors. {ALLOWED}."
        )
    return checkpoints.at(steps[-1])
