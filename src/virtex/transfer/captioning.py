"""Captioning: captions of held-out images, scored against people's.

The protocol of Desai and Johnson, "VirTex", CVPR 2021, section 4.5: COCO val2017, beam search with
five beams over at most 30 steps, CIDEr-D and SPICE on PTB tokens.

Nothing is trained, so there is no train split, and INIT is a captioner rather than a backbone. The
captions are kept in COCO's results layout beside the result; a second call with the same model,
data and decoding scores them anew instead of writing them again.

Images are seen as in all of transfer, the short side at 256 before a crop of 224, even where the
run validated itself at 224 as the released code did (`original` brings that back).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.transforms import ImageConfig
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError
from virtex.models.decoding import DecodingConfig
from virtex.predict.loading import build_captioner, open_whole_model
from virtex.transfer.caption_generation import GeneratedCaption, Generation, captions_of
from virtex.transfer.command import MeasurementConfig, record_of
from virtex.transfer.metrics.captioning import (
    Tokenized,
    bleu_scores,
    cider_score,
    degeneracy,
    rouge_score,
    tokenize,
)
from virtex.transfer.metrics.java import check_java_metrics, meteor, spice
from virtex.transfer.protocol import Result, device_name, versions

NAME = "captioning"
HEADLINES = {
    "cider": "CIDEr-D", "bleu": "BLEU-4", "rouge": "ROUGE-L", "meteor": "METEOR", "spice": "SPICE",
}  # fmt: skip
"""Which number of a metric stands for it."""
COUNTS = ("mean_words", "vocabulary")
"""Of the report on degenerate captions those that are no shares."""
PAPER_SPLIT, PAPER_IMAGES = "val2017", 5000


@dataclass(frozen=True, kw_only=True)
class CaptioningProtocolConfig(InferenceConfig, MeasurementConfig):
    """Options of `virtex transfer captioning`."""

    init: str
    """Whose captions: a run folder, a weights file, a released VirTex .pth, or a published name."""
    data: SourceConfig = field(default_factory=lambda: SourceConfig("coco"))
    """Images with captions; those of the val split are captioned."""
    tokenizer: Path | None = None
    """The vocabulary of a released .pth, which holds none."""
    num_beams: int = 5
    """Captions of an image that are followed at once."""
    original: bool = False
    """Search as the released code did, on images whose short side is resized to the crop's."""
    nucleus: float | None = None
    """Sample from the tokens whose probabilities sum to this, instead of searching."""
    max_steps: int | None = None
    """Longest caption, in tokens; by default 30, or fewer where the model was built for fewer."""
    seed: int = 0
    """Of nucleus sampling."""
    metrics: tuple[Literal["cider", "bleu", "rouge", "meteor", "spice"], ...] = (
        "cider",
        "bleu",
        "rouge",
    )
    """Which scores; the first one's is the headline. meteor and spice need Java and
    virtex[metrics], spice needs CoreNLP's models too."""


def run(config: CaptioningProtocolConfig) -> list[Result]:
    """Caption the val split, score the captions, write both.

    Returns:
        The result on the main process, none on the others.

    Raises:
        ConfigError, DataError, CheckpointError: A mistake of the user's.
    """
    check_options(config)
    device = config.open_device()
    with distributed.process_group(device):
        source = _open_images(config.data)
        result = _measure(config, source, device)
        if not distributed.is_main():
            return []
        result.write(config.out)
    return [result]


def _open_images(data: SourceConfig) -> Source:
    source = open_source(data, split="val", needs=Needs(captions=True))
    if source is None:
        raise ConfigError(
            "there are no images to caption: name them with data.val_split, data.val_root or "
            f"data.val_share (source {data.source}, root {data.root})."
        )
    return source


def _measure(config: CaptioningProtocolConfig, source: Source, device: torch.device) -> Result:
    """The result; its numbers are taken on the main process, and the same on all."""
    start = time.perf_counter()
    opened = open_whole_model(config.init, has_tokenizer=config.tokenizer is not None)
    predictor = build_captioner(opened, tokenizer=config.tokenizer, device=device)
    initialisation = record_of(opened, config.tokenizer)
    generation = generation_of(
        config, image_size=predictor.image.size, max_tokens=predictor.captioner.config.max_tokens
    )
    captions = captions_of(
        source, predictor, generation, folder=config.folder, model=initialisation
    )
    own = numbers(captions, source, config.metrics) if distributed.is_main() else None
    return Result(
        protocol=NAME,
        headline=HEADLINES[config.metrics[0]],
        numbers=distributed.gather_objects(own)[0],  # type: ignore[arg-type]
        settings={**generation.settings(), "metrics": list(config.metrics)},
        initialisation=initialisation,
        data={"test": source.identity()},
        seed=config.seed,
        versions=versions(),
        device=device_name(device),
        seconds=round(time.perf_counter() - start, 2),
        as_in_paper=as_in_paper(generation, source),
    )


def check_options(config: CaptioningProtocolConfig) -> None:
    """Find the mistakes in the options, before anything is loaded.

    Raises:
        ConfigError: All of them.
    """
    problems = config.problems()
    problems += config.inference_problems()
    if str(config.init) in ("random", "imagenet"):
        problems.append(f"init {config.init} is a backbone alone, which writes no captions")
    unknown = [name for name in config.metrics if name not in HEADLINES]
    if unknown or not config.metrics:
        problems.append(f"metrics {list(config.metrics)} must be some of {', '.join(HEADLINES)}")
    if problems:
        raise ConfigError("\n- ".join(["the options cannot work:", *problems]))
    check_java_metrics(config.metrics)


def generation_of(
    config: CaptioningProtocolConfig, *, image_size: int, max_tokens: int
) -> Generation:
    """How this command turns images into captions.

    Args:
        image_size: Side of the images that the model takes.
        max_tokens: The longest caption that the model was built for.
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
        image=ImageConfig(size=image_size, original=config.original),
        precision=config.resolved_precision(config.open_device()),
        seed=config.seed,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )


def as_in_paper(generation: Generation, source: Source) -> bool:
    """Whether settings and data are those of the paper's own figure."""
    identity = source.identity()
    data = (identity.get("source"), identity.get("split"), len(source))
    paper = Generation(DecodingConfig(), ImageConfig())
    same_settings = generation.settings() == paper.settings()
    return same_settings and data == ("coco", PAPER_SPLIT, PAPER_IMAGES)


def numbers(
    captions: Mapping[str, GeneratedCaption], source: Source, metrics: Sequence[str]
) -> dict[str, float]:
    """All scores and the report on degenerate captions; shares in percent.

    Raises:
        DataError: Captions of images that the source has not.
    """
    examples = (source[index] for index in range(len(source)))
    references = {
        example.image_id: example.captions for example in examples if example.image_id in captions
    }
    tokenized = tokenize({name: one.caption for name, one in captions.items()}, references)
    scores: dict[str, float] = {}
    for name in dict.fromkeys(metrics):
        scores |= SCORES[name](tokenized)
    report = degeneracy(tokenized.candidates)
    return {
        **{name: 100 * value for name, value in scores.items()},
        **{name: value * (1 if name in COUNTS else 100) for name, value in report.items()},
        "num_images": float(len(captions)),
        "num_bad": float(len(source) - len(captions)),
    }


def _meteor(tokenized: Tokenized) -> dict[str, float]:
    return {"METEOR": meteor(tokenized.candidates, tokenized.references)}


def _spice(tokenized: Tokenized) -> dict[str, float]:
    return {"SPICE": spice(tokenized.candidates, tokenized.references)}


SCORES: dict[str, Callable[[Tokenized], dict[str, float]]] = {
    "cider": cider_score,
    "bleu": bleu_scores,
    "rouge": rouge_score,
    "meteor": _meteor,
    "spice": _spice,
}
