"""Options of `virtex caption`. Torch is not imported here, so that `--help` is fast."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from virtex import config as config_files
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.decoding_config import DecodingConfig

FORMATS = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
SAMPLING = ("nucleus", "top_k", "temperature")
BEAMS = ("beams", "per_node_beams")
RANKING = ("length_penalty", "backward_weight")
OTHERS = ("no_repeat_ngram", "max_steps")
RANGES = {
    "batch_size": (1, 2**20), "num_captions": (1, 2**20), "num_workers": (0, 2**10),
    "seed": (0, 2**63 - 1), "bad_image_limit": (0, 1),
}  # fmt: skip
NAMES = {"nucleus": "top_p", "beams": "num_beams"}
"""Options whose field in DecodingConfig has another name."""
ABOUT = (
    "Caption images: prints a line path<TAB>caption for each as it comes. INIT and the images need "
    "no flag: virtex caption INIT IMAGE|DIR|GLOB|- ... [--option value ...]"
)


@dataclass(frozen=True)
class CaptionFilesConfig:
    """Options of `virtex caption`."""

    init: str
    """A run folder, a weights file, a released .pth, a published name."""
    images: tuple[str, ...] = ()
    """Image files, folders (searched to any depth), quoted globs ('images/**/*.jpg'), or - for a
    list from stdin."""
    lists: tuple[str, ...] = ()
    """Files that name an image a line; on the command line `--list FILE`, which may be repeated."""
    out: Path | None = None
    """File to write the captions to: .jsonl, .csv or .json; images in it are skipped."""
    json: Path | None = None
    """File to write the captions to as a JSON list, whatever its suffix; instead of `out`."""
    overwrite: bool = False
    """Delete the captions of an earlier call."""
    attention: Path | None = None
    """Folder for an image of the attention at each word of each best caption."""
    relevance: Path | None = None
    """Folder for an image of where each word of each best caption is read from, by gradients."""
    bad_image_limit: float = 1.0
    """Largest fraction of images that cannot be read before the command stops; 1: no limit."""
    num_captions: int = 1
    """Number of captions for each image."""
    prefix: str = ""
    """Words that every caption begins with."""
    max_steps: int | None = None
    """Maximum length of a caption, in tokens; by default 30, or the model's maximum if lower."""
    beams: int | None = None
    """Number of beams; by default 5."""
    per_node_beams: int | None = None
    """Number of next tokens that each beam proposes; by default 2."""
    length_penalty: float | None = None
    """Rank captions by log p / tokens ** this; by default 0."""
    no_repeat_ngram: int | None = None
    """Length of token sequences that may not occur twice in a caption; by default 0: off."""
    backward_weight: float | None = None
    """Weight, from 0 to 1, of the right-to-left decoder in the ranking; by default 0."""
    greedy: bool = False
    """Choose the most probable token at each step, without beams."""
    nucleus: float | None = None
    """Sample from the fewest tokens whose probabilities sum to this."""
    top_k: int | None = None
    """Sample from this number of the most probable tokens."""
    temperature: float | None = None
    """Sample with logits divided by this; values below 1 favour probable tokens."""
    seed: int = 0
    """Random seed of sampling; the captions of an image depend on it and the image's path."""
    original: bool = False
    """Search as the released code does."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the model; bf16 is faster on devices that support it, and changes some
    captions; auto: bf16 on these devices, else fp32."""
    batch_size: int = 32
    """Batch size."""
    num_workers: int | None = None
    """Number of processes that read images; by default 2, or 0 for few images."""
    tokenizer: Path | None = None
    """Vocabulary of a released .pth, which holds none."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, RANGES)
        if self.out is not None and self.out.suffix.lower() not in FORMATS:
            problems.append(
                f"{self.out} ends in {self.out.suffix or 'no suffix'}: captions are written as "
                f"{', '.join(FORMATS)}, so end the name in one of them"
            )
        if self.out is not None and self.json is not None:
            problems.append("--json and --out both name a file to write: give one of them")
        if self.overwrite and self.path is None:
            problems.append("--overwrite needs a file to write: add --out FILE")
        sampling, beams = self._given(SAMPLING), self._given(BEAMS)
        if sampling and beams:
            problems.append(
                f"{sampling} cannot be combined with {beams}: sampling has no beams; leave one out"
            )
        if self.greedy and (others := self._given((*SAMPLING, *BEAMS, *RANKING))):
            problems.append(
                f"--greedy cannot be combined with {others}: it follows one caption; leave one out"
            )
        raise_all(ConfigError, "the options cannot work", problems)
        self.decoding.num_running(self.num_captions)

    @property
    def path(self) -> Path | None:
        """File of captions."""
        return self.out or self.json

    @property
    def format(self) -> str:
        """Format of the file of captions."""
        return FORMATS[self.out.suffix.lower()] if self.out is not None else "json"

    @property
    def decoding(self) -> DecodingConfig:
        """Options of the search."""
        names = (*SAMPLING, *BEAMS, *RANKING, *OTHERS)
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        values = {NAMES.get(name, name): value for name, value in given.items()}
        if self.greedy:
            values["strategy"] = "greedy"
        elif self._given(SAMPLING):
            values = {"strategy": "nucleus", "top_p": 1.0, **values}
        return DecodingConfig(**values, original=self.original)

    def _given(self, names: Sequence[str]) -> str:
        """Return the flags of the options that are given."""
        return ", ".join(f"--{name}" for name in names if getattr(self, name) is not None)


def parse_caption(arguments: Sequence[str]) -> CaptionFilesConfig:
    """Return the config that a command line describes.

    Raises:
        ConfigError: An option is unknown, options exclude each other, or there are no images.
    """
    rest, lists = without_lists(arguments, prog="virtex caption")
    config = config_files.parse(
        CaptionFilesConfig,
        rest,
        prog="virtex caption",
        description=ABOUT,
        positionals=["init", "*images"],
    )
    config = replace(config, lists=(*config.lists, *lists))
    if not config.images and not config.lists:
        raise ConfigError(
            "no images: name files, folders, globs, or - for a list from stdin.\n"
            "`virtex caption --help` lists the options."
        )
    return config


def without_lists(arguments: Sequence[str], *, prog: str) -> tuple[list[str], list[str]]:
    """Return the arguments without any `--list FILE`, and the files."""
    rest, lists = list[str](), list[str]()
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != "--list":
            rest.append(argument)
        elif (file := value if equals else next(remaining, None)) is not None:
            lists.append(file)
        else:
            raise ConfigError(f"--list needs a value. `{prog} --help` lists the options.")
    return rest, lists
