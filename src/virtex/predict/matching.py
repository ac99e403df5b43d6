"""Scores of texts for images, by which zero-shot classification and retrieval rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.errors import ConfigError, is_number
from virtex.models.captioner import Captioner
from virtex.models.packing import DIRECTIONS, Direction
from virtex.models.text_tree import TextTree, log_likelihoods
from virtex.predict.image_inputs import in_batches

DEFAULT_TEMPLATES = ("a photo of a {}",)
"""docs/zero_shot.md compares these with others."""
Reading = Literal["forward", "backward", "both"]
Match = Callable[[Tensor], Tensor]
"""Function from normalised images (B, 3, H, W) to scores (B, K) of K texts; higher fits better."""
TEXTS_PER_TREE = 1024
"""Number of texts in one prefix tree."""


@dataclass(frozen=True)
class MatchingConfig:
    """Options that turn a captioner's likelihood into a score."""

    direction: Reading = "forward"
    """Decoder that scores the texts: forward, backward, or both (the mean of their
    log-likelihoods)."""
    prior: float = 0.0
    """Fraction of a text's log-likelihood under a blank image that is subtracted, from 0 to 1, so
    that texts are ranked by what the image adds and not by how common they are."""

    def __post_init__(self) -> None:
        if self.direction not in get_args(Reading):
            raise ConfigError(
                f"direction {self.direction!r} is none of {', '.join(get_args(Reading))}"
            )
        if not is_number(self.prior) or not 0 <= self.prior <= 1:
            raise ConfigError(f"prior {self.prior!r} must be from 0 (none) to 1 (all)")


class Matcher(Protocol):
    """A model that scores how well texts fit images."""

    image: ImageConfig
    device: torch.device
    tokenizer: Tokenizer

    @property
    def max_text_tokens(self) -> int:
        """Largest number of tokens of a text, without start and end."""
        ...

    def match(self, texts: Sequence[str], config: MatchingConfig) -> Match:
        """Return the scores of texts as a function of images; the texts are encoded once.

        Raises:
            ConfigError: The model does not support the options.
        """


def match_names(
    matcher: Matcher, names: Sequence[str], templates: Sequence[str], config: MatchingConfig
) -> Match:
    """Return the scores (B, K) of K names: the mean of each over the templates.

    Raises:
        ConfigError: There are no names, a template has no {}, or the model does not support the
            options.
    """
    match = matcher.match(filled(templates, names), config)

    def match_each(images: Tensor) -> Tensor:
        return match(images).reshape(-1, len(names), len(templates)).mean(2)

    return match_each


def filled(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return each name in each template: first the texts of the first name.

    Raises:
        ConfigError: There are no names or templates, or a template does not hold {} once.
    """
    problems = template_problems(templates)
    if not names:
        problems.append("there are no labels")
    if problems:
        raise ConfigError(f"{'; '.join(problems)}. Give at least one of each.")
    return [template.replace("{}", name) for name in names for template in templates]


def template_problems(templates: Sequence[str]) -> list[str]:
    """Return what is wrong with captions that should hold {} for a label."""
    wrong = [one for one in templates if not isinstance(one, str) or one.count("{}") != 1]
    if wrong:
        return [f"templates {wrong} need one {{}} each for the label, as 'a photo of a {{}}' has"]
    return [] if templates else ["there are no templates, such as 'a photo of a {}'"]


class Likelihood:
    """Log-likelihoods of K texts under a captioner, as a function of images.

    Args:
        tokens: Ids of the texts, with start and end token.
        image_size: Side of the images, in pixels.

    Raises:
        ConfigError: The captioner has no decoder of the direction.
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
        self.ranks = torch.tensor(order, device=device).long().argsort()  # (K,)
        parts = list(in_batches(order, TEXTS_PER_TREE))  # sorted: neighbours share long prefixes
        self.trees = [
            [
                TextTree.of([tokens[text] for text in part], direction=direction, device=device)
                for part in parts
            ]
            for direction in decoders_for(captioner, config.direction)
        ]
        self.prior: Tensor | float = 0.0
        if config.prior:
            blank = torch.zeros(1, 3, image_size, image_size, device=device)
            self.prior = config.prior * self(blank)  # (1, K)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the log-likelihoods (B, K) for normalised images (B, 3, H, W)."""
        return self.of_grid(self.captioner.backbone(images))

    @torch.no_grad()
    def of_grid(self, grid: Tensor) -> Tensor:
        """Return the log-likelihoods (B, K) for feature grids (B, C, h, w)."""
        head = self.captioner.head
        scores = [
            torch.cat([log_likelihoods(head, grid, tree) for tree in trees], 1)
            for trees in self.trees
            if trees
        ]
        if not scores:
            return torch.zeros(len(grid), 0, device=grid.device)
        return torch.stack(scores).mean(0)[:, self.ranks] - self.prior


def decoders_for(captioner: Captioner, reading: Reading) -> tuple[Direction, ...]:
    """Return the directions of the decoders that `reading` names.

    Raises:
        ConfigError: The captioner has no backward decoder.
    """
    if reading != "forward" and not captioner.bidirectional:
        raise ConfigError(
            f"direction {reading!r} needs a backward decoder, which this model lacks: give forward."
        )
    return DIRECTIONS if reading == "both" else (reading,)
