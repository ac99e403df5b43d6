"""Captioning models, a backbone and a textual head: loss, logits, likelihood and search.

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021.
A caption is [start] words [end]. The backward reading has the same tokens in reverse: it begins
with the end token, and the start token is predicted last.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.models.decoding import DecodingConfig, Generated, Rng, check_prefix, decode
from virtex.models.kv_cache import KeyValueCache
from virtex.models.packing import Direction, Packing, Readings, pack_readings, pack_tokens, read
from virtex.models.reranking import log_likelihoods, rerank, with_start_and_end
from virtex.models.textual_head import HeadConfig, TextualHead


class Captioner(nn.Module):
    """A backbone and a textual head, which reads left to right and possibly right to left.

    Arguments of all methods: images (B, 3, H, W) normalized, or their grid (B, C, h, w) from the
    backbone; tokens (B, T) int64 with start and end, left to right in both directions, padded with
    PAD_ID on the right; lengths (B,), which include start and end. Lengths on the CPU spare the
    host a wait.
    """

    def __init__(
        self, backbone: Backbone, config: HeadConfig, vocab_size: int, *, bidirectional: bool
    ) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.backbone = backbone
        self.head = TextualHead(
            backbone.num_channels, config, vocab_size, bidirectional=bidirectional
        )

    @property
    def bidirectional(self) -> bool:
        """Whether captions are read right to left as well."""
        return len(self.head.directions) == 2

    def loss(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Return the mean cross-entropy per predicted token, a scalar for each direction.

        Padding and unknown tokens, which share an id, are ignored.
        """
        readings = self._readings(tokens, lengths, self.head.directions)
        losses = self.next_token_losses(
            self.backbone(images), readings.inputs, readings.targets, readings.packing
        )
        means = losses.sum(1) / readings.num_targets
        return dict(zip(self.head.directions, means, strict=True))

    def next_token_losses(
        self, grid: Tensor, inputs: Tensor, targets: Tensor, packing: Packing
    ) -> Tensor:
        """Return the losses (R, P) of packed inputs and targets, (R, P) each, in all directions.

        Args:
            grid: (B, C, h, w) of the captions' images.
        """
        hidden = self.head(inputs, packing, grid, directions=self.head.directions)
        return self.head.token_losses(hidden, targets)

    def logits(
        self, images: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Return logits (B, T, V), of which row t predicts the token after the first t + 1.

        Rows of padding are zero.
        """
        self._check_length(tokens)
        packing = Packing.of(lengths, device=tokens.device)
        ordered = read(tokens, lengths, direction).cpu()
        inputs = pack_tokens(ordered, lengths.cpu(), len(packing.rows)).to(tokens.device)
        hidden = self.head(inputs[None], packing, self.backbone(images), directions=[direction])
        logits = packing.pad(self.head.logits(hidden[0]))
        num_tokens = tokens.shape[1]
        logits = logits.masked_fill(~packing.is_real[..., None], 0)[:, :num_tokens]
        return pad(logits, (0, 0, 0, num_tokens - logits.shape[1]))

    def token_losses(
        self,
        grid: Tensor,
        inputs: Tensor,
        targets: Tensor,
        packing: Packing,
        *,
        chosen: Tensor | None = None,
    ) -> Tensor:
        """Return the forward decoder's losses (M,), 0 where the target is PAD_ID.

        Args:
            inputs: (P,) the packed input of the decoder.
            targets: (M,) the target of each chosen token, which need not follow it.
            packing: The layout, and which token attends to which.
            chosen: (M,) places of the targets in (P,); None for all. Logits are computed there
                alone.
        """
        hidden = self.head(inputs[None], packing, grid, directions=["forward"])  # (1, P, D)
        if chosen is not None:
            hidden = hidden.index_select(1, chosen)
        return self.head.token_losses(hidden, targets[None])[0]

    @torch.no_grad()
    def score(
        self, images: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Return the log-likelihood (B,) of each caption; unknown tokens count 0."""
        self._require_evaluation()
        return self.score_grid(self.backbone(images), tokens, lengths, direction=direction)

    @torch.no_grad()
    def score_grid(
        self, grid: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Return the scores of `score`, given the grid."""
        self._require_evaluation()
        readings = self._readings(tokens, lengths, [direction])
        hidden = self.head(readings.inputs, readings.packing, grid, directions=[direction])
        losses = self.head.token_losses(hidden, readings.targets)[0]  # (P,)
        return losses.new_zeros(len(tokens)).index_add(0, readings.packing.captions, -losses)

    @torch.no_grad()
    def attention(
        self, grid: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Return the attention weights of each token's prediction, (B, L, A, T, N) float32.

        Row t is that of `tokens[:, t]`, in both directions, and sums to one. It is zero for tokens
        that are not predicted: the first of a reading, and padding.
        """
        self._require_evaluation()
        readings = self._readings(tokens, lengths, [direction])
        weights = self.head.attention(
            readings.inputs[0], readings.packing, grid, direction=direction
        )
        by_step = weights.permute(0, 3, 1, 2, 4)  # (B, S, L, A, N)
        return _by_token(by_step, tokens, lengths, direction).permute(0, 2, 3, 1, 4)

    def relevance(
        self,
        grid: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        *,
        chosen: Tensor,
        direction: Direction = "forward",
    ) -> Tensor:
        """Return what each cell of the grid adds to the log-likelihood of tokens, (B, h, w).

        Gradient times input, summed over the channels (Shrikumar et al., "Not just a black box",
        2016): to first order, what would be lost if the cell's features were zero.

        Args:
            grid: (B, C, h, w)
            chosen: (B, T) bool, the tokens that count.
        """
        self._require_evaluation()
        with torch.inference_mode(False), torch.enable_grad():
            tokens, features = tokens.clone(), grid.detach().clone().requires_grad_()
            readings = self._readings(tokens, lengths, [direction])
            hidden = self.head(readings.inputs, readings.packing, features, directions=[direction])
            losses = self.head.token_losses(hidden, readings.targets)[0]  # (P,)
            by_step = readings.packing.pad(losses[:, None])[:, :, 0]  # (B, S)
            log_likelihoods = -_by_token(by_step, tokens, lengths, direction)  # (B, T)
            chosen_sum = log_likelihoods.masked_fill(~chosen, 0).sum()
            (gradient,) = torch.autograd.grad(chosen_sum, features)
        return (gradient * features.detach()).sum(1)

    @torch.no_grad()
    def generate(
        self,
        images: Tensor,
        decoding: DecodingConfig,
        *,
        num_captions: int = 1,
        prefix: Tensor | None = None,
        rng: Rng | None = None,
    ) -> Generated:
        """Return captions (B, num_captions) of each image, searched left to right, best first.

        With `decoding.backward_weight` both decoders rank the captions that the search found. The
        backward reading of a caption that was cut has the end token that it lacks.

        Args:
            prefix: (P,) token ids, without start, that all captions begin with; their
                log-probabilities count as well.
            rng: Randomness of sampling, for all images or one for each.

        Raises:
            ConfigError: The options conflict, or the model does not support them.
        """
        self._check_decoding(decoding)
        check_prefix([] if prefix is None else prefix.tolist(), decoding)
        return self.generate_grid(
            self.backbone(images), decoding, num_captions=num_captions, prefix=prefix, rng=rng
        )

    @torch.no_grad()
    def generate_grid(
        self,
        grid: Tensor,
        decoding: DecodingConfig,
        *,
        num_captions: int = 1,
        prefix: Tensor | None = None,
        rng: Rng | None = None,
    ) -> Generated:
        """Return the captions of `generate`, given the grid."""
        self._check_decoding(decoding)
        num_running = decoding.num_running(num_captions)
        generated = decode(
            self.step,
            self.head.start(grid, num_beams=1, num_steps=decoding.max_steps, direction="forward"),
            config=decoding,
            batch_size=len(grid),
            device=grid.device,
            num_captions=num_running if decoding.backward_weight else num_captions,
            prefix=[] if prefix is None else prefix.tolist(),
            rng=rng,
        )
        if not decoding.backward_weight:
            return generated
        backward = self.backward_log_probs(grid, generated)
        return rerank(generated, backward, config=decoding, num_captions=num_captions)

    @torch.no_grad()
    def backward_log_probs(self, grid: Tensor, generated: Generated) -> Tensor:
        """Return the log-likelihoods (B, K) of generated captions (B, K) read right to left.

        The start token, read last, does not count if the model has no position for it.
        """
        self._require_evaluation()
        tokens, lengths = with_start_and_end(generated)  # (B, K, T)
        readings = read(tokens.flatten(0, 1), lengths.flatten(), "backward").view_as(tokens)
        longest = self.config.max_tokens + 1
        return log_likelihoods(
            self.head,
            grid,
            readings=readings[..., :longest],
            lengths=lengths.clamp(max=longest),
            direction="backward",
        )

    def start(
        self, images: Tensor, *, num_beams: int, num_steps: int, direction: Direction = "forward"
    ) -> KeyValueCache:
        """Return the cache that `step` needs, for `num_steps` steps of K beams of each image."""
        return self.head.start(
            self.backbone(images), num_beams=num_beams, num_steps=num_steps, direction=direction
        )

    def step(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Return the logits (B, K, V) after each beam's last token (B, K); extend the cache."""
        return self.head.step(tokens, cache)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters without weight decay."""
        return {f"head.{name}" for name in self.head.no_weight_decay()}

    def _check_decoding(self, decoding: DecodingConfig) -> None:
        self._require_evaluation()
        if decoding.backward_weight and not self.bidirectional:
            raise ConfigError(
                f"backward_weight is {decoding.backward_weight}, but the model reads captions left "
                "to right only: set it to 0 or take a bidirectional model"
            )

    def _readings(
        self, tokens: Tensor, lengths: Tensor, directions: Sequence[Direction]
    ) -> Readings:
        self._check_length(tokens[:, 1:])
        return pack_readings(tokens.cpu(), lengths.cpu(), directions).to(tokens.device)

    def _check_length(self, tokens: Tensor) -> None:
        num_tokens = tokens.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ConfigError(
                f"captions of {num_tokens} tokens, but the textual head was built for "
                f"{self.config.max_tokens}: cut the captions or raise head.max_tokens"
            )

    def _require_evaluation(self) -> None:
        assert not self.training, "call .eval() first: dropout would spoil the result"


def _by_token(by_step: Tensor, tokens: Tensor, lengths: Tensor, direction: Direction) -> Tensor:
    """Return values of the steps of readings (B, S, ...) at the tokens that they predict.

    Returns:
        (B, T, ...), zero for tokens that are not predicted: the first of a reading, and padding.
    """
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    num_steps = lengths.to(tokens.device)[:, None] - 1  # (B, 1)
    # Step s of a reading predicts the token at its position s + 1.
    steps = positions - 1 if direction == "forward" else num_steps - 1 - positions
    is_predicted = (steps >= 0) & (steps < num_steps)  # (B, T)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    values = by_step[rows, steps.clamp(0, by_step.shape[1] - 1)]
    return values.masked_fill(~is_predicted[(...,) + (None,) * (values.dim() - 2)], 0)
