"""Options of `virtex embed`. Torch is not imported here, so that errors come at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from virtex import config as config_files
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.predict.caption_files.options import without_lists

SUFFIX = ".npz"
MAX_SIDE = 8192
RANGES = {
    "batch_size": (1, 2**20), "num_workers": (0, 2**10), "image_size": (1, MAX_SIDE),
    "bad_image_limit": (0, 1),
}  # fmt: skip


@dataclass(frozen=True)
class EmbedFilesConfig:
    """Options of `virtex embed`."""

    init: str
    """Backbone: random, imagenet, a run folder, a weights file, or a published name."""
    out: Path
    """File to write, .npz: `names`, and `embeddings` (N, C) in float32, one row each."""
    images: tuple[str, ...] = ()
    """Image files, folders (searched to any depth), quoted globs ('images/**/*.jpg'), or - for a
    list from stdin."""
    lists: tuple[str, ...] = ()
    """Files that name an image a line; on the command line `--list FILE`, which may be repeated."""
    overwrite: bool = False
    """Replace an existing file."""
    bad_image_limit: float = 1.0
    """Largest fraction of images that cannot be read before the command fails; 1: no limit."""
    image_size: int | None = None
    """Side of the centre crop, in pixels; by default that of the run, or 224."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the model; auto: bf16 on devices that support it, else fp32."""
    batch_size: int = 64
    """Images in a batch."""
    num_workers: int | None = None
    """Number of processes that read images; by default 2, or 0 for few images."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, RANGES)
        if self.out.suffix.lower() != SUFFIX:
            problems.append(f"out {self.out}: end the name in {SUFFIX}")
        if self.out.is_dir():
            problems.append(f"out {self.out} is a folder: give a file")
        elif self.out.exists() and not self.overwrite:
            problems.append(f"out {self.out} exists: give another name, or --overwrite")
        raise_all(ConfigError, "the options cannot work", problems)


def parse_embed(arguments: Sequence[str]) -> EmbedFilesConfig:
    """Return the config that a command line describes.

    Raises:
        ConfigError: An option is unknown or cannot work, or there are no images.
    """
    rest, lists = without_lists(arguments, prog="virtex embed")
    config = config_files.parse(
        EmbedFilesConfig,
        rest,
        prog="virtex embed",
        description="Write the pooled embedding of each image.",
        positionals=["init", "*images"],
    )
    config = replace(config, lists=(*config.lists, *lists))
    if not config.images and not config.lists:
        raise ConfigError(
            "no images: name files, folders, globs, or - for a list from stdin.\n"
            "`virtex embed --help` lists the options."
        )
    return config
