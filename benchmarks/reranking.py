"""Gain in CIDEr-D and BLEU-4 by reranking captions with the backward decoder.

    python -m benchmarks.reranking --init RUN --root COCO

The validation images (COCO layout) are captioned by beam search, and both decoders score all beams.
Printed are CIDEr-D and BLEU-4 of the first beam, for each weight of the backward decoder and each
length penalty. Weight 0 is the order of the search, weight 1 that of the backward decoder.
"""

import argparse
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from virtex.data.example import Example
from virtex.data.source import SourceConfig, open_source
from virtex.data.source_options import Needs
from virtex.data.transforms import ValidationTransform, normalize
from virtex.errors import VirTexError
from virtex.models.decoding import DecodingConfig, Generated
from virtex.models.reranking import rerank
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Predictor
from virtex.transfer.metrics.captioning import bleu_scores, cider_score, tokenize

NUM_BEAMS = (5, 10)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTH_PENALTIES = (0.0, 1.0)


@dataclass(frozen=True)
class Searched:
    """A batch of images with all their beams."""

    image_ids: list[str]
    generated: Generated


def main() -> None:
    """Measure and print."""
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    predictor = load_captioner(options.init)
    source = open_source(
        SourceConfig(source="coco", root=options.root), split="val", needs=Needs(captions=True)
    )
    assert source is not None, f"{options.root} holds no validation split"
    examples = [source[index] for index in range(min(options.limit or len(source), len(source)))]
    print(f"{options}\n{len(examples)} images")
    print(
        f"{'beams':>5}{'length':>8}{'backward':>10}{'CIDEr-D':>9}{'BLEU-4':>8}{'tokens':>8}{'moved':>8}"
    )
    for num_beams in NUM_BEAMS:
        decoding = replace(predictor.default_decoding, num_beams=num_beams, backward_weight=0.5)
        searched = search(predictor, examples, decoding, batch_size=options.batch_size)
        for length_penalty, weight in itertools.product(LENGTH_PENALTIES, WEIGHTS):
            ranking = replace(decoding, length_penalty=length_penalty, backward_weight=weight)
            report(predictor, examples, searched, ranking=ranking)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", required=True, help="a run folder or a weights file")
    parser.add_argument("--root", type=Path, required=True, help="images and captions, COCO layout")
    parser.add_argument("--limit", type=int, default=0, help="number of images; 0: all")
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    return parser.parse_args()


@torch.inference_mode()
def search(
    predictor: Predictor, examples: list[Example], decoding: DecodingConfig, *, batch_size: int
) -> list[Searched]:
    """Return all beams of all images, scored in both directions."""
    transform = ValidationTransform(predictor.image)
    searched = []
    console = Console(stderr=True)
    starts = range(0, len(examples), batch_size)
    for start in track(starts, f"{decoding.num_beams} beams", console=console, transient=True):
        batch = examples[start : start + batch_size]
        images = normalize(torch.stack([transform(example) for example in batch]))
        generated = predictor.captioner.generate(
            images.to(predictor.device), decoding, num_captions=decoding.num_beams
        )
        searched.append(Searched([example.image_id for example in batch], generated))
    return searched


def report(
    predictor: Predictor,
    examples: list[Example],
    searched: list[Searched],
    *,
    ranking: DecodingConfig,
) -> None:
    """Print one line: the scores of each image's first beam in the order of `ranking`."""
    captions: dict[str, str] = {}
    num_tokens = num_moved = 0
    for batch in searched:
        backward = batch.generated.backward_log_probs
        assert backward is not None, "the search scores both directions"
        best = rerank(batch.generated, backward, config=ranking, num_captions=1).best()
        likeliest = batch.generated.log_probs.max(1).values
        num_moved += int((best.log_probs < likeliest).sum())
        num_tokens += int(best.lengths.sum())
        texts = (predictor.tokenizer.decode(row) for row in best.tokens.tolist())
        captions |= dict(zip(batch.image_ids, texts, strict=True))
    words = tokenize(captions, {example.image_id: example.captions for example in examples})
    cider, bleu = cider_score(words)["CIDEr-D"], bleu_scores(words)["BLEU-4"]
    print(
        f"{ranking.num_beams:5}{ranking.length_penalty:8.1f}{ranking.backward_weight:10.2f}"
        f"{100 * cider:9.1f}{100 * bleu:8.1f}{num_tokens / len(examples):8.1f}"
        f"{num_moved / len(examples):8.0%}"
    )


if __name__ == "__main__":
    try:
        main()
    except VirTexError as error:
        raise SystemExit(str(error)) from None
