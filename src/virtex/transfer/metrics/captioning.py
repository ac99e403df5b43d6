"""Scores of generated captions against people's, as pycocoevalcap gives them, without Java."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from virtex.errors import DataError, listing, raise_all
from virtex.transfer.metrics.bleu import bleu
from virtex.transfer.metrics.cider import cider_d
from virtex.transfer.metrics.ngrams import Words, ngrams
from virtex.transfer.metrics.ptb_tokens import ptb_tokens
from virtex.transfer.metrics.rouge import rouge_l

REPEATED = 3
"""So many words said twice in a caption count as a repetition."""


class Tokenized(NamedTuple):
    """Captions and references as words; entry n of each belongs to image n."""

    image_ids: list[str]
    candidates: list[list[str]]
    references: list[list[list[str]]]


def caption_scores(
    generated: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """CIDEr-D (from 0 to 10), BLEU-1 to BLEU-4 and ROUGE-L (from 0 to 1) over all captions.

    Args:
        generated: The caption of each image.
        references: People's captions of the same images.

    Raises:
        DataError: The images differ, or an image has no reference.
    """
    tokenized = tokenize(generated, references)
    return {**cider_score(tokenized), **bleu_scores(tokenized), **rouge_score(tokenized)}


def cider_of_each(
    generated: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """CIDEr-D of each image's caption; arguments and errors as of `caption_scores`."""
    tokenized = tokenize(generated, references)
    scores = cider_d(tokenized.candidates, tokenized.references).tolist()
    return dict(zip(tokenized.image_ids, scores, strict=True))


def cider_score(tokenized: Tokenized) -> dict[str, float]:
    """CIDEr-D, from 0 to 10."""
    return {"CIDEr-D": float(cider_d(tokenized.candidates, tokenized.references).mean())}


def bleu_scores(tokenized: Tokenized) -> dict[str, float]:
    """BLEU-1 to BLEU-4, from 0 to 1."""
    scores = bleu(tokenized.candidates, tokenized.references)
    return {f"BLEU-{length}": score for length, score in enumerate(scores, 1)}


def rouge_score(tokenized: Tokenized) -> dict[str, float]:
    """ROUGE-L, from 0 to 1."""
    return {"ROUGE-L": float(rouge_l(tokenized.candidates, tokenized.references).mean())}


def tokenize(generated: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Tokenized:
    """Captions and references as words, in the order of `references`.

    Raises:
        DataError: The images differ, an image has no reference, or there are no images.
    """
    _check(generated, references)
    return Tokenized(
        list(references),
        [ptb_tokens(generated[image_id]) for image_id in references],
        [[ptb_tokens(text) for text in texts] for texts in references.values()],
    )


def degeneracy(captions: Sequence[Words]) -> dict[str, float]:
    """How far captions are all alike, or stammer.

    Returns:
        Shares, from 0 to 1, of different captions among all, of captions with the same word twice
        in a row, with the same three words twice, without words; the mean number of words; and
        the number of different words in all captions.
    """
    num = len(captions)
    return {
        "unique_captions": len({tuple(words) for words in captions}) / num,
        "repeated_word": sum(map(_stammers, captions)) / num,
        "repeated_trigram": sum(_repeats(words, REPEATED) for words in captions) / num,
        "empty_captions": sum(not words for words in captions) / num,
        "mean_words": sum(map(len, captions)) / num,
        "vocabulary": float(len({word for words in captions for word in words})),
    }


def _stammers(words: Words) -> bool:
    return any(word == following for word, following in pairwise(words))


def _repeats(words: Words, length: int) -> bool:
    return any(count > 1 for count in ngrams(words, length).values())


def _check(generated: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    problems = [
        f"{len(ids)} {what} ({listing(ids)})"
        for what, ids in {
            "images have references and no generated caption": references.keys() - generated.keys(),
            "images have a generated caption and no references": generated.keys()
            - references.keys(),
            "images have an empty list of references": {
                image_id for image_id, texts in references.items() if not texts
            },
        }.items()
        if ids
    ]
    raise_all(
        DataError,
        f"captions of {len(generated)} images cannot be scored against references of "
        f"{len(references)} (give both for the same images, ids as text)",
        problems,
    )
    if not references:
        raise DataError("there are no captions to score: no image was given.")
