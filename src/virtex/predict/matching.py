"""How well texts fit images: what zero-shot classification and retrieval rank by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from virtex.data.transforms import ImageConfig
from virtex.errors import ConfigError
from virtex.models.captioner import Captioner
from virtex.models.text_tree import TextTree, log_likelihoods
from virtex.models.textual_head import DIRECTIONS, Direction

DEFAULT_TEMPLATES = ("a photo of a {}",)
"""docs/zero_shot.md says what others came to."""
Reading = Literal["forward", "backward", "both"]
Match = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, H, W) to their scores (B, K) with K texts; higher fits better."""
TEXTS_AT_ONCE = 1024
"""Texts of one tree; neighbours in the alphabet share the longest beginnings."""


@dataclass(frozen=True)
class MatchingConfig:
    """How a captioner's likelihood becomes a score."""

    direction: Reading = "forward"
    """Which decoder reads the texts: forward, backward, or both (the mean of their
    log-likelihoods)."""
    prior: float = 0.0
    """How much of a text's log-likelihood under a blank image is subtracted: 0 nothing, 1 all, so
    that texts are ranked by what the image adds and not by how common they are."""

    def __post_init__(self) -> None:
        if self.direction not in get_args(Reading):
            raise ConfigError(
                f"direction {self.direction!r} is none of {', '.join(get_args(Reading))}"
            )
        if not 0 <= self.prior <= 1:
            raise ConfigError(f"prior {self.prior} must be from 0 (none) to 1 (all)")


class Matcher(Protocol):
    """A model that says how well texts fit images."""

    image: ImageConfig
    device: torch.device

    def match(self, texts: Sequence[str], config: MatchingConfig) -> Match:
        """Read the texts once, for any number of images.

        Raises:
            ConfigError: Options that the model cannot meet.
        """


def match_names(
    matcher: Matcher, names: Sequence[str], templates: Sequence[str], config: MatchingConfig
) -> Match:
    """How well each of K names fits images (B, K): its mean score over the templates.

    Raises:
        ConfigError: No names, a template without {}, options that the model cannot meet.
    """
    match = matcher.match(filled(templates, names), config)

    def match_each(images: Tensor) -> Tensor:
        return match(images).unflatten(1, (len(names), len(templates))).mean(2)

    return match_each


def filled(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """All names in all templates: those of the first name first.

    Raises:
        ConfigError: No names or templates, or a template without one {}.
    """
    problems = template_problems(templates)
    if not names:
        problems.append("there are no labels")
    if problems:
        raise ConfigError(f"{'; '.join(problems)}. Give at least one of each.")
    return [template.replace("{}", name) for name in names for template in templates]


def template_problems(templates: Sequence[str]) -> list[str]:
    """What is wrong with captions that are to hold a label."""
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong:
        return [f"templates {wrong} need one {{}} each for the label, as 'a photo of a {{}}' has"]
    return [] if templates else ["there are no templates, such as 'a photo of a {}'"]


def check_texts(
    texts: Mapping[str, Sequence[str]], encode: Callable[[str], list[int]], *, max_tokens: int
) -> None:
    """See that what is weighed against each other reads differently, and is read whole.

    Args:
        texts: The texts of each label.
        encode: A text to its tokens, without start and end.
        max_tokens: Most of them.

    Raises:
        ConfigError: Texts that are too long or hold nothing; labels that read alike.
    """
    rows = {
        label: tuple(tuple(encode(text)) for text in label_texts)
        for label, label_texts in texts.items()
    }
    lengths = {(label, len(row)): None for label, of_label in rows.items() for row in of_label}
    problems = [
        f"{label!r} makes a text of {length} tokens, and the model takes 1 to {max_tokens}"
        for label, length in lengths
        if not 1 <= length <= max_tokens
    ]
    alike: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for label, of_label in rows.items():
        alike.setdefault(of_label, []).append(repr(label))
    problems += [
        f"{' and '.join(same)} read alike: the vocabulary lacks their letters, or holds small ones "
        "alone"
        for same in alike.values()
        if len(same) > 1
    ]
    if problems:
        raise ConfigError("; ".join(problems))


class Likelihood:
    """Log-likelihoods of K texts for any images; the texts are laid out once.

    Args:
        tokens: The texts as ids, with start and end token.
        image_size: Side of the images, in pixels.

    Raises:
        ConfigError: A direction in which the captioner does not read.
    """

    def __init__(
        self,
        captioner: Captioner,
        tokens: Sequence[Sequence[int]],
        config: MatchingConfig,
        *,
        image_size: int,
    ) -> None:
        self.captioner = captioner
        device = captioner.head.output_bias.device
        order = sorted(range(len(tokens)), key=lambda text: tuple(tokens[text]))
        self.places = torch.tensor(order, device=device).long().argsort()  # (K,)
        parts = [order[i : i + TEXTS_AT_ONCE] for i in range(0, len(order), TEXTS_AT_ONCE)]
        self.trees = [
            [
                TextTree.of([tokens[text] for text in part], direction=direction, device=device)
                for part in parts
            ]
            for direction in directions(captioner, config.direction)
        ]
        self.prior: Tensor | float = 0.0
        if config.prior:
            blank = torch.zeros(1, 3, image_size, image_size, device=device)
            self.prior = config.prior * self(blank)  # (1, K)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to (B, K)."""
        return self.of_grid(self.captioner.backbone(images))

    @torch.no_grad()
    def of_grid(self, grid: Tensor) -> Tensor:
        """What the backbone made of B images, (B, C, h, w), to (B, K)."""
        head = self.captioner.head
        readings = [
            torch.cat([log_likelihoods(head, grid, tree) for tree in trees], 1)
            for trees in self.trees
            if trees
        ]
        if not readings:
            return torch.zeros(len(grid), 0, device=grid.device)
        return torch.stack(readings).mean(0)[:, self.places] - self.prior


def directions(captioner: Captioner, reading: Reading) -> tuple[Direction, ...]:
    """The decoders that a reading asks for.

    Raises:
        ConfigError: The captioner reads left to right alone.
    """
    if reading != "forward" and not captioner.bidirectional:
        raise ConfigError(
            f"direction {reading!r} asked of a model that reads forward alone; give forward."
        )
    return DIRECTIONS if reading == "both" else (reading,)
