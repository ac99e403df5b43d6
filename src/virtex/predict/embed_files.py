"""The command `virtex embed`: pooled embeddings of many images, in one file."""

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from virtex import distributed, files
from virtex.data.transforms import normalize
from virtex.engine.precision import choose_precision
from virtex.engine.run import choose_device
from virtex.errors import ConfigError, DataError, one_line
from virtex.predict.caption_files.captions_file import locked
from virtex.predict.caption_files.image_batches import image_batches
from virtex.predict.caption_files.image_lists import find_images
from virtex.predict.embed_options import EmbedFilesConfig
from virtex.predict.embeddings import pooled
from virtex.predict.image_inputs import in_batches
from virtex.progress import ProgressBar
from virtex.zoo.backbones import build_backbone
from virtex.zoo.init import open_init

log = logging.getLogger("virtex")

Vectors = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
MAX_SHOWN = 100
"""Most bad images that are named one by one."""


def embed_files(config: EmbedFilesConfig, *, stdin: BinaryIO | None = None) -> Path:
    """Write the embeddings of images, and return the path of the file.

    An image that cannot be read is reported and has no row.

    Args:
        stdin: The list of images that `-` names.

    Raises:
        ConfigError: The options cannot work, another process writes the file, or several processes
            were started.
        DataError: A path does not exist, too many images are bad, the file cannot be written, or
            another program wrote it meanwhile; the embeddings are then in another file.
        CheckpointError: INIT holds no backbone, or an embedding holds NaN or infinity.
    """
    if (number := distributed.num_started()) > 1:
        raise ConfigError(f"{number} processes were started: start one, without torchrun or srun.")
    paths = find_images(config.images, lists=config.lists, stdin=stdin)
    with locked(config.out):
        _check_absent(config)
        names, vectors = _embedded(config, paths)
        _write(config, names, vectors)
    log.info("embedded %d of %d images", len(names), len(paths))
    return config.out


def _check_absent(config: EmbedFilesConfig) -> None:
    """Refuse a file that another process wrote since the options were read."""
    if config.out.exists() and not config.overwrite:
        raise ConfigError(f"out {config.out} exists: give another name, or --overwrite")


def _write(config: EmbedFilesConfig, names: Sequence[str], vectors: Sequence[Vectors]) -> None:
    """Write the file; beside it if another program has written one of its name meanwhile."""
    is_taken = config.out.exists() and not config.overwrite
    path = config.out
    if is_taken:
        path = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, names=np.array(names), embeddings=np.concatenate(vectors))
    if is_taken:
        raise DataError(
            f"{config.out} was written by another program meanwhile, and stays; the embeddings are "
            f"in {path}. Rename one of the two."
        )


def _embedded(config: EmbedFilesConfig, paths: Sequence[str]) -> tuple[list[str], list[Vectors]]:
    device, opened = choose_device(config.device), open_init(config.init)
    precision = choose_precision(config.precision, device)
    backbone = build_backbone(opened).eval().to(device)
    image = opened.image
    if config.image_size is not None:
        image = image.with_size(config.image_size)
    backbone.grid_size(image.size)
    names, vectors = list[str](), []
    bad: list[tuple[str, str]] = []
    batches = list(in_batches(range(len(paths)), config.batch_size))
    read = image_batches(paths, batches, image, num_workers=config.num_workers)
    with ProgressBar("embeddings", total=len(paths)) as bar:
        for batch in read:
            for name, reason in batch.bad_images[: max(0, MAX_SHOWN - len(bad))]:
                with bar.paused():
                    log.warning("left out: bad image %s: %s", one_line(name), reason)
            bad += batch.bad_images
            _check_bad(len(bad), len(paths), config.bad_image_limit)
            if batch.names:
                pixels = normalize(batch.images.to(device))
                vectors.append(pooled(backbone, pixels, precision=precision).numpy())
                names += batch.names
            bar.advance(len(batch.names) + len(batch.bad_images))
    if bad:
        log.warning("%d of %d images cannot be read and have no row", len(bad), len(paths))
    return names, vectors


def _check_bad(num_bad: int, total: int, limit: float) -> None:
    if num_bad > limit * total:
        raise DataError(
            f"{num_bad} of {total} images cannot be read, more than the {limit:.2%} that "
            "bad_image_limit allows. Mend or remove these images, or raise the limit."
        )
    if num_bad == total:
        raise DataError(f"none of {total} images can be read; the reasons are above.")
