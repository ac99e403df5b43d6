"""Parts of a source: validation images, fractions, few shots, and repeat factors."""

import contextlib
import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import quoted
from virtex.data.example import Example, ImageFile, Source, Subset
from virtex.errors import ConfigError, DataError, listing, one_line

log = logging.getLogger("virtex")

NUM_HASHES = 2**64


class FewerCaptions(Source):
    """A source that gives at most the first `num_captions` captions of each example."""

    def __init__(self, source: Source, num_captions: int) -> None:
        self.source, self.num_captions = source, num_captions
        self.categories, self.frequencies = source.categories, source.frequencies
        self.caption_keys, self.shard_counts = source.caption_keys, source.shard_counts

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        return replace(
            example,
            captions=example.captions[: self.num_captions],
            caption_weights=example.caption_weights[: self.num_captions],
            caption_keys=example.caption_keys[: self.num_captions],
        )

    def image_id(self, index: int) -> str:
        return self.source.image_id(index)

    def image_file(self, index: int) -> ImageFile | None:
        return self.source.image_file(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.source.captions(index)[: self.num_captions]

    def labels(self, index: int) -> tuple[int, ...]:
        return self.source.labels(index)

    def sample_captions(self, limit: int, *, seed: int) -> Iterator[str]:
        """Return a sample of the captions; of a source in shards, of all that an image has."""
        if self.shard_counts is None:
            return super().sample_captions(limit, seed=seed)
        return self.source.sample_captions(limit, seed=seed)

    def replacements(self, index: int, rng: np.random.Generator, *, number: int) -> Iterable[int]:
        return self.source.replacements(index, rng, number=number)

    def identity(self) -> dict[str, str | int]:
        return {**self.source.identity(), "captions_per_image": self.num_captions}


def check_num_captions(source: Source, num_captions: int | None) -> None:
    """Check that `num_captions` does not take the captions of the first keys alone.

    Raises:
        ConfigError: The captions of the training data are under several keys.
    """
    keys = source.caption_keys
    if num_captions is not None and len(keys) > 1:
        raise ConfigError(
            f"--data.num_captions {num_captions} takes the first captions of each image, "
            f"and --data.caption_keys draws from those under {listing(map(quoted, keys))} by "
            "weight: the first ones are those of the first keys. Leave --data.num_captions out, or "
            "name one key with --data.caption_keys."
        )


def listed(source: Source, path: Path) -> Subset:
    """Return the examples whose ids are in a list, in the order of `source`.

    Raises:
        DataError: The list cannot be read, or names no example.
    """
    try:
        ids = set(id_lines(path))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"--data.keep {path} cannot be read ({error}): give a .txt or .txt.gz file of one id a "
            "line."
        ) from error
    chosen = [index for index in range(len(source)) if source.image_id(index) in ids]
    if not chosen:
        raise DataError(
            f"--data.keep {path}: none of its {len(ids):,} ids is that of a training image. They "
            "must be as `virtex data check --write_good` writes them, such as "
            f"{id_line(source.image_id(0))}."
        )
    others = ids.difference(map(source.image_id, chosen))
    if others and isinstance(source, Subset):  # of which some images are held out
        known = others.intersection(map(source.source.image_id, range(len(source.source))))
        if known:
            log.info("--data.keep %s: %s ids are of validation images", path, f"{len(known):,}")
        others -= known
    if others:
        log.warning("--data.keep %s: %s ids are of no image", path, f"{len(others):,}")
    return Subset(source, chosen)


def id_lines(path: Path) -> Iterator[str]:
    """Yield the ids in a .txt or .txt.gz file, one a line: as `id_line` writes them."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig") as file:
        for line in file:
            if text := line.strip():
                yield _id_in(text)


def id_line(image_id: str) -> str:
    """Return an id as a line of a list of ids: as it is, or else as a JSON string.

    The latter where it has outer spaces, control characters or bytes that are not UTF-8, or begins
    as a JSON string does.
    """
    is_plain = _is_text(image_id) and image_id == one_line(image_id.strip())
    return image_id if is_plain and image_id[0] not in '"\ufeff' else json.dumps(image_id)


def _is_text(image_id: str) -> bool:
    """Whether an id is not empty and can be written as UTF-8."""
    return bool(image_id) and not any("\ud800" <= letter <= "\udfff" for letter in image_id)


def _id_in(text: str) -> str:
    if text[0] == '"':
        with contextlib.suppress(ValueError, RecursionError):  # an id that begins with a quote
            return str(json.loads(text))
    return text


def random_fraction(source: Source, fraction: float, *, seed: int) -> Subset:
    """Return a random fraction of the examples, at least one, in the order of `source`.

    With the same seed, a smaller fraction is part of every larger one.
    """
    size = max(1, round(fraction * len(source)))
    chosen = np.random.default_rng(seed).permutation(len(source))[:size]
    return Subset(source, np.sort(chosen))


def fraction_of_each_class(source: Source, fraction: float, *, seed: int) -> Subset:
    """Return a random fraction of each class, at least one example, in the order of `source`.

    With the same seed, a smaller fraction is part of every larger one. An example's class is its
    first label.
    """
    classes = np.fromiter((source.labels(index)[0] for index in range(len(source))), np.int64)
    sizes = np.bincount(classes)
    limits = np.maximum(1, np.rint(fraction * sizes))
    shuffled = np.random.default_rng(seed).permutation(len(source))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    ranks = np.arange(len(source)) - np.repeat(starts, sizes)  # within the class
    chosen = by_class[ranks < np.repeat(limits, sizes)]
    return Subset(source, np.sort(chosen))


def first_of_each_class(source: Source, fraction: float) -> Subset:
    """Return the first examples of each class in the order of `source`, a fraction rounded down.

    These are the released code's subsets of ImageNet (ImageNetDataset in its versions 0.9 to 1.2),
    where a class folder is listed by file name and the random seed has no effect.

    Raises:
        DataError: A class would have no example.
    """
    classes = np.fromiter((source.labels(index)[0] for index in range(len(source))), np.int64)
    sizes = np.bincount(classes)
    limits = np.asarray([int(size * fraction) for size in sizes.tolist()])
    if empty := [source.categories[label] for label in np.flatnonzero(sizes * (limits == 0))]:
        raise DataError(
            f"--data.share {fraction:g} with --data.share_draw first leaves no image of "
            f"{listing(empty)}. Give a larger share, or --data.share_draw random, which takes at "
            "least one of each class."
        )
    by_class = np.argsort(classes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    ranks = np.arange(len(source)) - np.repeat(starts, sizes)  # within the class
    return Subset(source, np.sort(by_class[ranks < np.repeat(limits, sizes)]))


def labeled_fraction(source: Source, fraction: float, *, seed: int) -> Subset:
    """Return `fraction_of_each_class` where each example has one label, else `random_fraction`."""
    _, counts = _label_lists(source)
    draw = fraction_of_each_class if (counts == 1).all() else random_fraction
    return draw(source, fraction, seed=seed)


def few_shots(source: Source, num_shots: int, *, seed: int) -> Subset:
    """Return examples that show each class at least `num_shots` times, in the order of `source`.

    Classes are drawn from the rarest to the most common, each until the examples drawn so far show
    it often enough; a class with fewer examples gives all. Where each example has one label and the
    seed is the same, fewer shots are part of more.

    Raises:
        DataError: No example has a label.
    """
    assert num_shots >= 1
    labels, counts = _label_lists(source)
    if not len(labels):
        raise DataError(
            f"none of the {len(source):,} training images has a class: there are none to draw from."
        )
    images = np.repeat(np.arange(len(source)), counts)  # (P,) the image of each label
    ranks = np.argsort(np.random.default_rng(seed).permutation(len(source)))
    order = np.lexsort((ranks[images], labels))  # by class, and at random within each
    sizes = np.bincount(labels)
    members = np.split(images[order], np.cumsum(sizes)[:-1])
    starts = np.concatenate([[0], np.cumsum(counts)])
    is_chosen = np.zeros(len(source), np.bool_)
    shown = np.zeros(len(sizes), np.int64)
    for label in np.argsort(sizes, kind="stable").tolist():
        unseen = members[label][~is_chosen[members[label]]]
        for image in unseen[: max(0, num_shots - shown[label])].tolist():
            is_chosen[image] = True
            shown[labels[starts[image] : starts[image + 1]]] += 1
    return Subset(source, np.flatnonzero(is_chosen))


def repeat_factors(source: Source, threshold: float) -> NDArray[np.float64]:
    """Return how often an epoch shows each example (N,), rare classes more often.

    Repeat-factor sampling of Gupta et al., "LVIS", CVPR 2019: the factor of a class is max(1,
    sqrt(threshold / f)), where f is the fraction of examples that show it; the factor of an example
    is the largest of its classes.
    """
    labels, counts = _label_lists(source)
    fractions = np.bincount(labels) / len(source)
    with np.errstate(divide="ignore"):  # a class that no example shows
        factors = np.maximum(1, np.sqrt(threshold / fractions))
    repeats = np.ones(len(source))
    np.maximum.at(repeats, np.repeat(np.arange(len(source)), counts), factors[labels])
    return repeats


def _label_lists(source: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels (P,) of all examples in order, and the number (N,) of each example's."""
    lists = [source.labels(index) for index in range(len(source))]
    labels = np.fromiter((label for one in lists for label in one), np.int64)
    return labels, np.asarray([len(one) for one in lists], np.int64)


def held_out(image_ids: Iterable[str], fraction: float, *, seed: int) -> NDArray[np.bool_]:
    """Return which images (N,) are held out: those whose hash of id and seed is small enough.

    An image keeps its side when others are added or removed.
    """
    limit = fraction * NUM_HASHES
    salt = seed.to_bytes(16, "little", signed=True)
    hashes = (
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
        for name in image_ids
    )
    return np.asarray([int.from_bytes(one, "little") < limit for one in hashes], np.bool_)
