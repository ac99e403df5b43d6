"""Source of drawn scenes."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Example, Source
from virtex.data.sources.scenes.composition import (
    DrawnScene,
    VisibleObject,
    compose,
    visible_objects,
)
from virtex.data.sources.scenes.grammar import write_captions
from virtex.data.sources.scenes.kinds import CATEGORIES, KIND_IDS
from virtex.data.sources.scenes.scene_plan import ScenePlan, plan_scene
from virtex.errors import ConfigError, raise_all

CAPTIONS_PER_IMAGE = 5
MIN_SIZE, MAX_SIZE = 64, 512
"""Range of the width and height in pixels."""
_SPLITS = {"train": 0, "val": 1, "test": 2}
_PLANNING, _PAINTING, _WORDS = range(3)
"""Streams of random numbers of one scene."""
_VERSION = 1
"""Version in `identity`, raised whenever the same seed would give other scenes."""


class ScenesSource(Source):
    """Drawn scenes with captions, labels, boxes and masks, made from a random seed on request.

    Scene i depends on nothing but (seed, split, i, image_size); the splits never share one.

    Args:
        num_images: Number of scenes; a longer source starts with the same ones.
        seed: Random seed, 0 or more.
        split: `train`, `val` or `test`.
        image_size: Width and height in pixels, 64 to 512.

    Raises:
        ConfigError: A number out of range or an unknown split.
    """

    categories = CATEGORIES

    def __init__(
        self, num_images: int, *, seed: int = 0, split: str = "train", image_size: int = 96
    ) -> None:
        problems = []
        if num_images < 1:
            problems.append(f"num_images is {num_images}; give 1 or more")
        if seed < 0:
            problems.append(f"seed is {seed}; give 0 or more")
        if split not in _SPLITS:
            problems.append(f"split is {split!r}; give one of {', '.join(_SPLITS)}")
        if not MIN_SIZE <= image_size <= MAX_SIZE:
            problems.append(f"image_size is {image_size}; give {MIN_SIZE} to {MAX_SIZE}")
        raise_all(ConfigError, "scenes cannot be drawn", problems)
        self.num_images, self.seed = num_images, seed
        self.split, self.image_size = split, image_size

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> Example:
        return _scene(self._key(index), self.split, self.image_size)

    def labels(self, index: int) -> tuple[int, ...]:
        return _labels(self._key(index), self.image_size)

    def identity(self) -> dict[str, str | int]:
        return {
            "source": "scenes", "version": _VERSION, "split": self.split, "seed": self.seed,
            "images": self.num_images, "image_size": self.image_size,
        }  # fmt: skip

    def _key(self, index: int) -> tuple[int, int, int]:
        """Return the seed of a scene."""
        if not -self.num_images <= index < self.num_images:
            raise IndexError(f"scene {index} of {self.num_images}")
        return self.seed, _SPLITS[self.split], index % self.num_images


@lru_cache(maxsize=128)  # 100 MB at the largest size
def _scene(key: tuple[int, int, int], split: str, size: int) -> Example:
    """Return a scene, which a run of few images draws but once."""
    seed, _, index = key
    scene = _draw(key, size)
    scene.pixels.flags.writeable = False
    words = np.random.default_rng((*key, _WORDS))
    labels = _labels_of(scene.plan, scene.objects)
    return Example(
        image_id=f"{split}-{seed}-{index:07d}",
        image=scene.pixels,
        captions=write_captions(scene, number=CAPTIONS_PER_IMAGE, rng=words),
        labels=tuple(sorted(set(labels))),
        boxes=np.array([drawn.box for drawn in scene.objects], np.float32),
        box_labels=labels,
        masks=tuple(run_lengths(drawn.mask) for drawn in scene.objects),
    )


@lru_cache(maxsize=2**14)  # 3 MB
def _labels(key: tuple[int, int, int], size: int) -> tuple[int, ...]:
    """Return the classes of a scene, which is checked before it is drawn."""
    planning = np.random.default_rng((*key, _PLANNING))
    while True:
        plan = plan_scene(planning)
        if objects := visible_objects(plan, size=size):
            return tuple(sorted(set(_labels_of(plan, objects))))


def _labels_of(plan: ScenePlan, objects: Sequence[VisibleObject]) -> tuple[int, ...]:
    """Return the class of each object."""
    return tuple(KIND_IDS[plan.groups[drawn.group].kind.name] for drawn in objects)


def _draw(key: tuple[int, int, int], size: int) -> DrawnScene:
    """Draw the first planned scene that shows an object; its plan does not depend on the size."""
    planning = np.random.default_rng((*key, _PLANNING))
    painting = np.random.default_rng((*key, _PAINTING))
    while True:
        scene = compose(plan_scene(planning), size=size, rng=painting)
        if scene.objects:
            return scene


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return a mask (H, W) as COCO's uncompressed run lengths: column by column, zeros first."""
    flat = mask.ravel(order="F")
    edges = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    counts = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
