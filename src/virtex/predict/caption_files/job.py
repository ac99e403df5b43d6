"""Caption many images: what `virtex caption` does.

A call that goes on with a file ends with the same file, to the last bit, as one that was never cut,
as long as images, batch size and machine are the same.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from virtex import distributed, files
from virtex.engine.run import choose_device, choose_precision
from virtex.errors import ConfigError, DataError
from virtex.models.state_dict import state_digest
from virtex.predict.attention_figures import write_strips
from virtex.predict.caption_files.captions_file import CaptionsFile, locked
from virtex.predict.caption_files.image_batches import ImageBatch, image_batches
from virtex.predict.caption_files.image_lists import find_images
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.caption_files.terminal import print_captions, warn_left_out
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Caption, Predictor
from virtex.predict.results import Writing, with_likelihood
from virtex.progress import ProgressBar

log = logging.getLogger("virtex")

NUM_HASH_DIGITS = 16
Captioned = list[tuple[str, list[Caption]]]
"""Images and their captions, the best first."""


@dataclass
class Count:
    """Numbers of images, by what became of them."""

    num_images: int
    num_kept: int = 0
    """Captioned by an earlier call."""
    num_captioned: int = 0
    num_bad: int = 0
    """Could not be read."""
    num_without: int = 0
    """Could be read, but the search found no caption."""

    def __str__(self) -> str:
        before = f", {self.num_kept} of them before" if self.num_kept else ""
        bad = f"; {self.num_bad} could not be read" if self.num_bad else ""
        without = f"; {self.num_without} got no caption" if self.num_without else ""
        done = f"captioned {self.num_kept + self.num_captioned} of {self.num_images} images"
        return f"{done}{before}{bad}{without}"


def caption_files(config: CaptionFilesConfig, *, stdin: BinaryIO | None = None) -> Count:
    """Caption images, print a line `path<TAB>caption` for each as it comes, and write them.

    An image that cannot be read, or of which no caption is found, is reported and left out; a
    later call tries it again.

    Args:
        stdin: A list of images, which the image `-` stands for.

    Raises:
        ConfigError: Options that cannot work, `out` was written with others or another process
            writes it, or several processes were started.
        DataError: A path that is not there, too many bad images, no caption at all, a full disk.
        CheckpointError: `init` holds no captioner.
    """
    _check_alone()
    if config.attention is not None:
        with files.telling(config.attention):
            config.attention.mkdir(parents=True, exist_ok=True)
    names = find_images(config.images, lists=config.lists, stdin=stdin)
    if config.path is None:
        count = _caption_all(config, names, *load_writer(config), None)
    else:
        with locked(config.path):
            predictor, writing = load_writer(config)
            captions = CaptionsFile(
                config.path,
                config.format,
                settings_of(predictor, writing),
                overwrite=config.overwrite,
            )
            with contextlib.closing(captions):
                count = _caption_all(config, names, predictor, writing, captions)
                captions.convert()
    log.info("%s", count)
    return count


def load_writer(config: CaptionFilesConfig) -> tuple[Predictor, Writing]:
    """Load the model, and try its options on a blank image.

    Raises:
        ConfigError: Options that do not go together, or that the model cannot meet.
        CheckpointError: `init` holds no captioner.
    """
    device = choose_device(config.device)
    predictor = load_captioner(
        config.init,
        tokenizer=config.tokenizer,
        device=device,
        precision=choose_precision(config.precision, device),
    )
    predictor.captioner.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoding = config.decoding
    if config.max_steps is None:
        decoding = decoding.within(predictor.captioner.config.max_tokens)
    writing = Writing(decoding, config.num_captions, config.prefix, config.seed)
    size = predictor.image.size
    blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    with_likelihood(predictor.write_captions(blank, [""], writing))
    return predictor, writing


def settings_of(predictor: Predictor, writing: Writing) -> dict[str, Any]:
    """Return all that may change the captions, as plain values."""
    is_random = writing.decoding.strategy == "nucleus"
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
        **({"seed": writing.seed} if is_random else {}),
    }


def batches_to_do(
    names: Sequence[str], kept: frozenset[str], batch_size: int
) -> list[Sequence[int]]:
    """Return batches of the images that have no captions yet, as indices.

    Sums in a batch depend, in their last bits, on the whole batch. So the one in which an earlier
    call was cut is computed again as it was, with images that are done; after it all follows as if
    it had not been cut. What was missing before then comes first.
    """
    last = max((index for index, name in enumerate(names) if name in kept), default=-1)
    border = len(names) if last + 1 == len(names) else (last + 1) // batch_size * batch_size
    missing = [index for index in range(border) if names[index] not in kept]
    return [
        part[start : start + batch_size]
        for part in (missing, range(border, len(names)))
        for start in range(0, len(part), batch_size)
    ]


def caption_batch(batch: ImageBatch, predictor: Predictor, writing: Writing) -> Captioned:
    """Return the images of a batch with their captions; none where the search found none."""
    if not batch.names:
        return []
    images = batch.images.contiguous(memory_format=torch.channels_last)
    written = predictor.write_captions(images, batch.names, writing)
    return list(zip(batch.names, with_likelihood(written), strict=True))


def _caption_all(
    config: CaptionFilesConfig,
    names: Sequence[str],
    predictor: Predictor,
    writing: Writing,
    captions: CaptionsFile | None,
) -> Count:
    kept = captions.kept if captions else frozenset()
    count = Count(len(names), num_kept=sum(name in kept for name in names))
    batches = batches_to_do(names, kept, config.batch_size)
    read = image_batches(names, batches, predictor.image, num_workers=config.num_workers)
    with ProgressBar("captions", total=sum(map(len, batches))) as bar:
        for batch in read:
            new = [pair for pair in caption_batch(batch, predictor, writing) if pair[0] not in kept]
            captioned = [pair for pair in new if pair[1]]
            bad = [f"bad image {name}: {why}" for name, why in batch.bad_images if name not in kept]
            without = [f"no caption was found for {name}" for name, found in new if not found]
            warn_left_out(bad + without, bar)
            if config.attention is not None:
                _draw_attention(config.attention, captioned, predictor)
            if captions:
                captions.append(captioned)
            print_captions(captioned)
            count.num_captioned += len(captioned)
            count.num_bad += len(bad)
            count.num_without += len(without)
            _check_bad(count, config)
            bar.advance(len(batch.names) + len(batch.bad_images))
    return count


def _draw_attention(folder: Path, captioned: Captioned, predictor: Predictor) -> None:
    paths = [Path(name) for name, _ in captioned]
    best = [captions[0] for _, captions in captioned]
    attentions = predictor.attend(paths, best, batch_size=max(1, len(paths)))
    write_strips(folder, paths, attentions, predictor.image)


def _check_bad(count: Count, config: CaptionFilesConfig) -> None:
    """Stop where too many images are bad, or all are."""
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


def _check_alone() -> None:
    if (number := distributed.num_started()) > 1:
        raise ConfigError(
            f"{number} processes were started, and each would caption all images. Start one for "
            "each part of the list of images, without torchrun or srun, each with its own --out."
        )
