"""Caption image files and folders of them: what `virtex caption` does."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from virtex.data.images import BadImageError
from virtex.engine.run import choose_device
from virtex.errors import ConfigError, DataError, listing
from virtex.models.decoding import DecodingConfig
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Caption, Predictor

log = logging.getLogger("virtex")

CHUNK = 64
"""Captions are printed, and nucleus sampling is seeded, by so many images."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class CaptionedFile:
    """One line of the answer."""

    image: str
    caption: str
    log_likelihood: float


def caption_files(
    init: str,
    images: Sequence[Path],
    *,
    decoding: DecodingConfig,
    max_steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    tokenizer: Path | None = None,
    json_path: Path | None = None,
) -> list[CaptionedFile]:
    """Caption files, and the files in folders, and print them as they come.

    An image that cannot be read is reported and left out.

    Args:
        init: A run folder, a weights file, a released file or a published name.
        max_steps: Longest caption, in tokens; by default as many as `decoding` says, or fewer where
            the model was built for fewer.
        tokenizer: The vocabulary of a released .pth, which holds none.
        images: Files, or folders that are searched to any depth.
        json_path: Where to write the captions too, as a JSON list.

    Raises:
        DataError: A path that is not there, or no image at all that can be read.
        CheckpointError: `init` holds no captioner.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, must be at least 1")
    predictor = load_captioner(init, tokenizer=tokenizer, device=choose_device(device))
    paths = find_images(images)
    longest = min(decoding.max_steps, predictor.captioner.config.max_tokens)
    decoding = replace(decoding, max_steps=max_steps or longest)
    captioned = []
    console = Console(stderr=True)
    starts = track(
        range(0, len(paths), CHUNK), "captions", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    for start in starts:
        for path, caption in _readable(
            predictor, paths[start : start + CHUNK], decoding, batch_size, seed + start
        ):
            captioned.append(CaptionedFile(str(path), caption.text, caption.log_likelihood))
            print(f"{path}\t{caption.text}", file=sys.stdout, flush=True)
    if not captioned:
        raise DataError(f"none of {len(paths)} images can be read: {listing(paths)}")
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps([asdict(line) for line in captioned], indent=1) + "\n")
    return captioned


def find_images(given: Sequence[Path]) -> list[Path]:
    """Files as they are, and the image files below folders, sorted.

    Raises:
        DataError: Names every path that is not there, and every folder without images.
    """
    problems, found = [], []
    for path in given:
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            found += below
            if not below:
                problems.append(
                    f"{path} holds no image files ({', '.join(sorted(IMAGE_SUFFIXES))})"
                )
        else:
            problems.append(f"{path} is no file or folder")
    if problems:
        raise DataError(
            f"cannot caption: {listing(problems)}. Give image files or folders of them."
        )
    return found


def _readable(
    predictor: Predictor,
    paths: Sequence[Path],
    decoding: DecodingConfig,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[Path, Caption]]:
    """The captions of a batch; where an image is bad, those of the others one by one."""
    try:
        captions = predictor.caption(list(paths), decoding, batch_size=batch_size, seed=seed)
    except BadImageError as error:
        if len(paths) == 1:
            log.warning("left out: %s", error)
            return
        for path in paths:
            yield from _readable(predictor, [path], decoding, batch_size, seed)
        return
    yield from zip(paths, captions, strict=True)
