"""Scores of generated captions against references, equal to pycocoevalcap's, without Java."""

from collections.abc import Mapping, Sequence
from operator import eq
from typing import NamedTuple

from virtex.errors import DataError, listing, raise_all
from virtex.transfer.metrics.bleu import bleu
from virtex.transfer.metrics.rouge import rouge_l
from virtex.words.cider import cider_d
from virtex.words.ngrams import Words, ngrams
from virtex.words.ptb_tokens import ptb_tokens

TRIGRAM = 3


class Tokenized(NamedTuple):
    """Captions and references as words; entry n of each list belongs to image n."""

    image_ids: list[str]
    candidates: list[list[str]]
    references: list[list[list[str]]]


def caption_scores(
    generated: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return CIDEr-D (from 0 to 10), BLEU-1 to BLEU-4 and ROUGE-L (from 0 to 1) of all captions.

    Args:
        generated: The caption of each image, by image id.
        references: The reference captions of the same images.

    Raises:
        DataError: The images differ, an image has no reference, or something is no text.
    """
    tokenized = tokenize(generated, references)
    return {**cider_score(tokenized), **bleu_scores(tokenized), **rouge_score(tokenized)}


def cider_of_each(
    generated: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return CIDEr-D of each image's caption; arguments and errors: see `caption_scores`."""
    tokenized = tokenize(generated, references)
    scores = cider_d(tokenized.candidates, tokenized.references).tolist()
    return dict(zip(tokenized.image_ids, scores, strict=True))


def cider_score(tokenized: Tokenized) -> dict[str, float]:
    """Return CIDEr-D, from 0 to 10."""
    return {"CIDEr-D": float(cider_d(tokenized.candidates, tokenized.references).mean())}


def bleu_scores(tokenized: Tokenized) -> dict[str, float]:
    """Return BLEU-1 to BLEU-4, from 0 to 1."""
    scores = bleu(tokenized.candidates, tokenized.references)
    return {f"BLEU-{length}": score for length, score in enumerate(scores, 1)}


def rouge_score(tokenized: Tokenized) -> dict[str, float]:
    """Return ROUGE-L, from 0 to 1."""
    return {"ROUGE-L": float(rouge_l(tokenized.candidates, tokenized.references).mean())}


def tokenize(generated: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Tokenized:
    """Return captions and references as words, in the order of `references`.

    Raises:
        DataError: The images differ, an image has no reference, something is no text, or there are
            no images.
    """
    _check(generated, references)
    return Tokenized(
        list(references),
        [ptb_tokens(generated[image_id]) for image_id in references],
        [[ptb_tokens(text) for text in texts] for texts in references.values()],
    )


def degeneracy(captions: Sequence[Words]) -> dict[str, float]:
    """Return how far captions are all alike, or repeat themselves.

    Returns:
        The fractions, from 0 to 1, of distinct captions, of captions with a word twice in a row, of
        captions with the same three words twice, and of captions without words; the mean number of
        words; and the number of distinct words in all captions.
    """
    num = len(captions)
    return {
        "unique_captions": len({tuple(words) for words in captions}) / num,
        "repeated_word": sum(any(map(eq, words, words[1:])) for words in captions) / num,
        "repeated_trigram": sum(_repeats(words, TRIGRAM) for words in captions) / num,
        "empty_captions": sum(not words for words in captions) / num,
        "mean_words": sum(map(len, captions)) / num,
        "vocabulary": float(len({word for words in captions for word in words})),
    }


def _repeats(words: Words, length: int) -> bool:
    return any(count > 1 for count in ngrams(words, length).values())


def _is_list_of_texts(texts: object) -> bool:
    """Return whether references are texts, and not one text, whose elements are its letters."""
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        return False
    return all(isinstance(text, str) for text in texts)


def _check(generated: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    if not references and not generated:
        raise DataError("there are no captions to score: no image was given.")
    listed = {image_id for image_id, texts in references.items() if _is_list_of_texts(texts)}
    empty = {image_id for image_id in listed if not references[image_id]}
    groups = {
        "images have references and no generated caption": references.keys() - generated.keys(),
        "images have a generated caption and no references": generated.keys() - references.keys(),
        "images have an empty list of references": empty,
        "images have references that are no list of texts: write ['a dog'] for a single one": (
            references.keys() - listed
        ),
        "images have a generated caption that is no text": {
            image_id for image_id, text in generated.items() if not isinstance(text, str)
        },
    }
    raise_all(
        DataError,
        f"captions of {len(generated)} images cannot be scored against references of "
        f"{len(references)} (give both for the same images, ids as text)",
        [f"{len(ids)} {what} ({listing(ids)})" for what, ids in groups.items() if ids],
    )
