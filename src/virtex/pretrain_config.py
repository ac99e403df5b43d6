"""Options of `virtex pretrain`, and their way from the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from virtex import config as config_files
from virtex.data.loader import LoaderConfig
from virtex.data.source import SourceConfig
from virtex.data.transforms import ImageConfig
from virtex.early_stopping import EarlyStoppingConfig
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.errors import ConfigError
from virtex.models.backbone import BackboneConfig
from virtex.tasks import registry
from virtex.tasks.base import TaskConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.vocabulary import TokenizerConfig


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
    task: TaskConfig = field(default_factory=CaptioningConfig)
    """Pretext task; `--task.help NAME` lists its options."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    num_samples: int = 12
    """Number of validation images to caption at each validation."""


def parse_pretrain(arguments: Sequence[str]) -> PretrainConfig:
    """Parse the options of `virtex pretrain`; those of an existing run are the defaults.

    Raises:
        ConfigError: An option is unknown, a value has the wrong type, or only --out is given and
            it holds no run.
    """
    arguments = config_files.with_recipes(arguments, "pretrain")
    out = config_files.value_of("--out", arguments)
    if out is not None and (folder := RunFolder(Path(out))).has_begun():
        arguments = ["--config", str(folder.config_path), *arguments]
    elif out is not None and len(arguments) <= 2:
        raise ConfigError(f"{out} holds no run to resume; name a recipe with --config to start one")
    return config_files.parse(
        PretrainConfig, arguments, prog="virtex pretrain", description=_guide()
    )


def _guide() -> str:
    """Return the text that `--help` shows before the options."""
    recipes = ", ".join(path.stem for path in config_files.recipe_paths("pretrain"))
    tasks = ", ".join(registry.TASKS)
    return (
        "Train a backbone; the same command resumes an interrupted run. "
        f"Recipes for --config: {recipes}. Tasks for --task: {tasks}; `--task.help NAME` lists the "
        "options of one. --backbone.name takes any timm network with a grid, convolutional or ViT; "
        "--init starts from weights."
    )
