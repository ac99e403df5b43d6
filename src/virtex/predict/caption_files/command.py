"""Caption many images: what `virtex caption` does.

A call that goes on with a file ends with the same file, to the last bit, as one that was never cut,
as long as images, batch size and machine are the same.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch

from virtex import distributed
from virtex.engine.run import choose_device, choose_precision
from virtex.errors import ConfigError, DataError
from virtex.predict.caption_files.attention_folder import write_strips
from virtex.predict.caption_files.captioning import Captioning, decoding_for
from virtex.predict.caption_files.image_batches import ImageBatch, image_batches
from virtex.predict.caption_files.image_lists import find_images
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.caption_files.rows import RowLayout
from virtex.predict.caption_files.terminal import (
    print_captions,
    progress_bar,
    report_bad,
    report_without,
)
from virtex.predict.caption_files.writer import CaptionWriter, check_writable
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Caption

log = logging.getLogger("virtex")

Captioned = list[tuple[str, list[Caption]]]
"""Images and their captions, the best first."""


@dataclass
class Count:
    """How many images there are, and what became of them."""

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
        return (
            f"captioned {self.num_kept + self.num_captioned} of {self.num_images} images"
            f"{before}{bad}{without}"
        )


def caption_files(config: CaptionFilesConfig, *, stdin: BinaryIO | None = None) -> Count:
    """Caption images, print a line `path<TAB>caption` for each as it comes, and write them.

    An image that cannot be read, or of which no caption is found, is reported and left out; a
    later call tries it again.

    Args:
        stdin: What the image `-` stands for.

    Raises:
        ConfigError: Options that cannot work, `out` was written with others or another process
            writes it, or several processes were started.
        DataError: A path that is not there, too many bad images, no caption at all, a full disk.
        CheckpointError: `init` holds no captioner.
    """
    _check_alone()
    check_writable(config.out, folder=config.attention)
    names = find_images(
        config.images, lists=config.lists, allow_urls=config.allow_urls, stdin=stdin
    )
    captioning = load_captioning(config)
    writer = _open_writer(config, captioning)
    kept = writer.kept if writer else frozenset()
    count = Count(len(names), num_kept=sum(name in kept for name in names))
    batches = batches_to_do(names, kept, config.batch_size)
    with writer or contextlib.nullcontext(), progress_bar() as progress:
        task = progress.add_task("captions", total=sum(map(len, batches)))
        for batch in image_batches(
            names,
            batches,
            captioning.predictor.image,
            num_workers=config.num_workers,
            with_contents=config.attention is not None,
        ):
            bad_images = [one for one in batch.bad_images if one[0] not in kept]
            report_bad(bad_images, progress)
            captioned, without = _caption(batch, captioning, config, kept)
            report_without(without, progress)
            if writer:
                writer.write(captioned)
            print_captions(captioned)
            count.num_captioned += len(captioned)
            count.num_bad += len(bad_images)
            count.num_without += len(without)
            _check_bad(count, config)
            progress.advance(task, len(batch.names) + len(batch.bad_images))
    log.info("%s", count)
    return count


def load_captioning(config: CaptionFilesConfig) -> Captioning:
    """The model with its options."""
    device = choose_device(config.device)
    predictor = load_captioner(
        config.init,
        tokenizer=config.tokenizer,
        device=device,
        precision=choose_precision(config.precision, device),
    )
    predictor.captioner.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoding = decoding_for(predictor, config.decoding, config.max_steps)
    captioning = Captioning(predictor, decoding, config.num_captions, config.prefix, config.seed)
    captioning.check()
    return captioning


def batches_to_do(
    names: Sequence[str], kept: frozenset[str], batch_size: int
) -> list[Sequence[int]]:
    """Batches of the images that have no captions yet, as numbers.

    Sums in a batch depend, in their last bits, on the whole batch. So the one in which an earlier
    call was cut is made again as it was, with images that are done; after it all follows as if it
    had not been cut. What was missing before then comes first.
    """
    last = max((index for index, name in enumerate(names) if name in kept), default=-1)
    border = len(names) if last + 1 == len(names) else (last + 1) // batch_size * batch_size
    missing = [index for index in range(border) if names[index] not in kept]
    return [
        part[start : start + batch_size]
        for part in (missing, range(border, len(names)))
        for start in range(0, len(part), batch_size)
    ]


def _open_writer(config: CaptionFilesConfig, captioning: Captioning) -> CaptionWriter | None:
    if config.out is None:
        return None
    is_reranked = config.decoding.backward_weight > 0
    return CaptionWriter(
        config.out,
        RowLayout(config.num_captions > 1, is_reranked),
        out_format=config.format,
        settings=captioning.settings(),
        num_captions=config.num_captions,
        overwrite=config.overwrite,
    )


def _caption(
    batch: ImageBatch, captioning: Captioning, config: CaptionFilesConfig, kept: frozenset[str]
) -> tuple[Captioned, list[str]]:
    """Captions of those images in a batch that had none yet, and images of which none was found."""
    if not batch.names:
        return [], []
    written = captioning.write(batch.names, batch.images)
    new = [pair for pair in zip(batch.names, written, strict=True) if pair[0] not in kept]
    captioned = [(name, captions) for name, captions in new if captions]
    if config.attention is not None:
        contents = dict(zip(batch.names, batch.contents, strict=True))
        write_strips(
            config.attention,
            captioned,
            contents,
            captioning.predictor,
            batch_size=config.batch_size,
        )
    return captioned, [name for name, captions in new if not captions]


def _check_bad(count: Count, config: CaptionFilesConfig) -> None:
    """Raise DataError where too many images are bad, or all are."""
    if count.num_bad > config.bad_image_limit * count.num_images:
        kept = "The captions so far are kept. " if config.out is not None else ""
        raise DataError(
            f"{count.num_bad} of {count.num_images} images cannot be read, more than the "
            f"{config.bad_image_limit:.2%} that bad_image_limit allows. {kept}Mend or remove these "
            "images, or raise the limit."
        )
    if count.num_bad == count.num_images:
        raise DataError(f"none of {count.num_images} images can be read; the reasons are above.")
    if count.num_without and count.num_without + count.num_bad == count.num_images:
        raise DataError(
            f"no caption was found for any of {count.num_images} images: the model gives no "
            "caption a probability above 0. Train it longer, or search with other options."
        )


def _check_alone() -> None:
    if (number := distributed.num_started()) > 1:
        raise ConfigError(
            f"{number} processes were started, and each would caption all images. Start one for "
            "each part of the list of images, without torchrun or srun, each with its own --out."
        )
