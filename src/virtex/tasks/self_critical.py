"""Fine-tuning of a captioner for CIDEr-D, by captions that it samples (self-critical training).

Rennie et al., "Self-critical Sequence Training for Image Captioning", CVPR 2017 (arXiv 1612.00563),
section 3: for a sampled caption w with reward r, its CIDEr-D against the image's captions,

    L = - (r(w) - b) log p(w)

estimates the gradient of minus the expected reward. The baseline b is the mean reward of the other
samples of the same image, whatever else is in the batch (Luo, "A Better Variant of Self-Critical
Sequence Training", 2020, arXiv 2003.09971), or that of the greedy caption, as in 2017. As in Luo's
code the loss is the sum over the tokens of all samples of a step, divided by their number, and the
end counts as a word, in rewards and frequencies: without it captions learn to stop half-way.

Captions are sampled in `prepare_step`, where the host waits for the device and scores them: the one
departure from "a step never waits". The forward pass has them in its batch, and waits for nothing.
They are drawn in evaluation mode, without dropout and with BatchNorm's running statistics, by
uniform numbers that come with each example: a function of seed, epoch and index. p is the
distribution that is sampled from, over the tokens that may follow in a search. For the gradient to
be exact the forward pass has to compute the same p: the recipe sets dropout to 0 and freezes
BatchNorm.

A backward decoder keeps its cross-entropy, on one caption of each image: it shares projection,
embedding, output layer and backbone with the forward one, and would not follow their change.

Shapes: B images, S samples of each, T tokens, P packed ones, V vocabulary, L bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence

from virtex.data.captioned import CaptionedForTraining, collate_captioned
from virtex.data.captions import EncodeCaption
from virtex.data.example import Example
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import TrainTransform, normalize
from virtex.errors import ConfigError, DataError, listing, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.decoding_config import DecodingConfig
from virtex.models.packing import Direction, Packing, length_multiple, pack_readings
from virtex.models.running import forbid
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import (
    Batch,
    CaptionTask,
    Encode,
    Encoded,
    TaskConfig,
    TaskData,
    TaskOutput,
    mean_loss,
    stack,
)
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID
from virtex.words.cider import Rarity
from virtex.words.ptb_tokens import ptb_tokens

MAX_SAMPLES = 64
MOST_REFERENCES = 20
"""Most captions of an image that a sample is compared with, the first ones."""
END = "[end]"
"""Word that stands for a caption's end; no PTB token has a bracket."""
CAPTIONER = "captioner."


@dataclass(frozen=True)
class SelfCriticalConfig(TaskConfig):
    """Raise the CIDEr-D of a trained captioner's own samples; start it by --init_parts task."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    bidirectional: bool = True
    """Whether the captioner reads captions right to left as well; that decoder learns on by
    cross-entropy."""
    samples_per_image: int = 5
    """Captions that are sampled of each image in a step."""
    baseline: Literal["samples", "greedy"] = "samples"
    """Reward that a sample has to exceed: samples is the mean of the image's other samples (Luo,
    2020); greedy is that of the greedy caption (Rennie et al., 2017), which is decoded for it."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"samples_per_image": (1, MAX_SAMPLES)})
        if self.baseline == "samples" and self.samples_per_image == 1:
            problems.append(
                "baseline samples needs samples_per_image 2 or more, and 1 is given: raise it, or "
                "set baseline greedy"
            )
        if self.baseline not in ("samples", "greedy"):
            problems.append(f"baseline is {self.baseline!r}, must be samples or greedy")
        raise_all(ConfigError, "the options of self-critical training cannot work", problems)

    def start_problems(self, varying: Sequence[str]) -> list[str]:
        problems = []
        if self.head.dropout:
            problems.append(
                f"task.head.dropout {self.head.dropout} must be 0: captions are sampled without "
                "dropout, and their gradient is to be that of the same probabilities"
            )
        if varying:
            problems.append(
                f"{listing(varying)} compute otherwise in training than when captions are sampled: "
                "freeze BatchNorm by --backbone.frozen_norm, and leave out dropout and drop path"
            )
        return problems

    def build(self, backbone: Backbone, data: TaskData) -> "SelfCritical":
        return SelfCritical(self, backbone, data)


class SelfCritical(CaptionTask):
    """A captioner that is rewarded for the captions that it samples."""

    def __init__(self, config: SelfCriticalConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__(config.head, backbone, data, bidirectional=config.bidirectional)
        self.has_greedy_baseline = config.baseline == "greedy"
        self.num_samples = config.samples_per_image
        self.multiple = length_multiple(config.head.max_tokens)
        self.search = DecodingConfig("nucleus", max_steps=config.head.max_tokens - 1, top_p=1.0)
        self.rewards = None if data.references is None else Rewards.of(data)
        caption = EncodeCaption(data.vocabulary, max_tokens=config.head.max_tokens)
        self.encode = EncodeDraws(
            CaptionedForTraining(
                TrainTransform(data.image), caption, encode_references=encode_references
            ),
            (self.num_samples, self.search.max_steps),
        )
        directions = self.captioner.head.directions
        self.collate = partial(collate, directions=directions, multiple=self.multiple)
        self.counts = ("num_targets", "num_sampled")
        self.dynamic = {"rows": 0, "inputs": 1, "targets": 1}
        self.dynamic |= {f"sampled_{name}": axis for name, axis in self.dynamic.items()}

    def starting_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the captioner's part of a run of any task that trains one."""
        return {name: value for name, value in state.items() if name.startswith(CAPTIONER)}

    @torch.no_grad()
    def prepare_step(self, pieces: list[Batch], *, seed: int) -> list[Batch]:
        """Return the pieces with samples of their images; the host waits for the device."""
        del seed  # random numbers come with each example
        self.captioner.eval()
        prepared = [{**piece, **self._sampled(piece)} for piece in pieces]
        self.captioner.train()
        return prepared

    def forward(self, batch: Batch) -> TaskOutput:
        """Return the loss of a step; in validation the cross-entropy of forward captioning.

        A training batch comes from `prepare_step`.
        """
        grid = self.backbone(normalize(batch["image"]))  # (B, C, h, w)
        return self._train(grid, batch) if self.training else self._validate(grid, batch)

    def sample_losses(self, grid: Tensor, batch: Batch) -> Tensor:
        """Return minus the log-probabilities (P,) of the samples' packed tokens, 0 for padding."""
        head, inputs = self.captioner.head, batch["sampled_inputs"]  # (1, P)
        packing = Packing(batch["sampled_rows"], batch["sampled_places"])
        hidden = head(inputs, packing, grid, directions=["forward"])
        logits = head.logits(hidden).to(torch.float32, copy=True)  # (1, P, V)
        forbid(logits, inputs[..., None], config=self.search)
        targets = batch["sampled_targets"][0]
        return cross_entropy(logits[0], targets, ignore_index=PAD_ID, reduction="none")

    def _train(self, grid: Tensor, batch: Batch) -> TaskOutput:
        captions = Packing(batch["sampled_rows"], batch["sampled_places"]).captions
        advantages = batch["advantages"].index_select(0, captions)  # (P,)
        losses = advantages * self.sample_losses(grid, batch)
        (loss,) = mean_loss(losses[None], batch["num_sampled"])
        logs = {"reward": batch["rewards"].mean()}
        if self.captioner.bidirectional:
            backward = self._cross_entropies(grid, batch, slice(1, None))
            loss = loss + sum(backward.values())
            logs |= {name: value.detach() for name, value in backward.items()}
        return TaskOutput(loss, logs)

    def _validate(self, grid: Tensor, batch: Batch) -> TaskOutput:
        logs = self._cross_entropies(grid, batch, slice(None))
        return TaskOutput(logs["captioning_forward"], logs)

    def _cross_entropies(self, grid: Tensor, batch: Batch, chosen: slice) -> dict[str, Tensor]:
        """Return the losses per token of the captions that come with the images, by direction."""
        head, packing = self.captioner.head, Packing(batch["rows"], batch["places"])
        directions = head.directions[chosen]
        hidden = head(batch["inputs"][chosen], packing, grid, directions=directions)
        losses = head.token_losses(hidden, batch["targets"][chosen])  # (R, P)
        means = mean_loss(losses, batch["num_targets"][chosen])
        names = [f"captioning_{direction}" for direction in directions]
        return dict(zip(names, means, strict=True))

    def _sampled(self, piece: Batch) -> Batch:
        """Return the packed samples of a piece, their rewards (B, S) and advantages (B * S,)."""
        assert self.rewards is not None, "a task that is trained is given references"
        grid = self.backbone(normalize(piece["image"]))
        generated = self.captioner.generate_grid(
            grid, self.search, num_captions=self.num_samples, rng=piece["draws"]
        )
        tokens, lengths = generated.tokens.cpu(), generated.lengths.cpu()  # (B, S, T), (B, S)
        references = [decode_references(row) for row in piece["references"].cpu()]
        rewards = self.rewards(tokens, references)  # (B, S)
        if self.has_greedy_baseline:
            search = replace(self.search, strategy="greedy")
            greedy = self.captioner.generate_grid(grid, search).tokens.cpu()  # (B, 1, T)
            baselines = self.rewards(greedy, references)
        else:
            baselines = (rewards.sum(1, keepdim=True) - rewards) / (self.num_samples - 1)
        started = pad(tokens.flatten(0, 1), (1, 0), value=SOS_ID)  # (B * S, 1 + T)
        readings = pack_readings(
            started, lengths.flatten() + 1, ["forward"], multiple=self.multiple
        ).to(grid.device)
        named = {f"sampled_{name}": value for name, value in readings._asdict().items()}
        num_sampled = named.pop("sampled_num_targets")
        return {
            **named,
            "num_sampled": num_sampled,
            "rewards": rewards.to(grid.device),
            "advantages": (rewards - baselines).flatten().to(grid.device),
        }


@dataclass(frozen=True)
class Rewards:
    """CIDEr-D of sampled captions, with document frequencies of the training captions."""

    tokenizer: Tokenizer
    rarity: Rarity

    @classmethod
    def of(cls, data: TaskData) -> "Rewards":
        """Count the n-grams of the training captions.

        Raises:
            DataError: They are in the captions of every image, so that each reward would be 0.
        """
        assert data.references is not None
        words = [
            [[*ptb_tokens(caption), END] for caption in captions] for captions in data.references()
        ]
        rarity = Rarity.of(words)
        if rarity.is_zero(words):
            found = (
                "there is a single training image"
                if len(words) == 1
                else f"the captions of all {len(words)} training images that were read have the "
                "same words"
            )
            raise DataError(
                f"self_critical would learn nothing: {found}, and CIDEr-D, the reward, counts "
                "words that some images have and others lack. Give images with different captions."
            )
        return cls(data.vocabulary, rarity)

    def __call__(self, tokens: Tensor, references: Sequence[Sequence[Sequence[str]]]) -> Tensor:
        """Return the rewards (B, S) of captions (B, S, T) against the words of B images."""
        scores = [
            self.rarity.scores([self._words(caption) for caption in captions], truths)
            for captions, truths in zip(tokens.tolist(), references, strict=True)
        ]
        return torch.tensor(scores)

    def _words(self, caption: Sequence[int]) -> list[str]:
        """Return the words of token ids; a caption that was cut has no end."""
        return [*ptb_tokens(self.tokenizer.decode(caption)), *[END] * (EOS_ID in caption)]


@dataclass(frozen=True)
class EncodeDraws:
    """An encoded example, and the uniform numbers (S, T) by which its captions are sampled.

    They are drawn after all else that is random in an example.
    """

    encode: Encode
    shape: tuple[int, int]

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        draws = generator.random(self.shape, dtype=np.float32)
        return {**encoded, "draws": torch.from_numpy(draws)}


def encode_references(captions: Sequence[str]) -> Tensor:
    """Return the words of captions as UTF-8 (L,): a caption a line, with a space between words.

    The workers split captions into words; token ids would be those of a vocabulary that may lack
    some of them, and cuts.
    """
    lines = [" ".join(ptb_tokens(caption)) for caption in captions[:MOST_REFERENCES]]
    return torch.frombuffer(bytearray("\n".join(lines).encode() + b"\0"), dtype=torch.uint8)


def decode_references(encoded: Tensor) -> list[list[str]]:
    """Return the words of each caption, with the end, of `encode_references` padded with zeros."""
    text = encoded.numpy().tobytes().rstrip(b"\0").decode()
    return [[*line.split(), END] for line in text.split("\n")]


def collate(encoded: Sequence[Encoded], *, directions: Sequence[Direction], multiple: int) -> Batch:
    """Collate images, the tensors of `Readings`, and if they come with them draws and references.

    They are (B, S, T) float32 and (B, L) uint8.
    """
    captioned = collate_captioned(encoded)
    readings = pack_readings(
        captioned["tokens"], captioned["lengths"], directions, multiple=multiple
    )
    batch = {"image": captioned["image"], **readings._asdict()}
    if "draws" not in encoded[0]:
        return batch
    draws = stack([{"draws": item["draws"]} for item in encoded])
    references = pad_sequence([item["references"] for item in encoded], batch_first=True)
    return {**batch, **draws, "references": references}
