"""From INIT to a model that a user holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from virtex.config import from_dict
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.run import Precision, choose_device
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.predict.embedder import Embedder
from virtex.predict.predictor import Predictor
from virtex.tasks import registry  # noqa: F401 (a config names its task's class)
from virtex.tasks.base import Task, TaskConfig, TaskData
from virtex.tasks.contrastive import Contrastive, ContrastiveConfig
from virtex.zoo import models as published_models
from virtex.zoo.foreign import read_torch_file
from virtex.zoo.released import load_released
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
        device: auto (the GPU if there is one), cpu, cuda, cuda:1, mps.
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
        _refuse_tokenizer(tokenizer, path)
        return _captioner(read_trained(path), path, device=device, precision=precision)
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
    device = _usable(device, precision)
    return Predictor(captioner, tokenizer, ImageConfig(), device=device, precision=precision)


def load_embedder(
    init: str | Path, *, device: torch.device | str = "cpu", precision: Precision = "fp32"
) -> Embedder:
    """The contrastively trained model in a run folder, a weights file or a checkpoint.

    Args:
        init: Where that is.
        device: auto (the GPU if there is one), cpu, cuda, cuda:1, mps.
        precision: Arithmetic of the model.

    Raises:
        CheckpointError: Nothing there that compares images with texts.
    """
    if _published_writer(init) is not None or not is_trained_file(trained_file(init)):
        raise CheckpointError(
            f"{init} is no contrastively trained run; load_captioner takes captioners, "
            "load_backbone any backbone."
        )
    path = trained_file(init)
    return _embedder(read_trained(path), path, device=device, precision=precision)


def load_matcher(
    init: str | Path,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
) -> Predictor | Embedder:
    """What says how well texts fit images: a captioner, or a contrastively trained run.

    Args as of `load_captioner`.

    Raises:
        CheckpointError: Something there that does neither.
        ConfigError: A tokenizer is missing, or given where there is one already.
    """
    if _published_writer(init) is not None or not is_trained_file(trained_file(init)):
        return load_captioner(init, tokenizer=tokenizer, device=device, precision=precision)
    path = trained_file(init)
    _refuse_tokenizer(tokenizer, path)
    weights = read_trained(path)
    task = _trained(weights, path).task
    if isinstance(task, ContrastiveConfig):
        return _embedder(weights, path, device=device, precision=precision)
    if task.writes_captions:
        return _captioner(weights, path, device=device, precision=precision)
    raise _of_another_kind(task, path, "neither writes captions nor compares texts with images")


def _captioner(
    weights: Weights, path: Path, *, device: torch.device | str, precision: Precision
) -> Predictor:
    config = _trained(weights, path).task
    if not config.writes_captions:
        raise _of_another_kind(config, path, "writes no captions")
    task, data = rebuild(weights, path)
    assert task.writer is not None, "its config says that it writes captions"
    device = _usable(device, precision)
    return Predictor(task.writer, data.vocabulary, data.image, device=device, precision=precision)


def _embedder(
    weights: Weights, path: Path, *, device: torch.device | str, precision: Precision
) -> Embedder:
    config = _trained(weights, path).task
    if not isinstance(config, ContrastiveConfig):
        raise _of_another_kind(config, path, "puts no images and texts into one space")
    task, data = rebuild(weights, path)
    assert isinstance(task, Contrastive), "its config builds one"
    device = _usable(device, precision)
    return Embedder(task, data.vocabulary, data.image, device=device, precision=precision)


def _of_another_kind(config: TaskConfig, path: Path, lacks: str) -> CheckpointError:
    """The error for a run that lacks what is asked of it; it names what takes the run."""
    remedy = "load_backbone takes its backbone, `virtex transfer linear` measures that"
    if config.writes_captions:
        remedy = "load_captioner takes it"
    elif isinstance(config, ContrastiveConfig):
        remedy = "load_embedder takes it"
    name = type(config).__name__
    return CheckpointError(f"{path} was trained with {name}, which {lacks}; {remedy}.")


def _refuse_tokenizer(tokenizer: Tokenizer | str | Path | None, path: Path) -> None:
    if tokenizer is not None:
        raise ConfigError(f"{path} brings its own tokenizer: leave `tokenizer` out.")


def _usable(device: torch.device | str, precision: Precision) -> torch.device:
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}.")
    return choose_device(str(device))


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


def _trained(weights: Weights, path: Path) -> _Trained:
    """What was trained.

    Raises:
        CheckpointError: A config that is not readable.
    """
    names = ("backbone", "image", "task")
    try:
        return from_dict(_Trained, {name: weights.config[name] for name in names})
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: its config is not readable: {error}") from error


def rebuild(weights: Weights, path: Path) -> tuple[Task, TaskData]:
    """The trained task and the data it was trained on.

    Raises:
        CheckpointError: A config that is not readable, or no tokenizer beside a captioner.
    """
    config = _trained(weights, path)
    if weights.tokenizer is None:
        raise CheckpointError(f"{path} has no tokenizer.model in the run folder above it.")
    data = TaskData(config.image, weights.tokenizer, weights.categories)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        task = config.task.build(Backbone(stored_backbone(weights.config, path)), data)
    load_strictly(task, weights.state, path)
    return task, data
