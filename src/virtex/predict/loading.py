"""Load a trained captioner or embedder from INIT."""

from pathlib import Path
from typing import get_args

import torch

from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.run import Precision, choose_device
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone
from virtex.models.state_dict import build_strictly
from virtex.predict.embedder import Embedder
from virtex.predict.predictor import Predictor
from virtex.tasks.base import Task, TaskData
from virtex.tasks.contrastive import Contrastive, ContrastiveConfig
from virtex.zoo import models
from virtex.zoo.init import UNTRAINED, Opened, open_init_in_all
from virtex.zoo.released import load_released

NO_TOKENIZER = (
    "{what} holds no tokenizer: give the SentencePiece model that it was trained with as "
    "`tokenizer`, on the command line --tokenizer FILE. None is published: see docs/zoo.md."
)
NO_EMBEDDER = (
    "{init} is no contrastively trained run; load_captioner takes captioners, load_backbone any "
    "backbone."
)


def load_captioner(
    init: str | Path | Opened,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    device: torch.device | str = "auto",
    precision: Precision = "fp32",
) -> Predictor:
    """Return the captioner of an INIT.

    Args:
        init: A run folder, a weights file, a checkpoint, a released file, or a published name; or
            one of these, opened.
        tokenizer: Vocabulary of a released file, which holds none; a run has its own.
        device: auto (the GPU if there is one), cpu, cuda, cuda:1, mps.
        precision: Arithmetic of the model.

    Raises:
        CheckpointError: `init` holds no captioner.
        ConfigError: The tokenizer is missing, or given for a run.
    """
    opened = open_whole_model(init, has_tokenizer=tokenizer is not None)
    if opened.kind == "run":
        if not opened.trained.task.writes_captions:
            raise _of_another_kind(opened, "writes no captions")
        _refuse_tokenizer(opened, tokenizer)
        task, data = build_task(opened)
        assert task.writer is not None, "its config says that it writes captions"
        captioner, vocabulary, image = task.writer, data.vocabulary, data.image
    else:
        captioner, image = load_released(opened), ImageConfig()
        if tokenizer is None:
            raise ConfigError(NO_TOKENIZER.format(what=opened.path))
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = Tokenizer.load(tokenizer)
        vocabulary = tokenizer
    if len(vocabulary) != captioner.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(vocabulary)} pieces, {opened.path} was trained with "
            f"{captioner.vocab_size}: give the one it was trained with."
        )
    device = _usable(device, precision)
    return Predictor(captioner, vocabulary, image, device=device, precision=precision)


def load_embedder(
    init: str | Path | Opened,
    *,
    device: torch.device | str = "auto",
    precision: Precision = "fp32",
) -> Embedder:
    """Return the embedder of an INIT: a contrastively trained model.

    Args: see `load_captioner`.

    Raises:
        CheckpointError: `init` holds no contrastively trained model.
    """
    if not isinstance(init, Opened):
        if models.find(init) is not None:
            raise CheckpointError(NO_EMBEDDER.format(init=init))
        init = open_init_in_all(init)
    if init.kind != "run":
        raise CheckpointError(NO_EMBEDDER.format(init=init.init))
    if not isinstance(init.trained.task, ContrastiveConfig):
        raise _of_another_kind(init, "puts no images and texts into one space")
    task, data = build_task(init)
    assert isinstance(task, Contrastive), "its config builds one"
    device = _usable(device, precision)
    return Embedder(task, data.vocabulary, data.image, device=device, precision=precision)


def load_matcher(
    init: str | Path | Opened,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    device: torch.device | str = "auto",
    precision: Precision = "fp32",
) -> Predictor | Embedder:
    """Return the model of an INIT that scores texts for images: a captioner or an embedder.

    Args: see `load_captioner`.

    Raises:
        CheckpointError: `init` holds neither.
        ConfigError: The tokenizer is missing, or given for a run.
    """
    opened = open_whole_model(init, has_tokenizer=tokenizer is not None)
    if opened.kind == "run":
        if isinstance(opened.trained.task, ContrastiveConfig):
            _refuse_tokenizer(opened, tokenizer)
            return load_embedder(opened, device=device, precision=precision)
        if not opened.trained.task.writes_captions:
            lacks = "neither writes captions nor compares texts with images"
            raise _of_another_kind(opened, lacks)
    return load_captioner(opened, tokenizer=tokenizer, device=device, precision=precision)


def open_whole_model(init: str | Path | Opened, *, has_tokenizer: bool) -> Opened:
    """Open an INIT that must hold a captioner or an embedder, not a backbone alone.

    Errors about a published name are raised before its file is downloaded.

    Args:
        has_tokenizer: Whether the user gave a tokenizer.

    Raises:
        CheckpointError: It holds a backbone alone, or cannot be opened.
        ConfigError: It needs a tokenizer.
    """
    if isinstance(init, Opened) and init.kind not in UNTRAINED:
        return init
    init = init.init if isinstance(init, Opened) else init
    if str(init) in UNTRAINED:
        raise CheckpointError(
            f"{init} is a backbone alone, which writes no captions; load_backbone takes it."
        )
    published = models.find(init)
    model = published or models.find_by_file(Path(init))
    if model is not None and not model.writes_captions:
        raise CheckpointError(
            f"{init} is a {model.kind} model, which writes no captions; load_backbone takes its "
            "backbone."
        )
    if published is not None and not has_tokenizer:
        raise ConfigError(NO_TOKENIZER.format(what=published.name))
    return open_init_in_all(init)


def build_task(opened: Opened) -> tuple[Task, TaskData]:
    """Return the trained task of a run, and a description of the data it was trained on.

    Raises:
        CheckpointError: The config cannot be read, the run has no tokenizer, or the sizes in the
            config are not those of the weights.
    """
    trained = opened.trained
    if opened.tokenizer is None:
        raise CheckpointError(f"{opened.path} has no tokenizer, in it or in its run folder.")
    data = TaskData(trained.image, opened.tokenizer, opened.categories)
    with torch.random.fork_rng(devices=[]):  # random initialisation, which is overwritten
        task = build_strictly(
            lambda: trained.task.build(Backbone(trained.backbone), data),
            opened.state,
            subject=opened.path,
        )
    return task, data


def _of_another_kind(opened: Opened, lacks: str) -> CheckpointError:
    """Return the error for a run of an unsuitable task, with what else takes the run."""
    config = opened.trained.task
    remedy = "load_backbone takes its backbone, `virtex transfer linear` measures that"
    if config.writes_captions:
        remedy = "load_captioner takes it"
    elif isinstance(config, ContrastiveConfig):
        remedy = "load_embedder takes it"
    name = type(config).__name__
    return CheckpointError(f"{opened.path} was trained with {name}, which {lacks}; {remedy}.")


def _refuse_tokenizer(opened: Opened, given: Tokenizer | str | Path | None) -> None:
    if given is not None:
        raise ConfigError(f"{opened.path} has its own tokenizer: leave `tokenizer` out.")


def _usable(device: torch.device | str, precision: Precision) -> torch.device:
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}.")
    return choose_device(str(device))
