"""Captioning: generated captions of held-out images, scored against reference captions.

The protocol of Desai and Johnson, "VirTex", CVPR 2021, section 4.5: COCO val2017, beam search with
five beams over at most 30 steps, CIDEr-D and SPICE on PTB tokens.

Nothing is trained, so there is no train split, and INIT is a captioner rather than a backbone. The
captions are kept in COCO's results layout beside the result. A second call with the same model,
data and decoding scores these captions instead of generating them again.

Images are preprocessed as in all of transfer and in the released evaluation: the short side is
resized to 256 before a crop of 224, even where the run validated itself at 224. The paper's figures
are of the released search, which the recipe sets (`original`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig
from virtex.data.transforms import ImageConfig
from virtex.models.decoding import DecodingConfig
from virtex.predict.loading import load_captioner, open_whole_model
from virtex.transfer.blind import OtherImages, mean_losses
from virtex.transfer.caption_generation import GeneratedCaption, Generation, captions_of
from virtex.transfer.metrics.captioning import (
    Tokenized,
    bleu_scores,
    cider_score,
    degeneracy,
    rouge_score,
    tokenize,
)
from virtex.transfer.metrics.java import check_java_metrics, meteor, spice
from virtex.transfer.protocol import Result
from virtex.transfer.whole_model import (
    Measured,
    WholeModelConfig,
    open_val_images,
    record_of,
    run_whole_model,
)

HEADLINES = {
    "cider": "CIDEr-D", "bleu": "BLEU-4", "rouge": "ROUGE-L", "meteor": "METEOR", "spice": "SPICE",
}  # fmt: skip
"""The score of each metric that may be the headline."""
COUNTS = ("mean_words", "vocabulary")
"""Numbers on degenerate captions that are counts rather than fractions."""
PAPER_SPLIT, PAPER_IMAGES = "val2017", 5000


@dataclass(frozen=True, kw_only=True)
class CaptioningProtocolConfig(WholeModelConfig):
    """Options of `virtex transfer captioning`."""

    init: str
    """Captioner: a run folder, a weights file, a released VirTex .pth, or a published name."""
    data: SourceConfig = field(default_factory=lambda: SourceConfig("coco"))
    """Images with captions; those of the val split are captioned."""
    num_beams: int = 5
    """Number of beams of the search."""
    original: bool = False
    """Search as the released code did for the paper's figures; the recipe sets it."""
    nucleus: float | None = None
    """Sum of probabilities of the tokens to sample from; by default search by beams instead."""
    max_steps: int | None = None
    """Longest caption, in tokens; by default 30, or the longest that the model can write."""
    seed: int = 0
    """Random seed of nucleus sampling, and of blind's choice of images."""
    blind: bool = False
    """Score each image's captions and likelihoods against another image of the split as well:
    blind_CIDEr-D, loss, blind_loss. What differs is what the model sees."""
    metrics: tuple[Literal["cider", "bleu", "rouge", "meteor", "spice"], ...] = (
        "cider",
        "bleu",
        "rouge",
    )
    """Scores to compute; the first is the headline. meteor and spice need Java and pycocoevalcap,
    spice needs CoreNLP's models too."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if str(self.init) in ("random", "imagenet"):
            problems.append(f"init {self.init} is a backbone alone, which writes no captions")
        unknown = [name for name in self.metrics if name not in HEADLINES]
        if unknown or not self.metrics:
            problems.append(f"metrics {list(self.metrics)} must be some of {', '.join(HEADLINES)}")
        return problems

    def check(self) -> None:
        super().check()
        check_java_metrics(self.metrics)


def run(config: CaptioningProtocolConfig) -> list[Result]:
    """Caption the val split, score the captions, and write both; see `run_whole_model`."""
    return run_whole_model(config, partial(test_images, config), partial(_measure, config))


def test_images(config: CaptioningProtocolConfig) -> Source:
    """Open and check the images of `run`."""
    return open_val_images(config.data, Needs(captions=True), purpose="caption")


def _measure(
    config: CaptioningProtocolConfig, source: Source, device: torch.device
) -> Measured | None:
    others = OtherImages(source, seed=config.seed) if config.blind else None
    opened = open_whole_model(config.init, has_tokenizer=config.tokenizer is not None)
    predictor = load_captioner(opened, tokenizer=config.tokenizer, device=device)
    initialisation = record_of(opened, config.tokenizer)
    generation = generation_of(
        config, image_size=predictor.image.size, max_tokens=predictor.captioner.config.max_tokens
    )
    captions = captions_of(
        source, predictor, generation, folder=config.folder, model=initialisation
    )
    blind = mean_losses(source, others, predictor, generation) if others else {}
    if not distributed.is_main():
        return None
    blind_setting = {"blind": True} if others else {}  # so that neither result replaces the other
    if others:
        scores = scores_of(others.replaced(captions), source, config.metrics)
        blind |= {f"blind_{name}": value for name, value in scores.items()}
    return Measured(
        protocol="captioning",
        headline=HEADLINES[config.metrics[0]],
        numbers=numbers(captions, source, config.metrics) | blind,
        settings={**generation.settings(), "metrics": list(config.metrics), **blind_setting},
        initialisation=initialisation,
        as_in_paper=as_in_paper(generation, source),
    )


def generation_of(
    config: CaptioningProtocolConfig, *, image_size: int, max_tokens: int
) -> Generation:
    """Return how this command generates captions.

    Args:
        image_size: Side of the model's images.
        max_tokens: Longest caption that the model can write.
    """
    usual = DecodingConfig().within(max_tokens)
    decoding = replace(
        usual,
        strategy="beam" if config.nucleus is None else "nucleus",
        num_beams=config.num_beams,
        max_steps=usual.max_steps if config.max_steps is None else config.max_steps,
        top_p=usual.top_p if config.nucleus is None else config.nucleus,
        original=config.original,
    )
    return Generation(
        decoding=decoding,
        image=ImageConfig(size=image_size),
        precision=config.resolved_precision(config.open_device()),
        seed=config.seed,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )


def as_in_paper(generation: Generation, source: Source) -> bool:
    """Return whether settings and data are those of the paper's own figure."""
    identity = source.identity()
    data = (identity.get("source"), identity.get("split"), len(source))
    paper = Generation(DecodingConfig(original=True), ImageConfig())
    same_settings = generation.settings() == paper.settings()
    return same_settings and data == ("coco", PAPER_SPLIT, PAPER_IMAGES)


def numbers(
    captions: Mapping[str, GeneratedCaption], source: Source, metrics: Sequence[str]
) -> dict[str, float]:
    """Return all scores and the report on degenerate captions; fractions in percent.

    Raises:
        DataError: Captions of images that the source does not have.
    """
    tokenized = _tokenized(captions, source)
    report = degeneracy(tokenized.candidates)
    return {
        **_scores(tokenized, metrics),
        **{name: value * (1 if name in COUNTS else 100) for name, value in report.items()},
        "num_images": float(len(captions)),
        "num_bad": float(len(source) - len(captions)),
    }


def scores_of(
    captions: Mapping[str, GeneratedCaption], source: Source, metrics: Sequence[str]
) -> dict[str, float]:
    """Return the scores of captions by image id, in percent.

    Raises:
        DataError: Captions of images that the source does not have.
    """
    return _scores(_tokenized(captions, source), metrics)


def _tokenized(captions: Mapping[str, GeneratedCaption], source: Source) -> Tokenized:
    examples = (source[index] for index in range(len(source)))
    references = {
        example.image_id: example.captions for example in examples if example.image_id in captions
    }
    return tokenize({name: one.caption for name, one in captions.items()}, references)


def _scores(tokenized: Tokenized, metrics: Sequence[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name in dict.fromkeys(metrics):
        scores |= SCORES[name](tokenized)
    return {name: 100 * value for name, value in scores.items()}


SCORES: dict[str, Callable[[Tokenized], dict[str, float]]] = {
    "cider": cider_score,
    "bleu": bleu_scores,
    "rouge": rouge_score,
    "meteor": lambda own: {"METEOR": meteor(own.candidates, own.references)},
    "spice": lambda own: {"SPICE": spice(own.candidates, own.references)},
}
