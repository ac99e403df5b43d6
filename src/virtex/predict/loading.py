"""From INIT to a model that a user holds."""

from dataclasses import dataclass
from pathlib import Path

import torch

from virtex.config import from_dict
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.run import Precision
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.predict.predictor import Predictor
from virtex.tasks import registry  # noqa: F401 (a config names its task's class)
from virtex.tasks.base import Task, TaskConfig, TaskData
from virtex.zoo import registry as published_models
from virtex.zoo.legacy import load_released
from virtex.zoo.published import read_torch_file
from virtex.zoo.weights import (
    Weights,
    is_trained_file,
    load_strictly,
    read_trained,
    stored_backbone,
    trained_file,
)

NO_TOKENIZER = (
    "{what} holds no tokenizer: give the SentencePiece model that it was trained with as "
    "`tokenizer`, on the command line --tokenizer FILE. None is published: see docs/zoo.md."
)


def load_captioner(
    init: str | Path,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
) -> Predictor:
    """The captioner in a run folder, a weights file, a checkpoint, or a released VirTex file.

    Args:
        init: Where that is, or a published name.
        tokenizer: The vocabulary of a released file, which holds none; ours bring their own.
        precision: Arithmetic of the model.

    Raises:
        CheckpointError: Nothing there that captions images.
        ConfigError: A tokenizer is missing, or given where there is one already.
    """
    published = _published_writer(init)
    if published is not None and tokenizer is None:
        raise ConfigError(NO_TOKENIZER.format(what=published.name))
    path = trained_file(init)
    if is_trained_file(path):
        if tokenizer is not None:
            raise ConfigError(f"{path} brings its own tokenizer: leave `tokenizer` out.")
        weights = read_trained(path)
        task, data = rebuild(weights, path)
        if task.writer is None:
            raise CheckpointError(
                f"{path} was trained by {type(task).__name__}, which writes no captions; "
                "load_backbone takes its backbone."
            )
        return Predictor(
            task.writer, data.vocabulary, data.image, device=device, precision=precision
        )
    if published is None:
        captioner = load_released(read_torch_file(path), path)
    else:
        captioner = load_released(published_models.read_fetched(path), path)
        published_models.check_captioner(captioner, published, path)
    if tokenizer is None:
        raise ConfigError(NO_TOKENIZER.format(what=path))
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.load(tokenizer)
    if len(tokenizer) != captioner.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} pieces, {path} was trained with "
            f"{captioner.vocab_size}: give the one it was trained with."
        )
    return Predictor(captioner, tokenizer, ImageConfig(), device=device, precision=precision)


def _published_writer(init: str | Path) -> published_models.Published | None:
    """The published model that INIT names, if it names one.

    Raises:
        CheckpointError: What INIT names, or a published file is called, writes no captions.
    """
    if str(init) in ("random", "imagenet"):
        raise CheckpointError(
            f"{init} is a backbone alone, which writes no captions; load_backbone takes it."
        )
    published = published_models.named(init)
    model = published or published_models.of_file(Path(init))
    if model is not None and not model.writes_captions:
        raise CheckpointError(
            f"{init} is a {model.kind} model, which writes no captions; load_backbone takes its "
            "backbone."
        )
    return published


@dataclass(frozen=True)
class _Trained:
    """The part of a run's config that says what was trained."""

    backbone: BackboneConfig
    image: ImageConfig
    task: TaskConfig


def rebuild(weights: Weights, path: Path) -> tuple[Task, TaskData]:
    """The trained task and the data it was trained on.

    Raises:
        CheckpointError: A config that is not readable, or no tokenizer beside a captioner.
    """
    names = ("backbone", "image", "task")
    try:
        config = from_dict(_Trained, {name: weights.config[name] for name in names})
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: its config is not readable: {error}") from error
    if weights.tokenizer is None:
        raise CheckpointError(f"{path} has no tokenizer.model in the run folder above it.")
    data = TaskData(config.image, weights.tokenizer, weights.categories)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        task = config.task.build(Backbone(stored_backbone(weights.config, path)), data)
    load_strictly(task, weights.state, path)
    return task, data
