"""Options of `virtex pretrain`, and their way from the command line."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from virtex import config as config_files
from virtex.data.loader import LoaderConfig
from virtex.data.source import SourceConfig
from virtex.data.transforms import ImageConfig
from virtex.early_stopping import EarlyStoppingConfig
from virtex.engine.optim import OptimConfig
from virtex.engine.run import AnyPrecision, RunConfig, RunFolder
from virtex.engine.stored_config import stored_config
from virtex.engine.tf32 import Float32Matmul
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import BackboneConfig
from virtex.options.dependents import register_dependents
from virtex.options.paths import absolute, expand, with_paths
from virtex.processes import HELP
from virtex.run_data import RunData
from virtex.tasks import registry
from virtex.tasks.base import TaskConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.vocabulary import TokenizerConfig, trained_options
from virtex.zoo.hub import LOCAL
from virtex.zoo.init import UNTRAINED
from virtex.zoo.weights_file import WEIGHTS_NAME

log = logging.getLogger("virtex")

MAX_EPOCHS = 1_000_000
NO_RECIPE = (
    "no --config is given: sizes and steps are the paper's, for 8 GPUs. own_data is a recipe for "
    "2 CPU cores, own_data_gpu for one GPU."
)
EXAMPLE = (
    "virtex pretrain --config own_data --data.source folder --data.root IMAGES --out RUN; "
    "`virtex pretrain --out RUN` resumes it, and `virtex pretrain --help` lists all options."
)


@dataclass(frozen=True)
class PretrainRunConfig(RunConfig):
    """Options of the training loop of pretraining."""

    precision: AnyPrecision = "auto"
    """Precision of the forward and backward passes; auto: bf16 if the device is fast at it, else
    fp32, and on a CPU fp32 for MobileNet, EfficientNet and the like. A run keeps it when it is
    resumed elsewhere. Weights are always fp32."""
    float32_matmul: Float32Matmul = "high"
    """Products of fp32 numbers on NVIDIA GPUs: high is TF32, highest is fp32, default is torch's
    own choice: TF32 in convolutions, fp32 elsewhere."""
    num_epochs: float | None = None
    """Length of the run as a number of passes over the training images, instead of `num_steps`."""
    monitors: bool = True
    """Say once, with what to try, if the run goes wrong: losses, features, captions, gradients and
    waiting; training does not depend on it."""
    elastic: bool = False
    """Let torchrun go on in another number of processes when a machine is lost or comes back: on
    the same data, but not bit for bit; else its restart waits for as many as before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_epochs is not None and not 0 < self.num_epochs <= MAX_EPOCHS:
            raise ConfigError(
                f"run.num_epochs {self.num_epochs} must be above 0 and at most {MAX_EPOCHS:,}"
            )


register_dependents(
    PretrainRunConfig,
    {
        "compile": lambda compiled, option: (
            option != "compile_mode" or str(compiled).lower() not in ("none", "false")
        )
    },
    exclusive=("num_steps", "num_epochs"),
)


@dataclass(frozen=True)
class PretrainConfig:
    """Options of a pretraining run."""

    out: Path
    """Run folder; an existing run is resumed."""
    data: SourceConfig = field(default_factory=SourceConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    init: str = "random"
    """Initial weights of the backbone: random, imagenet, a run folder, a weights file, a released
    or torchvision .pth, or a name that `virtex zoo` lists."""
    init_parts: Literal["backbone", "task", "training"] = "backbone"
    """Parts that `init` initializes: the backbone; the whole task, with head or text encoder, of a
    run of the same task (and its vocabulary) or a released model; or the whole training, which goes
    on: weights, optimizer, loss scaler and step of a training checkpoint of the released code."""
    task: TaskConfig = field(default_factory=CaptioningConfig)
    """Pretext task; `--task.help NAME` lists its options."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: PretrainRunConfig = field(default_factory=PretrainRunConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    num_samples: int = 12
    """Number of validation images to caption at each validation."""
    accept_changed_data: bool = False
    """Resume although the training data are not those that the run began with; this is logged."""


LAST = "num_samples"
"""An option at the end of config.yaml, in every version, which shows that the file is whole."""


def parse_pretrain(arguments: Sequence[str]) -> PretrainConfig:
    """Parse the options of `virtex pretrain`; those of an existing run are the defaults.

    Raises:
        ConfigError: An option is unknown, a value has the wrong type, or only --out is given and
            it holds no run.
    """
    arguments = config_files.with_recipes(arguments, "pretrain")
    if not arguments:
        raise ConfigError(f"virtex pretrain needs options: {EXAMPLE}")
    out = config_files.value_of("--out", arguments)
    if out == "":
        raise ConfigError(f"--out needs the folder of a run: {EXAMPLE}")
    is_alone = len(arguments) <= 2
    if out is not None and _has_options(folder := RunFolder(Path(expand(out))), is_alone=is_alone):
        stored = _with_epochs(stored_config(folder, last=LAST), folder)
        arguments = ["--config", yaml.safe_dump(stored, sort_keys=False), *arguments]
    elif out is not None and is_alone:
        raise ConfigError(
            f"{out} holds no run to resume; name a recipe with --config to start one: {EXAMPLE}"
        )
    elif out is not None and config_files.value_of("--config", arguments) is None:
        log.info("%s", NO_RECIPE)
    config = config_files.parse(
        PretrainConfig, arguments, prog="virtex pretrain", description=_guide()
    )
    if not RunFolder(config.out).has_begun():
        _warn_of_unread(config)
    return with_absolute_paths(config)


def _has_options(folder: RunFolder, *, is_alone: bool) -> bool:
    """Return whether the options of an existing run are the defaults.

    Args:
        is_alone: Whether --out alone is given; then also those of a run that was killed before its
            first checkpoint, which begins again.
    """
    if folder.has_begun() or not is_alone:
        return folder.has_begun()
    is_cut_short = folder.config_path.is_file() and not (folder.path / WEIGHTS_NAME).exists()
    if is_cut_short:
        log.info("%s has no checkpoint yet: the run begins again", folder.path)
    return is_cut_short


def _with_epochs(stored: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Return the options of a run, with the epochs that it was to have if it begins again."""
    data = None if folder.has_begun() else RunData.read(folder.path)
    if data is None or data.num_epochs is None:
        return stored
    run = {name: value for name, value in stored["run"].items() if name != "num_steps"}
    return {**stored, "run": {**run, "num_epochs": data.num_epochs}}


def _warn_of_unread(config: PretrainConfig) -> None:
    """Warn of options that others leave no meaning, but that runs of earlier versions may hold."""
    stopping, tokenizer = config.early_stopping, config.tokenizer
    if stopping.protocol == "none" and (stopping.data.root is not None or stopping.data.mix):
        log.warning(
            "early_stopping.data names images, but nothing is scored without a protocol: give "
            "--early_stopping.protocol voc07 (several labels an image) or linear (one label)"
        )
    if tokenizer.tokenizer_path is not None and (names := trained_options(tokenizer)):
        log.warning(
            "tokenizer.%s has no effect: tokenizer.tokenizer_path names a whole vocabulary",
            ", tokenizer.".join(names),
        )


def with_steps(config: PretrainConfig, num_steps: int) -> PretrainConfig:
    """Return options whose length is a number of steps, not of epochs."""
    return replace(config, run=replace(config.run, num_steps=num_steps, num_epochs=None))


def steps_of(config: PretrainConfig, num_images: int) -> int:
    """Return the number of steps in which each training image is seen `num_epochs` times."""
    assert config.run.num_epochs is not None
    return max(1, math.ceil(config.run.num_epochs * num_images / config.run.batch_size))


def check_init(config: PretrainConfig) -> None:
    """Raise ConfigError if options contradict the parts that `init` is to initialize."""
    parts, problems = config.init_parts, []
    if parts != "backbone" and config.init in UNTRAINED:
        wanted = "a run, or of a released model" if parts == "task" else "a released training"
        problems.append(
            f"init_parts {parts} needs the weights of {wanted}, and {config.init} is none: name "
            "one by --init, or leave init_parts out to initialize the backbone alone"
        )
    if parts == "training" and config.optim.unfreeze_at is not None:
        problems.append(
            "optim.unfreeze_at changes what is trained, and init_parts training goes on with what "
            "was: leave one of them out"
        )
    raise_all(ConfigError, "the options of init cannot work", problems)


def check_freezing(config: PretrainConfig) -> None:
    """Raise ConfigError if options of the optimizer suppose that the backbone is (not) frozen."""
    problems, is_held = [], config.backbone.frozen or config.backbone.freeze_stages > 0
    if config.optim.unfreeze_at is not None and not is_held:
        problems.append(
            "optim.unfreeze_at ends backbone.frozen or backbone.freeze_stages, and neither is set: "
            "set one, or leave unfreeze_at out"
        )
    if config.optim.layer_decay != 1 and config.backbone.frozen and not config.optim.unfreeze_at:
        problems.append(
            "optim.layer_decay is for a backbone that is trained, and backbone.frozen is set: set "
            "optim.unfreeze_at, or leave one of them out"
        )
    raise_all(ConfigError, "the options of freezing contradict each other", problems)


def with_absolute_paths(config: PretrainConfig) -> PretrainConfig:
    """Return options that mean the same in any working directory, except for `out`."""
    return replace(with_paths(config, absolute, change_text=_absolute_init), out=config.out)


def _absolute_init(init: str) -> str:
    """Return INIT with an absolute path, if it names a file or folder."""
    if init.startswith(LOCAL):
        return LOCAL + absolute(str(Path(init.removeprefix(LOCAL)).expanduser()))
    path = Path(init).expanduser()
    return absolute(str(path)) if init and init not in UNTRAINED and path.exists() else init


def _guide() -> str:
    """Return the text that `--help` shows before the options."""
    recipes = ", ".join(path.stem for path in config_files.recipe_paths("pretrain"))
    tasks = ", ".join(registry.TASKS)
    return (
        "Train a backbone; the same command resumes an interrupted run. "
        f"Recipes for --config: {recipes}. Tasks for --task: {tasks}; `--task.help NAME` lists the "
        "options of one. --backbone.name takes any timm network with a grid, convolutional or ViT; "
        f"--init starts from weights. {HELP}"
    )
