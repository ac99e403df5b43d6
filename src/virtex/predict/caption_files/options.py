"""The options of `virtex caption`. Nothing here imports torch: `--help` answers at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from virtex.errors import ConfigError
from virtex.models.decoding_config import DecodingConfig

OutFormat = Literal["json", "jsonl", "csv"]
FORMATS: dict[str, OutFormat] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
SAMPLING = ("nucleus", "top_k", "temperature")
BEAMS = ("beams", "per_node_beams")
RANKING = ("length_penalty", "backward_weight")


@dataclass(frozen=True)
class CaptionFilesConfig:
    """Which images to caption, how, and where to write it."""

    init: str
    """A run folder, a weights file, a released .pth, a published name."""
    images: tuple[str, ...] = ()
    """Files, folders, globs, addresses; - for a list from stdin."""
    lists: tuple[str, ...] = ()
    """Files that name images, one a line."""
    allow_urls: bool = False
    """Fetch images from http(s) addresses."""
    out: Path | None = None
    """Where to write the captions; what it holds already is kept, and not captioned again."""
    out_format: OutFormat | None = None
    """null: as the suffix of `out` says."""
    overwrite: bool = False
    """Start `out` anew."""
    attention: Path | None = None
    """Folder for a picture of each captioned image, with where the model looked at each word."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """How to search, but for `max_steps`."""
    max_steps: int | None = None
    """Longest caption, in tokens; null: as `decoding` says, or what the model was built for."""
    num_captions: int = 1
    """Captions of each image."""
    prefix: str = ""
    """Words that every caption begins with."""
    seed: int = 0
    """Of sampling: an image's captions are drawn from this and its name."""
    batch_size: int = 32
    """Images decoded at once."""
    num_workers: int | None = None
    """Processes that read images; null: 2, or none where the images are few."""
    bad_image_limit: float = 1.0
    """Stop when more than this share of the images cannot be read."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the model; auto: bf16 where the device computes with it, else fp32."""
    device: str = "auto"
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
        suffix = self.out.suffix if self.out is not None else ""
        if self.out is not None and self.out_format is None and suffix.lower() not in FORMATS:
            problems.append(
                f"{self.out} ends in {suffix or 'no suffix'}: captions are written as "
                f"{', '.join(FORMATS)}, so end the name in one of them"
            )
        if self.overwrite and self.out is None:
            problems.append("--overwrite needs a file to write: add --out FILE")
        if problems:
            raise ConfigError("; ".join(problems))
        self.decoding.num_running(self.num_captions)

    @property
    def format(self) -> OutFormat:
        """In which `out` is written."""
        assert self.out is not None
        return self.out_format or FORMATS[self.out.suffix.lower()]


def parse_caption(arguments: Sequence[str]) -> CaptionFilesConfig:
    """The config that the command line describes; exits 2 where it cannot be parsed.

    Raises:
        ConfigError: Options that do not go together, or values that are not allowed.
    """
    parser = _parser()
    options = vars(parser.parse_intermixed_args(list(arguments)))
    if not options["images"] and not options["list"]:
        parser.error("no images: name files, folders, globs, or - for a list from stdin")
    decoding = _decoding(options)
    json_path = options.pop("json")
    if json_path is not None:
        if options["out"] is not None:
            raise ConfigError("--json and --out both name a file to write: give one of them.")
        options.update(out=json_path, out_format="json")
    options["lists"] = tuple(options.pop("list"))
    options["images"] = tuple(options["images"])
    return CaptionFilesConfig(**options, decoding=decoding)


def _decoding(options: dict[str, Any]) -> DecodingConfig:
    """What the flags say of the search, taken out of the options."""
    flags = ("greedy", *SAMPLING, *BEAMS, *RANKING, "no_repeat_ngram", "original")
    values = {name: options.pop(name) for name in flags}
    given = {
        name: value for name, value in values.items() if value is not None and value is not False
    }
    sampling = [name for name in SAMPLING if name in given]
    beams = [name for name in BEAMS if name in given]
    clashes = []
    if sampling and beams:
        clashes.append((sampling, beams, "random captions are drawn without beams"))
    others = [*sampling, *beams, *(name for name in RANKING if name in given)]
    if given.pop("greedy", False):
        if others:
            clashes.append((["greedy"], others, "it follows a single caption"))
        given["strategy"] = "greedy"
    elif sampling:
        given["strategy"] = "nucleus"
        given.setdefault("nucleus", 1.0)
    if clashes:
        texts = [
            f"{_flags(some)} cannot be together with {_flags(rest)}: {reason}"
            for some, rest, reason in clashes
        ]
        raise ConfigError("; ".join([*texts, "leave one side out."]))
    names = {"nucleus": "top_p", "beams": "num_beams"}
    return DecodingConfig(**{names.get(name, name): value for name, value in given.items()})


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "virtex caption",
        description="Caption images: prints a line path<TAB>caption for each as it comes.",
        usage="virtex caption INIT IMAGE|DIR|GLOB|URL|- ... [options]",
    )
    parser.add_argument("init", help="a run folder, a weights file, a released .pth, a zoo name")
    parser.add_argument(
        "images",
        nargs="*",
        help="image files, folders searched to any depth, quoted globs ('photos/**/*.jpg'), "
        "addresses (see --allow_urls), or - for a list from stdin",
    )
    _add_files(parser)
    _add_search(parser)
    _add_machine(parser)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("files").add_argument
    add("--list", action="append", default=[], help="file that names images, one a line")
    add("--allow_urls", action="store_true", help="fetch images from http(s) addresses")
    add(
        "--out",
        type=Path,
        help="also write the captions to this file, .jsonl, .csv or .json; images that are in it "
        "already are left out",
    )
    add("--json", type=Path, help="as --out, a JSON list whatever the suffix")
    add("--overwrite", action="store_true", help="start --out anew")
    add("--attention", type=Path, metavar="DIR", help="draw where the model looked at each word")
    add(
        "--bad_image_limit",
        type=float,
        default=CaptionFilesConfig.bad_image_limit,
        metavar="SHARE",
        help="stop when more than this share of the images cannot be read (default 1: never)",
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("search").add_argument
    add("--num_captions", type=int, default=1, help="captions of each image, the best first")
    add("--prefix", default="", help="words that every caption begins with")
    add("--max_steps", type=int, help="longest caption, in tokens (default 30)")
    add("--beams", type=int, help="beams of the search (default 5)")
    add("--per_node_beams", type=int, help="next tokens that each beam proposes (default 2)")
    add("--length_penalty", type=float, help="rank captions by log p / tokens ** this (default 0)")
    add("--no_repeat_ngram", type=int, help="never write so many tokens in a row twice")
    add("--backward_weight", type=float, help="rank by the right-to-left decoder too, 0 to 1")
    add("--greedy", action="store_true", help="the likeliest token each time, without beams")
    add("--nucleus", type=float, metavar="P", help="draw from the likeliest tokens of sum P")
    add("--top_k", type=int, help="draw from so many of the likeliest tokens")
    add("--temperature", type=float, help="draw; below 1 likely tokens become likelier")
    add("--seed", type=int, default=0, help="of what is drawn (default 0)")
    add("--original", action="store_true", help="search as the released code did")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
    defaults = CaptionFilesConfig
    add("--device", default=defaults.device, help="auto, cpu, cuda, cuda:1, mps")
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default=defaults.precision,
        help="arithmetic (default fp32); bf16 is faster where the device computes with it, and "
        "changes some captions; auto: bf16 there, else fp32",
    )
    add("--batch_size", type=int, default=defaults.batch_size, help="images decoded at once")
    add("--num_workers", type=int, help="processes that read images (default 2, 0 for few images)")
    add("--tokenizer", type=Path, help="the vocabulary of a released .pth")
