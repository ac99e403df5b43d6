"""Backbone and textual head: an image's caption as loss, logits, likelihood, or text.

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021.
A caption is [start] words [end]. Read backward it is the same tokens in reverse, so it begins with
the end token and what is predicted last is the start token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from virtex.errors import ConfigError
from virtex.models.attention import Packing
from virtex.models.backbone import Backbone
from virtex.models.decoding import DecodingConfig, Generated, Rng, check_prefix, decode
from virtex.models.kv_cache import KeyValueCache
from virtex.models.reranking import log_likelihoods, rerank, with_start_and_end
from virtex.models.textual_head import Direction, HeadConfig, TextualHead
from virtex.tokens import PAD_ID


class Captioner(nn.Module):
    """A backbone whose grid a textual head captions, left to right and possibly right to left.

    Everywhere: images (B, 3, H, W) normalised; tokens (B, T) int64, right-padded with PAD_ID, with
    start and end; lengths (B,) with these two counted. Lengths on the CPU spare the host a wait.
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
        """Mean cross-entropy per predicted token, a scalar for each direction.

        Padding and unknown tokens, which share an id, are no targets. With several
        processes each takes the mean over its own tokens.
        """
        directions = self.head.directions
        losses, targets, _ = self._next_token_losses(
            self.backbone(images), tokens, lengths, directions
        )
        means = losses.sum(1) / (targets != PAD_ID).sum(1)
        return dict(zip(directions, means, strict=True))

    def logits(
        self, images: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Scores of each next token, (B, T, V): row t follows the first t + 1 tokens.

        `tokens` are given left to right in both directions. Rows of padding are zero.
        """
        packing = self._packing(tokens, lengths)
        inputs = packing.pack(read(tokens, lengths, direction))
        grid = self.backbone(images)
        hidden = self.head(inputs[None], packing, grid, directions=[direction])
        return packing.pad(self.head.logits(hidden[0]))

    def token_losses(
        self, grid: Tensor, inputs: Tensor, targets: Tensor, *, lengths: Tensor, noncausal: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of whatever is asked of the forward decoder, token by token.

        Only for places where something is asked is there a product with the vocabulary.

        Args:
            grid: (B, C, h, w), what the backbone makes of the images.
            inputs: (B, T) what the decoder reads; the first `lengths` (B,) of each row are real.
            targets: (B, T) what it is to say at each place; PAD_ID where nothing is asked.
            noncausal: (B,) bool, captions whose tokens attend to all tokens of their caption.

        Returns:
            Losses (M,) of all targets, and (M,) the caption each belongs to.
        """
        packing = self._packing(inputs, lengths, noncausal)
        asked = packing.pack(targets)  # (P,)
        places = asked.nonzero().squeeze(1)  # (M,)
        hidden = self.head(packing.pack(inputs)[None], packing, grid, directions=["forward"])
        losses = self.head.token_losses(hidden[:, places], asked[None, places])  # (1, M)
        return losses[0], packing.rows[places] // packing.num_tokens

    def score(
        self, images: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Log-likelihood (B,) of each caption, its end token included; unknown tokens count 0."""
        self._require_evaluation()
        with torch.no_grad():
            grid = self.backbone(images)
        return self.score_grid(grid, tokens, lengths, direction=direction)

    @torch.no_grad()
    def score_grid(
        self, grid: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """As `score`, given what the backbone made of the images, (B, C, h, w)."""
        self._require_evaluation()
        losses, _, packing = self._next_token_losses(grid, tokens, lengths, [direction])
        captions = packing.rows // packing.num_tokens
        return losses.new_zeros(len(tokens)).index_add(0, captions, -losses[0])

    @torch.no_grad()
    def attention(
        self, grid: Tensor, tokens: Tensor, lengths: Tensor, *, direction: Direction = "forward"
    ) -> Tensor:
        """Where the decoder looked when it said each token: (B, L, A, T, N) float32.

        Row t is that of `tokens[:, t]`, in both directions, and sums to one. It is zero where
        nothing is said: at the token that a reading begins with, and in the padding.

        Args:
            grid: (B, C, h, w), what the backbone makes of the images.
        """
        self._require_evaluation()
        packing = self._packing(tokens[:, 1:], lengths - 1)
        inputs = packing.pack(read(tokens, lengths, direction)[:, :-1])  # (P,)
        weights = self.head.attention(inputs, packing, grid, direction=direction)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        said = lengths.to(tokens.device)[:, None] - 1  # (B, 1)
        # A reading's step s says the token at place s + 1 of what it reads.
        steps = places - 1 if direction == "forward" else said - 1 - places  # (T,) or (B, T)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        said_at = (steps >= 0) & (steps < said)  # (B, T)
        aligned = weights[rows, :, :, steps.clamp(0, weights.shape[3] - 1)]  # (B, T, L, A, N)
        return aligned.masked_fill(~said_at[:, :, None, None, None], 0).permute(0, 2, 3, 1, 4)

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
        """Captions (B, num_captions) of each image, written left to right, the best first.

        With `decoding.backward_weight`, both decoders rank what was found: a caption cut at its
        longest is read backward as if its end token followed.

        Args:
            prefix: (P,) token ids without start, which all captions begin with; their
                log-probabilities count like those of the tokens that follow.
            rng: Randomness for sampling, for all images or one for each.

        Raises:
            ConfigError: What is asked for does not go together, or the model cannot do it.
        """
        self._check_decoding(decoding)
        start = [] if prefix is None else prefix.tolist()
        check_prefix(start, decoding)
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
        """As `generate`, given what the backbone made of the images, (B, C, h, w)."""
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
        """Log-likelihood (B, K) of generated captions (B, K) read right to left.

        Where the model has a position too few for it, the start token, read last, counts nothing.

        Args:
            grid: (B, C, h, w), what the backbone makes of the images.
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
        """What `step` needs to know of B images; room for `num_steps` steps of K beams."""
        return self.head.start(
            self.backbone(images), num_beams=num_beams, num_steps=num_steps, direction=direction
        )

    def step(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """The last token of each beam (B, K) to logits of the next (B, K, V); the cache grows."""
        return self.head.step(tokens, cache)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are not decayed."""
        return {f"head.{name}" for name in self.head.no_weight_decay()}

    def _check_decoding(self, decoding: DecodingConfig) -> None:
        self._require_evaluation()
        if decoding.backward_weight and not self.bidirectional:
            raise ConfigError(
                f"backward_weight is {decoding.backward_weight}, but the model reads captions left "
                "to right only: set it to 0 or take a bidirectional model"
            )

    def _next_token_losses(
        self,
        grid: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        directions: Sequence[Direction],
    ) -> tuple[Tensor, Tensor, Packing]:
        """Losses and targets, (R, P) each, of all tokens after the first, and where they lie."""
        packing = self._packing(tokens[:, 1:], lengths - 1)
        readings = [read(tokens, lengths, direction) for direction in directions]
        inputs = torch.stack([packing.pack(reading[:, :-1]) for reading in readings])  # (R, P)
        targets = torch.stack([packing.pack(reading[:, 1:]) for reading in readings])
        hidden = self.head(inputs, packing, grid, directions=directions)
        return self.head.token_losses(hidden, targets), targets, packing

    def _packing(self, tokens: Tensor, lengths: Tensor, noncausal: Tensor | None = None) -> Packing:
        num_tokens = tokens.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ConfigError(
                f"captions of {num_tokens} tokens, but the textual head was built for "
                f"{self.config.max_tokens}: cut the captions or raise head.max_tokens"
            )
        return Packing.of(lengths, device=tokens.device, num_tokens=num_tokens, noncausal=noncausal)

    def _require_evaluation(self) -> None:
        assert not self.training, "call .eval() first: dropout would spoil the result"


def read(tokens: Tensor, lengths: Tensor, direction: Direction) -> Tensor:
    """Captions (B, T) in the order in which a direction reads them; padding stays on the right."""
    if direction == "forward":
        return tokens
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    source = lengths.to(tokens.device)[:, None] - 1 - steps  # (B, T)
    return tokens.gather(1, source.clamp(min=0)).masked_fill(source < 0, PAD_ID)
