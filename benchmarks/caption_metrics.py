"""Time of the caption metrics, compared with pycocoevalcap's Python code on the same tokens.

The captions are those of COCO val2014 in the installed pycocoevalcap: the first caption of each
image is scored against the others. No Java is used: both sides get our tokens, and tokenization is
timed separately.

    python benchmarks/caption_metrics.py --num_images 5000
"""

import argparse
import json
import statistics
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from virtex.transfer.metrics.captioning import (
    Tokenized,
    bleu_scores,
    cider_score,
    rouge_score,
    tokenize,
)

Scores = dict[str, float]


def main() -> None:
    """Measure and print."""
    options = parse_options()
    texts = read_captions(options.num_images)
    start = time.perf_counter()
    words = tokenize({name: own[0] for name, own in texts.items()},
                     {name: own[1:] for name, own in texts.items()})  # fmt: skip
    num_captions = sum(map(len, texts.values()))
    microseconds = 1e6 * (time.perf_counter() - start) / num_captions
    print(f"{options}\n{num_captions} captions; tokens: {microseconds:.0f} us a caption")
    print(f"{'':10}{'ours':>9}{'theirs':>9}{'ratio':>8}{'largest difference':>21}")
    for name, (ours, theirs) in contestants(words).items():
        seconds, found = timed({"ours": ours, "theirs": theirs}, options.rounds)
        gap = max(abs(found["ours"][key] - value) for key, value in found["theirs"].items())
        ratio = seconds["theirs"] / seconds["ours"]
        print(f"{name:10}{seconds['ours']:7.2f} s{seconds['theirs']:7.2f} s{ratio:8.2f}{gap:21.1e}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def read_captions(num_images: int) -> dict[str, list[str]]:
    """Return the captions of the first images of val2014."""
    package = find_spec("pycocoevalcap")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "spice" / "spice-1.0.jar"
    with zipfile.ZipFile(path) as jar:
        rows = json.loads(jar.read("coco/annotations/captions_val2014.json"))["annotations"]
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(str(row["image_id"]), []).append(row["caption"])
    return {name: texts[name] for name in list(texts)[:num_images]}


def contestants(words: Tokenized) -> dict[str, tuple[Callable[[], Scores], Callable[[], Scores]]]:
    """Return our and their function for each metric."""
    answers = {
        name: [" ".join(own)] for name, own in zip(words.image_ids, words.candidates, strict=True)
    }
    truths = {
        name: [" ".join(one) for one in own]
        for name, own in zip(words.image_ids, words.references, strict=True)
    }

    def their_bleu() -> Scores:
        scores = Bleu(4).compute_score(truths, answers, verbose=0)[0]
        return {f"BLEU-{length}": score for length, score in enumerate(scores, 1)}

    return {
        "CIDEr-D": (
            lambda: cider_score(words),
            lambda: {"CIDEr-D": Cider().compute_score(truths, answers)[0]},
        ),
        "BLEU": (lambda: bleu_scores(words), their_bleu),
        "ROUGE-L": (
            lambda: rouge_score(words),
            lambda: {"ROUGE-L": Rouge().compute_score(truths, answers)[0]},
        ),
    }


def timed(
    sides: dict[str, Callable[[], Scores]], rounds: int
) -> tuple[dict[str, float], dict[str, Scores]]:
    """Return the median seconds and the scores of each side, alternating between the sides."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores: dict[str, Scores] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            scores[name] = side()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, scores


if __name__ == "__main__":
    main()
