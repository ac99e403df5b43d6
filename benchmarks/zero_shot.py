"""Time of zero-shot classification: the texts of all classes as a tree, and one by one.

One by one is `Captioner.score_grid` on pairs of an image's grid and a text, as many at once as fit
into the memory of the tree; it is measured on some of the texts and scaled to all of them. Names
are two words of one token each. All use the same grids; times are medians over rounds in which the
methods alternate, compared with the bare backbone's forward pass on the same images.

    python -m benchmarks.zero_shot [--num_names 1000] [--batch_size 4] [--threads 2] [--rounds 3]
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.decode import medians
from virtex.data.captions import pad_tokens
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.text_tree import TextTree, log_likelihoods
from virtex.models.textual_head import HeadConfig
from virtex.tokens import EOS_ID, SOS_ID

VOCAB_SIZE = 10_000
TEMPLATE = (SOS_ID, 10, 11, 12, 10)
"""Token ids that stand for `a photo of a`."""
FIRST_WORD = 20
BACKBONE, TREE, ONE_BY_ONE = "backbone's forward", "all names, as a tree", "all names, one by one"
STRIDE = 10
"""One by one is measured on one of this many texts."""
PAIRS = 50
"""Number of texts per image that one by one scores at once."""


def texts_of(num_names: int) -> list[list[int]]:
    """Return distinct names in a template, as ids."""
    rng = torch.Generator().manual_seed(0)
    names: dict[tuple[int, ...], None] = {}
    while len(names) < num_names:
        words = torch.randint(FIRST_WORD, VOCAB_SIZE, (2,), generator=rng)
        names[tuple(words.tolist())] = None
    return [[*TEMPLATE, *name, EOS_ID] for name in names]


def one_by_one(captioner: Captioner, grid: Tensor, texts: list[list[int]]) -> Tensor:
    """Return log-likelihoods (B, K), each text scored separately for each image."""
    tokens, lengths = pad_tokens([torch.tensor(text) for text in texts])
    rows = []
    for image in grid:
        parts = [
            captioner.score_grid(image.expand(len(part), -1, -1, -1), part, length)
            for part, length in zip(tokens.split(PAIRS), lengths.split(PAIRS), strict=True)
        ]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    captioner = Captioner(
        Backbone(BackboneConfig("resnet50")), HeadConfig(), VOCAB_SIZE, bidirectional=False
    ).eval()
    images = torch.randn(options.batch_size, 3, 224, 224)
    grid = captioner.backbone(images)
    texts = texts_of(options.num_names)
    tree, few = TextTree.of(texts), texts[::STRIDE]
    trees_own = log_likelihoods(captioner.head, grid, tree)[:, ::STRIDE]
    torch.testing.assert_close(trees_own, one_by_one(captioner, grid, few), atol=1e-3, rtol=0)
    contestants: dict[str, Callable[[], object]] = {
        BACKBONE: partial(captioner.backbone, images),
        TREE: partial(log_likelihoods, captioner.head, grid, tree),
        ONE_BY_ONE: partial(one_by_one, captioner, grid, few),
    }
    seconds = medians(contestants, options.rounds)
    seconds[ONE_BY_ONE] *= len(texts) / len(few)
    num_tokens = sum(len(text) - 1 for text in texts)
    print(f"{options}\nR-50 224 px, L1 H1024, V {VOCAB_SIZE}, fp32")
    print(f"{tree.num_prefixes} prefixes in the tree, {num_tokens} tokens one by one")
    report(seconds, options.batch_size)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_names", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def report(seconds: dict[str, float], batch_size: int) -> None:
    """Print each method's time, and its ratios to the backbone and to the tree."""
    print(f"{'':28}{'ms/image':>11}{'images/s':>10}{'backbones':>11}{'trees':>8}")
    for name, value in seconds.items():
        per_image = value / batch_size
        backbones, trees = value / seconds[BACKBONE], value / seconds[TREE]
        print(
            f"{name:28}{1000 * per_image:11.1f}{1 / per_image:10.2f}{backbones:11.1f}{trees:8.1f}"
        )


if __name__ == "__main__":
    main()
