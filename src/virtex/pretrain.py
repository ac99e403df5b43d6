"""Pretraining: where data, task and engine meet."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from virtex import config as config_files
from virtex import distributed
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig, TrainingBatches, training_batches, validation_batches
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.source_options import check_options
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.early_stopping import EarlyStopping, EarlyStoppingConfig
from virtex.engine.loop import FitResult, evaluate, fit
from virtex.engine.optim import OptimConfig, warmup_steps
from virtex.engine.run import RunConfig, RunFolder, check_batch_size, choose_device
from virtex.errors import ConfigError, DataError, out_of_range, raise_all
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.samples import SampleWriter
from virtex.tasks import registry
from virtex.tasks.base import Task, TaskConfig, TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.tokens import NUM_SPECIAL
from virtex.zoo.backbones import start_from
from virtex.zoo.init import open_init
from virtex.zoo.weights_file import save_weights

log = logging.getLogger("virtex")

FREE = (
    "out", "num_samples", "loader.", "early_stopping.batch_size", "early_stopping.num_workers",
    "run.log_every", "run.validate_every", "run.checkpoint_every", "run.keep_", "run.tensorboard",
)  # fmt: skip
"""Options that may change when a run is resumed: the weights that come out are the same."""
VOCAB_SIZES = {"vocab_size": (NUM_SPECIAL + 1, 1_000_000)}


@dataclass(frozen=True)
class TokenizerConfig:
    """The vocabulary: trained on the training captions, or taken from a file."""

    vocab_size: int = 10_000
    """Number of pieces, the four special ones included."""
    tokenizer_path: Path | None = None
    """A SentencePiece model to use instead of training one."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, VOCAB_SIZES))


@dataclass(frozen=True)
class PretrainConfig:
    """All options of a pretraining run."""

    out: Path
    """The run folder; a run that stands there already is resumed."""
    data: SourceConfig = field(default_factory=SourceConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    init: str = "random"
    """Where the backbone starts: random, imagenet, a run folder, a weights file, a released or
    torchvision .pth, or a name that `virtex zoo` lists."""
    task: TaskConfig = field(default_factory=CaptioningConfig)
    """The pretext task; `--task.help NAME` lists its options."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    num_samples: int = 12
    """How many validation images are captioned at each validation, to be looked at."""


@dataclass(frozen=True)
class TrainTokenizerConfig:
    """Options of `virtex tokenizer`."""

    out: Path
    """The .model file to write."""
    data: SourceConfig = field(default_factory=SourceConfig)
    vocab_size: int = 10_000
    """Number of pieces, the four special ones included."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, VOCAB_SIZES))


def parse_pretrain(arguments: Sequence[str]) -> PretrainConfig:
    """The config of `virtex pretrain`; a run that stands at --out gives what is not named.

    Raises:
        ConfigError: An unknown option, a value of the wrong type, or nothing but an --out that
            holds no run.
    """
    arguments = config_files.with_recipes(arguments, "pretrain")
    out = config_files.value_of("--out", arguments)
    if out is not None and (folder := RunFolder(Path(out))).has_begun():
        arguments = ["--config", str(folder.config_path), *arguments]
    elif out is not None and len(arguments) <= 2:
        raise ConfigError(f"{out} holds no run to resume; name a recipe with --config to begin one")
    return config_files.parse(
        PretrainConfig, arguments, prog="virtex pretrain", description=_guide()
    )


def _guide() -> str:
    """What `--help` says before the options."""
    recipes = ", ".join(path.stem for path in config_files.recipe_paths("pretrain"))
    tasks = ", ".join(registry.TASKS)
    return (
        "Train a backbone; the same command resumes a run that was cut. "
        f"Recipes for --config: {recipes}. Tasks for --task: {tasks}; `--task.help NAME` lists the "
        "options of one. --backbone.name takes any timm network with a grid, convolutional or ViT; "
        "--init starts from weights."
    )


def write_tokenizer(config: TrainTokenizerConfig) -> Tokenizer:
    """Train a vocabulary on the captions of a source and write it."""
    source = _training_source(config.data, Needs(captions=True))
    tokenizer = train_tokenizer(all_captions(source), vocab_size=config.vocab_size)
    tokenizer.save(config.out)
    return tokenizer


def pretrain(config: PretrainConfig) -> FitResult:
    """Train, or go on training, the run at `config.out`.

    Raises:
        ConfigError, DataError, CheckpointError: A mistake of the user's, before any work starts;
            another process that trains there is one.
    """
    device, folder = choose_device(config.run.device), RunFolder(config.out)
    with distributed.process_group(device):
        _check_options(config)
        with folder.locked():
            return _pretrain(config, folder, device, resumes=_resumes(config, folder))


def _pretrain(
    config: PretrainConfig, folder: RunFolder, device: torch.device, *, resumes: bool
) -> FitResult:
    torch.manual_seed(config.run.seed)  # timm and torch draw initial weights from it
    backbone = Backbone(config.backbone)
    backbone.grid_size(config.image.size)
    if not resumes:
        start_from(open_init(config.init), backbone)
    train = _training_source(config.data, config.task.needs)
    validation = open_source(config.data, split="val", needs=config.task.needs)
    if validation is not None and train.categories:
        check_same_classes(train, validation)
    early_stopping = _early_stopping(config, device)
    tokenizer = _tokenizer(config, train, resumes=resumes) if config.task.needs.captions else None
    data = TaskData(config.image, tokenizer, train.categories, len(train))
    task = config.task.build(backbone, data)
    if distributed.is_main():
        folder.write_config(config_files.to_dict(config))
        if tokenizer is not None and not resumes:
            tokenizer.save(config.out / "tokenizer.model")
    return fit(
        task,
        partial(_training_batches, train, task, config),
        folder=folder,
        run=config.run,
        optim=config.optim,
        device=device,
        config=config_files.to_dict(config),
        validate=None
        if validation is None
        else _Validation(config, task, validation, data, device),
        on_checkpoint=_KeepWeights(config, task, data, early_stopping),
    )


def check(config: PretrainConfig) -> None:
    """Find the mistakes in the options that can be found without reading any data.

    Raises:
        ConfigError: One of them.
    """
    _check_options(config)
    _resumes(config, RunFolder(config.out))
    with torch.random.fork_rng(devices=[]):
        architecture = Backbone(replace(config.backbone, pretrained=False))
    architecture.grid_size(config.image.size)


def _check_options(config: PretrainConfig) -> None:
    """The part of `check` that needs neither the run nor a network."""
    if config.out.is_file():
        raise ConfigError(f"out {config.out} is a file; give the folder of a run, or a new one")
    check_batch_size(config.run)
    warmup_steps(config.optim, config.run.num_steps)
    check_options(config.data, config.task.needs)


def _resumes(config: PretrainConfig, folder: RunFolder) -> bool:
    """Whether there is a run to go on with, under options that do not change what comes out.

    Raises:
        ConfigError: The run has others; names each that differs.
    """
    if not folder.has_begun():
        return False
    stored = config_files.load(folder.config_path)
    earlier = config_files.from_dict(PretrainConfig, stored)
    before, now = (
        config_files.flat(config_files.to_dict(options)) for options in (earlier, config)
    )
    names = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if "task.name" in names:  # each task has options of its own
        names = {name for name in names if name == "task.name" or not name.startswith("task.")}
    changed = [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(names)
        if not name.startswith(FREE)
    ]
    raise_all(
        ConfigError,
        f"{config.out} holds a run with other options (give the same to resume it, or another "
        "--out to begin a new run)",
        changed,
    )
    return True


def all_captions(source: Source) -> Iterator[str]:
    """Every caption of every example."""
    return (caption for index in range(len(source)) for caption in source.captions(index))


class _Validation:
    """Validation loss, and captions of a few images, as the model stands."""

    def __init__(
        self,
        config: PretrainConfig,
        task: Task,
        source: Source,
        data: TaskData,
        device: torch.device,
    ) -> None:
        self.config, self.task, self.source, self.device = config, task, source, device
        self.samples = None
        if distributed.is_main() and task.writer is not None and config.num_samples:
            self.samples = SampleWriter(
                config.out, source, data.vocabulary, config.image, limit=config.num_samples
            )

    def __call__(self, step: int) -> dict[str, float]:
        batches = validation_batches(
            self.source,
            self.task.encode_validation,
            self.task.collate,
            batch_size=self.config.run.batch_size,
            share=distributed.share(),
            config=self.config.loader,
        )
        numbers = evaluate(self.task, batches, run=self.config.run, device=self.device)
        if self.samples is not None and self.task.writer is not None:
            try:
                self.samples.write(self.task.writer, step=step, device=self.device)
            except DataError as error:
                log.error("step %d has no sample captions: %s Training goes on.", step, error)
        return numbers


@dataclass(frozen=True)
class _KeepWeights:
    """After each checkpoint: weights.safetensors becomes it, where it is the last or the best."""

    config: PretrainConfig
    task: Task
    data: TaskData
    early_stopping: EarlyStopping | None

    def __call__(self, step: int, checkpoint: Path) -> None:
        del checkpoint
        if self.early_stopping and not self.early_stopping.is_best(self.task.backbone, step=step):
            return
        save_weights(
            self.config.out / "weights.safetensors",
            self.task.state_dict(),
            config=config_files.to_dict(self.config),
            tokenizer=self.data.tokenizer,
            categories=self.data.categories,
            step=step,
        )


def _training_batches(
    source: Source, task: Task, config: PretrainConfig, start_step: int
) -> TrainingBatches:
    return training_batches(
        source,
        task.encode,
        task.collate,
        seed=config.run.seed,
        batch_size=config.run.batch_size,
        start_step=start_step,
        share=distributed.share(),
        config=config.loader,
    )


def _early_stopping(config: PretrainConfig, device: torch.device) -> EarlyStopping | None:
    if config.early_stopping.protocol == "none" or not distributed.is_main():
        return None
    return EarlyStopping(config.early_stopping, config.out / "results", device)


def _tokenizer(config: PretrainConfig, source: Source, *, resumes: bool) -> Tokenizer:
    """The run's own vocabulary if it has one; else the one named; else one trained by rank 0."""
    own, named = config.out / "tokenizer.model", config.tokenizer.tokenizer_path
    if resumes:
        return Tokenizer.load(own)
    if named is not None:
        return Tokenizer.load(named)
    trained = None
    if distributed.is_main():
        trained = train_tokenizer(all_captions(source), vocab_size=config.tokenizer.vocab_size)
    tokenizer = distributed.gather_objects(trained)[0]
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def _training_source(data: SourceConfig, needs: Needs) -> Source:
    source = open_source(data, split="train", needs=needs)
    assert source is not None  # only validation data may be left out
    return source
