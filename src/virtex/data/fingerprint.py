"""Fingerprints of data sets, which decide whether two are the same, wherever they lie.

A fingerprint counts and digests what a source gives: image ids, captions, classes, labels, objects;
only what a task needs. Pixels are not read.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from virtex.data.checks import sha256_of_strings
from virtex.data.example import Example, Source
from virtex.data.source_options import Needs

Fingerprint = dict[str, int | str]
DRAWN = "scenes"
"""Source whose images and captions follow from its options alone; drawing them takes minutes."""
CLASSES = "classes sha256"
"""Key of the digest of the classes that labels stand for."""


def fingerprint(source: Source, needs: Needs) -> Fingerprint:
    """Return the counts and digests of a source, of the annotations that a task needs."""
    images: Fingerprint = {"images": len(source)}
    identity = source.identity()
    if identity.get("source") == DRAWN:
        return {**images, "drawing sha256": sha256_of_strings([json.dumps(identity)])}
    if source.shard_counts is not None:  # visiting all examples would take hours
        subset = [identity["sha256"], identity.get("captions_per_image")]
        if "caption_keys_from" in identity:  # no option states them
            images["caption keys"] = identity["caption_keys"]
        return {**images, "shards sha256": sha256_of_strings([json.dumps(subset)])}
    indices = range(len(source))
    images["image ids sha256"] = sha256_of_strings(source.image_id(index) for index in indices)
    if needs.captions:
        images |= _counted("captions", (source.captions(index) for index in indices))
    if needs.labels or needs.objects:
        images["classes"] = len(source.categories)
        images[CLASSES] = sha256_of_strings(source.categories)
    if needs.labels:
        images |= _counted("labels", (source.labels(index) for index in indices))
    if needs.objects:
        images |= _counted("objects", (_objects(source[i], masks=needs.masks) for i in indices))
    return images


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Return what differs between two fingerprints, as texts; none if the data are the same."""
    texts = []
    for name in sorted(before.keys() | now.keys()):
        if name.endswith("sha256") or before.get(name) == now.get(name):
            continue
        texts.append(f"{name}: {_shown(before.get(name))} before, {_shown(now.get(name))} now")
    for name in sorted(before.keys() | now.keys()):
        what = name.removesuffix(" sha256")
        if before.get(name) != now.get(name) and before.get(what) == now.get(what):
            texts.append(
                f"{what}: other ones" + (f", as many ({now[what]})" if what in now else "")
            )
    return texts


def _shown(count: int | str | None) -> str:
    return f"{count:,}" if isinstance(count, int) else "none"


def _counted(name: str, lists: Iterable[Iterable[Any]]) -> Fingerprint:
    """Return the number of items in lists, one for each image, and their digest."""
    count, digest = 0, hashlib.sha256()
    for items in lists:
        for item in items:
            count += 1
            digest.update(str(item).encode("utf-8", "surrogatepass") + b"\0")
        digest.update(b"\0")
    return {name: count, f"{name} sha256": digest.hexdigest()}


def _objects(example: Example, *, masks: bool) -> Iterator[object]:
    """Yield what each object of an image has: class, box, kind and, if needed, mask."""
    boxes = [] if example.boxes is None else example.boxes.tolist()
    for index, (box, label) in enumerate(zip(boxes, example.box_labels, strict=True)):
        flags = [bool(of and of[index]) for of in (example.crowd, example.difficult)]
        yield label, box, flags, example.masks[index] if masks and example.masks else None
