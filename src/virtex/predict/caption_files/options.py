"""The options of `virtex caption`. Nothing here imports torch: `--help` answers at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from virtex import config as config_files
from virtex.errors import ConfigError, raise_all
from virtex.models.decoding_config import DecodingConfig

OutFormat = Literal["json", "jsonl", "csv"]
FORMATS: dict[str, OutFormat] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
SAMPLING = ("nucleus", "top_k", "temperature")
BEAMS = ("beams", "per_node_beams")
RANKING = ("length_penalty", "backward_weight")
OTHERS = ("no_repeat_ngram", "max_steps")
NAMES = {"nucleus": "top_p", "beams": "num_beams"}
"""Fields of DecodingConfig that the command gives another name."""
ABOUT = (
    "Caption images: prints a line path<TAB>caption for each as it comes. INIT and the images need "
    "no flag: virtex caption INIT IMAGE|DIR|GLOB|- ... [--option value ...]"
)
NO_URLS = "fetch images first, for example by `wget --directory-prefix images/ URL`, and name files"


@dataclass(frozen=True)
class CaptionFilesConfig:
    """Which images to caption, how, and where to write the captions."""

    init: str
    """A run folder, a weights file, a released .pth, a published name."""
    images: tuple[str, ...] = ()
    """Image files, folders (searched to any depth), quoted globs ('images/**/*.jpg'), or - for a
    list from stdin."""
    lists: tuple[str, ...] = ()
    """Files that name images, one a line; `--list FILE`, which may be repeated."""
    out: Path | None = None
    """File to write the captions to as well, .jsonl, .csv or .json; images in it are left out."""
    json: Path | None = None
    """File to write the captions to as a JSON list, whatever its suffix, instead of `out`."""
    overwrite: bool = False
    """Start the file of captions again."""
    attention: Path | None = None
    """Folder for an image of the attention at each word of each best caption."""
    bad_image_limit: float = 1.0
    """Largest fraction of images that cannot be read before the command stops; 1: no limit."""
    num_captions: int = 1
    """Captions of each image, the best first."""
    prefix: str = ""
    """Words that every caption begins with."""
    max_steps: int | None = None
    """Longest caption, in tokens; by default 30, or fewer where the model was built for fewer."""
    beams: int | None = None
    """Beams of the search; by default 5."""
    per_node_beams: int | None = None
    """Next tokens that each beam proposes; by default 2."""
    length_penalty: float | None = None
    """Rank captions by log p / tokens ** this; by default 0."""
    no_repeat_ngram: int | None = None
    """Length of the token sequences that no caption holds twice; by default 0: off."""
    backward_weight: float | None = None
    """Weight, from 0 to 1, of the right-to-left decoder in the ranking; by default 0."""
    greedy: bool = False
    """Take the likeliest token each time, without beams."""
    nucleus: float | None = None
    """Sample from the fewest tokens whose probabilities sum to this."""
    top_k: int | None = None
    """Sample from this many of the likeliest tokens."""
    temperature: float | None = None
    """Sample with logits divided by this; below 1 likely tokens become likelier."""
    seed: int = 0
    """Random seed of the sampling; an image's captions follow from it and the image's path."""
    original: bool = False
    """Search as the released code did."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the model; bf16 is faster where the device computes with it, and changes some
    captions; auto: bf16 there, else fp32."""
    batch_size: int = 32
    """Images decoded at once."""
    num_workers: int | None = None
    """Processes that read images; by default 2, or none where the images are few."""
    tokenizer: Path | None = None
    """The vocabulary of a released .pth, which holds none."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}, must be at least {least}"
            for name, value, least in [
                ("batch_size", self.batch_size, 1),
                ("num_captions", self.num_captions, 1),
                ("num_workers", self.num_workers or 0, 0),
                ("seed", self.seed, 0),
            ]
            if value < least
        ]
        if not 0 <= self.bad_image_limit <= 1:
            problems.append(f"bad_image_limit is {self.bad_image_limit}, must be from 0 to 1")
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
                f"{sampling} cannot be together with {beams}: random captions are drawn without "
                "beams; leave one side out"
            )
        if self.greedy and (others := self._given((*SAMPLING, *BEAMS, *RANKING))):
            problems.append(
                f"--greedy cannot be together with {others}: it follows a single caption; leave "
                "one side out"
            )
        raise_all(ConfigError, "the options cannot work", problems)
        self.decoding.num_running(self.num_captions)

    @property
    def path(self) -> Path | None:
        """The file that captions are written to."""
        return self.out or self.json

    @property
    def format(self) -> OutFormat:
        """The format of that file."""
        return FORMATS[self.out.suffix.lower()] if self.out is not None else "json"

    @property
    def decoding(self) -> DecodingConfig:
        """The search that the options describe."""
        names = (*SAMPLING, *BEAMS, *RANKING, *OTHERS)
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        values = {NAMES.get(name, name): value for name, value in given.items()}
        if self.greedy:
            values["strategy"] = "greedy"
        elif self._given(SAMPLING):
            values = {"strategy": "nucleus", "top_p": 1.0, **values}
        return DecodingConfig(**values, original=self.original)

    def _given(self, names: Sequence[str]) -> str:
        """Return those of the flags that have a value."""
        return ", ".join(f"--{name}" for name in names if getattr(self, name) is not None)


def parse_caption(arguments: Sequence[str]) -> CaptionFilesConfig:
    """Return the config that the command line describes.

    Raises:
        ConfigError: An unknown option, options that do not go together, or no images.
    """
    rest, lists = _without_lists(arguments)
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


def _without_lists(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without each `--list FILE`, and the files."""
    rest, lists, follows = list[str](), list[str](), False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if follows:
            lists.append(argument)
        elif name == "--list" and equals:
            lists.append(value)
        elif name == "--allow_urls":
            raise ConfigError(f"--allow_urls is no longer an option: {NO_URLS}.")
        elif name != "--list":
            rest.append(argument)
        follows = not follows and argument == "--list"
    if follows:
        raise ConfigError("--list needs a value. `virtex caption --help` lists the options.")
    return rest, lists
