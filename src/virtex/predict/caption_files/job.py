"""The command `virtex caption`: captions of many images, on stdout and in a file.

A call that was interrupted and resumed ends with the same file, byte for byte, as one that was not,
if images, batch size and machine are the same.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from virtex import distributed, files
from virtex.engine.precision import choose_precision
from virtex.engine.run import choose_device
from virtex.errors import ConfigError, DataError, one_line
from virtex.models.state_dict import state_digest
from virtex.predict.attention_figures import strip_name, write_strip
from virtex.predict.caption_files.captions_file import CaptionsFile, locked
from virtex.predict.caption_files.image_batches import ImageBatch, image_batches
from virtex.predict.caption_files.image_lists import find_images
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.image_inputs import in_batches
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Predictor
from virtex.predict.results import Caption, Writing, drop_impossible
from virtex.progress import ProgressBar

log = logging.getLogger("virtex")

NUM_HASH_DIGITS = 16
Captioned = list[tuple[str, list[Caption]]]
"""Images and their captions, the best first."""


@dataclass
class Count:
    """Numbers of images, by result."""

    num_images: int
    num_kept: int = 0
    """Number of images with captions from an earlier call."""
    num_captioned: int = 0
    num_bad: int = 0
    """Number of images that could not be read."""
    num_without: int = 0
    """Number of images for which the search found no caption."""
    num_undrawn: int = 0
    """Number of figures that could not be drawn or written."""
    draws: bool = False
    """Whether figures are drawn."""

    def __str__(self) -> str:
        before = f", {self.num_kept} of them before" if self.num_kept else ""
        bad = f"; {self.num_bad} could not be read" if self.num_bad else ""
        without = f"; {self.num_without} got no caption" if self.num_without else ""
        undrawn = f"; {self.num_undrawn} figures could not be drawn" if self.num_undrawn else ""
        if self.draws and self.num_kept:
            undrawn += (
                f"; no figures of the {self.num_kept} captioned before: give --overwrite, or "
                "another --out, to draw them"
            )
        done = f"captioned {self.num_kept + self.num_captioned} of {self.num_images} images"
        return f"{done}{before}{bad}{without}{undrawn}"


def caption_files(config: CaptionFilesConfig, *, stdin: BinaryIO | None = None) -> Count:
    """Caption images, print a line `path<TAB>caption` for each, and write the captions to a file.

    An image that cannot be read, or for which no caption is found, is reported and left out; a
    later call tries it again. A figure that cannot be drawn is reported, and the caption kept.

    Args:
        stdin: The list of images that `-` names.

    Raises:
        ConfigError: The options cannot work, the file has captions of other options or is in use,
            or several processes were started.
        DataError: A path does not exist, too many images are bad, there is no caption at all, or
            the disk is full.
        CheckpointError: `init` holds no captioner.
    """
    if (number := distributed.num_started()) > 1:
        raise ConfigError(
            f"{number} processes were started, and each would caption all images. Start one for "
            "each part of the list of images, without torchrun or srun, each with its own --out."
        )
    for folder in (config.attention, config.relevance):
        if folder is not None:
            with files.write_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
    names = find_images(config.images, lists=config.lists, stdin=stdin)
    with contextlib.nullcontext() if config.path is None else locked(config.path):
        predictor, writing = load_writer(config)
        captions = None
        if config.path is not None:
            settings = settings_of(predictor, writing)
            captions = CaptionsFile(
                config.path, config.format, settings, overwrite=config.overwrite
            )
        count = _caption_all(config, names, predictor, writing, captions)
        if captions is not None:
            captions.convert()
    log.info("%s", count)
    return count


def load_writer(config: CaptionFilesConfig) -> tuple[Predictor, Writing]:
    """Load the model, and test the options on a blank image."""
    device = choose_device(config.device)
    predictor = load_captioner(
        config.init,
        tokenizer=config.tokenizer,
        device=device,
        precision=choose_precision(config.precision, device),
    )
    predictor.captioner.backbone.to(memory_format=torch.channels_last)
    decoding = config.decoding
    if config.max_steps is None:
        decoding = decoding.within(predictor.captioner.config.max_tokens)
    writing = Writing(decoding, config.num_captions, config.prefix, config.seed)
    size = predictor.image.size
    blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    drop_impossible(predictor.write_captions(blank, [""], writing))
    return predictor, writing


def settings_of(predictor: Predictor, writing: Writing) -> dict[str, Any]:
    """Return all options that may change the captions, and a digest of the model."""
    sizes = f"{predictor.image.size} {predictor.image.validation_short_side}".encode()
    model = state_digest(
        predictor.captioner.state_dict(), identity=predictor.tokenizer.model_bytes + sizes
    )
    return {
        "model": model[:NUM_HASH_DIGITS],
        "decoding": asdict(writing.decoding),
        "num_captions": writing.num_captions,
        "prefix": writing.prefix,
        "precision": predictor.precision,
        **({"seed": writing.seed} if writing.decoding.strategy == "nucleus" else {}),
    }


def batches_to_do(
    names: Sequence[str], kept: frozenset[str], batch_size: int
) -> list[Sequence[int]]:
    """Return batches of the images without captions, as indices.

    The last bits of a sum depend on the whole batch. Therefore the batch in which an earlier call
    was interrupted is computed again as a whole, and the rest follows in the same batches as if
    there had been no interruption. Images that are missing from earlier batches come first.
    """
    last = max((index for index, name in enumerate(names) if name in kept), default=-1)
    first = len(names) if last + 1 == len(names) else (last + 1) // batch_size * batch_size
    missing = [index for index in range(first) if names[index] not in kept]
    return [
        part
        for each in (missing, range(first, len(names)))
        for part in in_batches(each, batch_size)
    ]


def caption_batch(batch: ImageBatch, predictor: Predictor, writing: Writing) -> Captioned:
    """Return the images of a batch and their captions; an image may have none."""
    if not batch.names:
        return []
    images = batch.images.contiguous(memory_format=torch.channels_last)
    written = predictor.write_captions(images, batch.names, writing)
    return list(zip(batch.names, drop_impossible(written), strict=True))


def _caption_all(
    config: CaptionFilesConfig,
    names: Sequence[str],
    predictor: Predictor,
    writing: Writing,
    captions: CaptionsFile | None,
) -> Count:
    kept = captions.kept if captions else frozenset()
    draws = config.attention is not None or config.relevance is not None
    count = Count(len(names), num_kept=sum(name in kept for name in names), draws=draws)
    batches = batches_to_do(names, kept, config.batch_size)
    read = image_batches(names, batches, predictor.image, num_workers=config.num_workers)
    with ProgressBar("captions", total=sum(map(len, batches))) as bar:
        for batch in read:
            new = [pair for pair in caption_batch(batch, predictor, writing) if pair[0] not in kept]
            captioned = [pair for pair in new if pair[1]]
            bad = [f"bad image {name}: {why}" for name, why in batch.bad_images if name not in kept]
            without = [f"no caption was found for {name}" for name, found in new if not found]
            _warn(bad + without, bar)
            with _kept_on_failure(captioned, captions):
                undrawn = _draw(config, captioned, predictor)
            _warn(undrawn, bar, prefix="not drawn")
            count.num_undrawn += len(undrawn)
            count.num_captioned += len(captioned)
            count.num_bad += len(bad)
            count.num_without += len(without)
            _check_bad(count, config)
            bar.advance(len(batch.names) + len(batch.bad_images))
    return count


@contextlib.contextmanager
def _kept_on_failure(captioned: Captioned, captions: CaptionsFile | None) -> Iterator[None]:
    """Write and print captions after the block, even if it fails.

    After an interruption they are not written: the next call captions and draws these images.
    """
    failure = None
    try:
        yield
    except Exception as error:  # memory may be short for the gradients of relevance
        failure = error
    if captions:
        captions.append(captioned)
    _print(captioned)
    if failure is not None:
        raise failure


def _draw(config: CaptionFilesConfig, captioned: Captioned, predictor: Predictor) -> list[str]:
    """Write the figures of a batch, and return what could not be drawn and why."""
    kinds = ((config.attention, predictor.attend), (config.relevance, predictor.relevance))
    return [
        f"{folder / strip_name(name)}: {reason}"
        for folder, maps_of in kinds
        if folder is not None and captioned
        for name, reason in _write_strips(folder, captioned, predictor, maps_of)
    ]


def _write_strips(
    folder: Path, captioned: Captioned, predictor: Predictor, maps_of: Callable[..., list[Any]]
) -> list[tuple[str, DataError]]:
    """Write an image of the maps of each image's best caption; return those that failed, and why.

    If an image of several cannot be read again, each is tried by itself.
    """
    names = [name for name, _ in captioned]
    try:
        shown = maps_of(names, [found[0] for _, found in captioned], batch_size=len(names))
    except DataError as error:
        if len(names) == 1:
            return [(names[0], error)]
        each = [_write_strips(folder, [one], predictor, maps_of) for one in captioned]
        return [failure for failures in each for failure in failures]
    failures = []
    for name, maps in zip(names, shown, strict=True):
        try:
            write_strip(folder / strip_name(name), name, maps, predictor.image)
        except DataError as error:
            failures.append((name, error))
    return failures


def _print(captioned: Captioned) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    for name, captions in captioned:
        for caption in captions:
            line = f"{one_line(name)}\t{one_line(caption.text)}"
            try:
                print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise DataError(f"cannot write to stdout: {error.strerror}.") from error


def _warn(reasons: Sequence[str], bar: ProgressBar, *, prefix: str = "left out") -> None:
    if reasons:
        with bar.paused():
            for reason in reasons:
                log.warning("%s: %s", prefix, one_line(reason))


def _check_bad(count: Count, config: CaptionFilesConfig) -> None:
    """Raise an error if too many images are bad, or all are bad or without captions."""
    total = count.num_images
    if count.num_bad > config.bad_image_limit * total:
        kept = "The captions so far are kept. " if config.path is not None else ""
        raise DataError(
            f"{count.num_bad} of {total} images cannot be read, more than the "
            f"{config.bad_image_limit:.2%} that bad_image_limit allows. {kept}Mend or remove these "
            "images, or raise the limit."
        )
    if count.num_bad == total:
        raise DataError(f"none of {total} images can be read; the reasons are above.")
    if count.num_without and count.num_without + count.num_bad == total:
        raise DataError(
            f"no caption was found for any of {total} images: the model gives no caption a "
            "probability above 0. Train it longer, or search with other options."
        )
