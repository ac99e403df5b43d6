"""Captioning with locations (LocCa): one decoder writes captions, and boxes with their words.

Wan et al., "LocCa: Visual Pretraining with Location-aware Captioners", NeurIPS 2024 (arXiv
2403.19596), section 3. A first token says which of three readings of an image follows:

    caption   [Cap]  words of a caption [end]
    aref      [ARef] words of an object, its box           (automatic referring expressions)
    gcap      [GCap] a box, words of the object [end]      (grounded captioning)

As in the paper all readings of a step share one pass of the image through the backbone, and the
decoder predicts all tokens after the first: of the last two both the words and the box. With
`predict_given` false it is given the words, or the box, and predicts what follows.

Departures. A coordinate is one token of its own (as in Pix2seq, see location_tokens.py), which the
paper writes as an integer up to 500 in the text's own tokens. The words of an object are the name
of its class, since boxes with captions are rare; the paper takes those of a detector, for texts
of the web. Captions are read left to right alone, where the paper predicts half of them in parallel
as CapPa does. The paper's image is resized; here it keeps its aspect ratio, is zoomed and flipped.

Crowds are left out and `difficult` objects are not, as in detection; an object that the crop cuts
has its visible box. An object that is not visible, and an image without any, has no targets.

The added tokens stand behind the vocabulary, and nothing keeps a search from them, so the captioner
is not shown as one that writes captions.

Shapes: B images, K sequences of an image, P packed tokens, M objects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from virtex.data.captioned import collate_captioned, drawn_order
from virtex.data.captions import EncodeCaption, class_words, pad_tokens
from virtex.data.example import Example
from virtex.data.location_tokens import NUM_COORDINATES, LocationTokens
from virtex.data.object_transforms import WholeImageTransform, ZoomTransform
from virtex.data.objects import Objects, pad_image
from virtex.data.source_options import Needs
from virtex.data.transforms import normalize, swap_left_and_right
from virtex.errors import ConfigError, DataError, listing, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.packing import Packing, length_multiple, pack_readings, pack_tokens
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import (
    Batch,
    CaptionTask,
    Encoded,
    TaskData,
    TaskOutput,
    WithSmoothingConfig,
    mean_loss,
)
from virtex.tokens import EOS_ID, PAD_ID

CAPTION, AREF_WORDS, AREF_BOX, GCAP_BOX, GCAP_WORDS = range(5)
"""Parts of the readings, by which losses are summed; an end token belongs to the part before it."""
NUM_PARTS = 5
READINGS = {"caption": slice(0, 1), "aref": slice(1, 3), "gcap": slice(3, 5)}
"""The parts of each reading; its index is that of its prefix token behind the vocabulary."""
GIVEN = torch.tensor([AREF_WORDS, GCAP_BOX])
FEWEST_TOKENS = NUM_COORDINATES + 3
"""Tokens of a box with one word, prefix and end."""
MAX_OBJECTS, MAX_BINS = 64, 10_000
MAX_WEIGHT = 1_000_000
PartedTokens = tuple[list[int], list[int]]
"""The tokens of a sequence, and the part that each belongs to."""


@dataclass(frozen=True)
class LocCaConfig(WithSmoothingConfig):
    """Predict captions, and each object's words and box (LocCa).

    The image options size, flip_prob and color jitter apply; scale and ratio do not, since an image
    keeps its aspect ratio and `zoom` replaces them.
    """

    reads_class_names: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    caption_weight: float = 1.0
    """Weight of the captions' loss; 0 for data without captions (voc, lvis)."""
    aref_weight: float = 1.0
    """Weight of the loss of words and then their box; 0 leaves them out."""
    gcap_weight: float = 1.0
    """Weight of the loss of a box and then its words; 0 leaves them out."""
    predict_given: bool = True
    """Predict the first half of an object's sequence too, its words or its box, as the paper does;
    false predicts the box of given words, and the words of a given box."""
    max_objects: int = 4
    """Most objects of an image in a step, drawn at random; validation takes the first ones."""
    num_bins: int = 100
    """Number of location tokens, into which each side of the image is divided: at 100 one is 2 of
    224 pixels. More are finer, and each is seen less often."""
    zoom: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest zoom of a training image; at 1 its longer side equals image.size. Larger
    images are cropped at random, smaller ones padded."""

    def __post_init__(self) -> None:
        weights = {f"{name}_weight": (0, MAX_WEIGHT) for name in READINGS}
        counts = {"max_objects": (1, MAX_OBJECTS), "num_bins": (2, MAX_BINS)}
        problems = out_of_range(self, {**weights, **counts}) + self.smoothing_problems()
        if self.aref_weight == self.gcap_weight == 0:
            problems.append(
                "aref_weight and gcap_weight are both 0, which leaves no boxes: give one of them, "
                "or train with --task captioning"
            )
        if self.head.max_tokens < FEWEST_TOKENS:
            problems.append(
                f"head.max_tokens {self.head.max_tokens} must be at least {FEWEST_TOKENS}, for a "
                "box with a word"
            )
        if not 0 < self.zoom[0] <= self.zoom[1]:
            problems.append(f"zoom {self.zoom} must be two rising numbers above 0")
        raise_all(ConfigError, "the options of LocCa cannot work", problems)

    @property
    def needs(self) -> Needs:
        return Needs(self.caption_weight > 0, True, can_do_without="--task.caption_weight 0")

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the trained readings, by name."""
        weights = {name: getattr(self, f"{name}_weight") for name in READINGS}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def build(self, backbone: Backbone, data: TaskData) -> "LocCa":
        return LocCa(self, backbone, data)


class LocCa(CaptionTask):
    """A decoder beside the backbone that reads images in up to three ways."""

    def __init__(self, config: LocCaConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__(
            config.head,
            backbone,
            data,
            label_smoothing=config.label_smoothing,
            num_added=len(READINGS) + config.num_bins,
        )
        self.weights, self.predict_given = config.weights, config.predict_given
        read = ReadImage.of(config, data)
        self.encode = EncodeForTraining(ZoomTransform(data.image, config.zoom, False), read)
        self.encode_validation = EncodeForValidation(
            WholeImageTransform(data.image.size, False), read
        )
        self.collate = partial(
            collate,
            multiple=length_multiple(config.head.max_tokens),
            predict_given=config.predict_given,
        )
        self.counts = ("num_targets",)
        self.dynamic = {"rows": 0, "inputs": 1, "targets": 0, "parts": 0}

    @property
    def writer(self) -> None:
        """None: a search could write location tokens."""
        return

    def forward(self, batch: Batch) -> TaskOutput:
        """Return the weighted sum of the readings' losses, each the mean over its tokens."""
        grid = self.backbone(normalize(batch["image"]))  # (B, C, h, w)
        packing = Packing(batch["rows"], batch["places"])
        losses = self.captioner.token_losses(
            grid, batch["inputs"][0], batch["targets"], packing
        )  # (P,)
        parts = torch.arange(NUM_PARTS, device=losses.device)[:, None]
        sums = losses.masked_fill(batch["parts"] != parts, 0).sum(1)  # (5,)
        return self._weighted(sums, batch["num_targets"])

    def _weighted(self, sums: Tensor, num_targets: Tensor) -> TaskOutput:
        """Return the loss, given sums and numbers of targets of each part, both (5,)."""
        weights = {name: num_targets[READINGS[name]].sum() for name in self.weights}
        means = {name: mean_loss(sums[READINGS[name]], weights[name]) for name in weights}
        loss = torch.stack([self.weights[name] * mean for name, mean in means.items()]).sum()
        logs = {name: mean.detach() for name, mean in means.items()}
        if self.predict_given:
            followed = mean_loss(sums.detach()[:, None], num_targets)  # (5,)
            halves = {"aref": ("aref_box", AREF_BOX), "gcap": ("gcap_words", GCAP_WORDS)}
            trained = [half for name, half in halves.items() if name in means]
            logs |= {key: followed[part] for key, part in trained}
            weights |= {key: num_targets[part] for key, part in trained}
        return TaskOutput(loss, logs, weights=weights, terms=self.weights)


@dataclass(frozen=True)
class ReadImage:
    """A function from a caption and objects to the token sequences of an image, always K."""

    encode_caption: EncodeCaption
    names: tuple[tuple[int, ...], ...]
    """Token ids of each class's words, cut to leave room for a box."""
    locations: LocationTokens
    readings: tuple[str, ...]
    max_objects: int

    @classmethod
    def of(cls, config: LocCaConfig, data: TaskData) -> "ReadImage":
        """Return the function for a task's options and data.

        Raises:
            DataError: A class has no name, so that its boxes would be read without words.
        """
        tokenizer, most = data.vocabulary, config.head.max_tokens
        words = [tokenizer.encode(class_words(name)) for name in data.categories]
        wordless = [repr(name) for name, ids in zip(data.categories, words, strict=True) if not ids]
        if wordless:
            raise DataError(
                f"{len(wordless)} of {len(words)} classes of objects have no words in their names: "
                f"{listing(wordless)}. locca reads and writes an object's name with its box: name "
                "these classes."
            )
        return cls(
            EncodeCaption(tokenizer, max_tokens=most),
            tuple(tuple(ids[: most - FEWEST_TOKENS + 1]) for ids in words),
            LocationTokens(len(tokenizer) + len(READINGS), config.num_bins, data.image.size),
            tuple(config.weights),
            config.max_objects,
        )

    @property
    def with_captions(self) -> bool:
        """Whether captions are read."""
        return "caption" in self.readings

    def __call__(self, caption: str | None, objects: Objects) -> Encoded:
        """Return the sequences one after another, as `tokens` and `parts`, and `lengths` (K,).

        Args:
            objects: The first `max_objects` are taken. A sequence for which there is none is a
                single token, after which nothing is predicted.
        """
        sequences = [] if caption is None else [self._caption(caption)]
        for index in range(self.max_objects):
            if index < len(objects.labels):
                sequences += self._object(objects, index)
            else:
                sequences += [([EOS_ID], [CAPTION])] * (len(self.readings) - self.with_captions)
        tokens, parts = zip(*sequences, strict=True)
        return {
            "tokens": torch.tensor([token for one in tokens for token in one]),
            "parts": torch.tensor([part for one in parts for part in one]),
            "lengths": torch.tensor([len(one) for one in tokens]),
        }

    def _caption(self, caption: str) -> PartedTokens:
        tokens = [self._prefix("caption"), *self.encode_caption(caption)[1:].tolist()]
        return tokens, [CAPTION] * len(tokens)

    def _object(self, objects: Objects, index: int) -> Iterator[PartedTokens]:
        """Yield the sequences of one object."""
        words = [*self.names[objects.labels[index] - 1]]  # class 0 is the background
        box = self.locations.encode(objects.boxes[index]).tolist()
        if "aref" in self.readings:
            parts = [AREF_WORDS] * (1 + len(words)) + [AREF_BOX] * len(box)
            yield [self._prefix("aref"), *words, *box], parts
        if "gcap" in self.readings:
            parts = [GCAP_BOX] * (1 + len(box)) + [GCAP_WORDS] * (len(words) + 1)
            yield [self._prefix("gcap"), *box, *words, EOS_ID], parts

    def _prefix(self, reading: str) -> int:
        """Return the token that a reading begins with."""
        return len(self.encode_caption.tokenizer) + [*READINGS].index(reading)


@dataclass(frozen=True)
class EncodeForTraining:
    """A function from an example to its augmented image, a drawn caption and drawn objects."""

    transform: ZoomTransform
    read: ReadImage

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        caption = None
        if self.read.with_captions:
            caption = example.captions[drawn_order(example, generator)[0]]
        image, objects, _, is_flipped = self.transform.place(example, generator)
        if caption is not None and is_flipped:
            caption = swap_left_and_right(caption, original=self.transform.config.original)
        drawn = generator.permutation(len(objects.labels))[: self.read.max_objects]
        chosen = Objects(objects.boxes[drawn], objects.labels[drawn], None)
        size = self.transform.config.size
        return {"image": pad_image(image, size, size), **self.read(caption, chosen)}


@dataclass(frozen=True)
class EncodeForValidation:
    """A function from an example to its whole image, first caption and first objects."""

    transform: WholeImageTransform
    read: ReadImage

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        del generator
        image, objects, _, _ = self.transform.place(example)
        caption, size = (
            example.captions[0] if self.read.with_captions else None,
            self.transform.size,
        )
        return {"image": pad_image(image, size, size), **self.read(caption, objects)}


def collate(encoded: Sequence[Encoded], *, multiple: int, predict_given: bool) -> Batch:
    """Collate images and sequences: packed tokens, `parts` (P,), and `num_targets` (5,) of each."""
    captioned = collate_captioned(encoded)
    tokens, lengths = captioned["tokens"], captioned["lengths"]
    readings = pack_readings(tokens, lengths, ["forward"], multiple=multiple)
    unpacked = [one for item in encoded for one in item["parts"].split(item["lengths"].tolist())]
    parts = pack_tokens(pad_tokens(unpacked)[0][:, 1:], lengths - 1, len(readings.rows))
    targets = readings.targets[0]
    if not predict_given:
        targets = targets.masked_fill(torch.isin(parts, GIVEN), PAD_ID)
    return {
        "image": captioned["image"],
        "rows": readings.rows,
        "places": readings.places,
        "inputs": readings.inputs,
        "targets": targets,
        "parts": parts,
        "num_targets": parts[targets != PAD_ID].bincount(minlength=NUM_PARTS).float(),
    }
