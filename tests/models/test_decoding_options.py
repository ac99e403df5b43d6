"""Prefix, n-grams that may not return, and ranking by both decoders."""

from functools import partial

import pytest
import torch

from tests.models.searches import VOCAB_SIZE, captions_of, run
from tests.models.small import MAX_TOKENS, small_batch, small_captioner
from tests.oracles.decoding import (
    PrefixModel,
    forced_log_prob,
    repeats_an_ngram,
    slow_beam_search,
    slow_ranking,
)
from virtex.errors import ConfigError
from virtex.models import reranking
from virtex.models.decoding import DecodingConfig, penalized
from virtex.models.reranking import rerank, with_start_and_end
from virtex.tokens import EOS_ID, MASK_ID, PAD_ID, SOS_ID, UNK_ID

STRATEGIES = ["beam", "greedy", "nucleus"]
PREFIX = [7, 5, 9]
SEARCH = {"num_beams": 5, "per_node_beams": 2, "max_steps": 8}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ending_captioner():
    """Untrained; its captions are of one to nine tokens, and differ among images."""
    captioner = small_captioner(seed=5)
    for module in captioner.head.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.reset_parameters()
    with torch.no_grad():
        captioner.head.output_bias[EOS_ID] += 2
        captioner.head.visual_projection.weight.mul_(5)
        captioner.head.embedding.positions.weight.mul_(5)
    return captioner


def endless_captioner():
    captioner = small_captioner(seed=2)
    with torch.no_grad():
        captioner.head.output_bias[EOS_ID] -= 100
    return captioner


@pytest.mark.parametrize("original", [False, True])
def test_beam_search_goes_on_from_a_prefix_as_the_slow_search_does(original):
    model = PrefixModel(VOCAB_SIZE, seed=20, end_bonus=1.0)
    config = DecodingConfig(original=original, **SEARCH)
    generated, _ = run(model, config, batch_size=6, num_captions=5, prefix=PREFIX)
    for image, found in enumerate(captions_of(generated)):
        slow = slow_beam_search(
            partial(model.log_probs, image), original=original, prefix=PREFIX, **SEARCH
        )
        assert found == [tokens for tokens, _ in slow]
        expected = torch.tensor([total for _, total in slow], dtype=torch.float32)
        torch.testing.assert_close(generated.log_probs[image], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("original", [False, True])
def test_all_captions_begin_with_the_prefix_whose_likelihood_counts(strategy, original):
    model = PrefixModel(VOCAB_SIZE, seed=21)
    config = DecodingConfig(strategy, original=original, max_steps=7)
    count = 1 if strategy == "greedy" else 3
    options = {"batch_size": 4, "num_captions": count, "prefix": PREFIX, "rng": generator()}
    generated, _ = run(model, config, **options)
    for image, captions in enumerate(captions_of(generated)):
        for tokens, log_prob in zip(captions, generated.log_probs[image].tolist(), strict=True):
            assert tokens[:3] == PREFIX
            assert len(tokens) > 3
            total = forced_log_prob(partial(model.log_probs, image), tokens, original)
            assert log_prob == pytest.approx(total, abs=1e-4)


def test_a_prefix_of_the_found_caption_finds_it_again():
    model = PrefixModel(VOCAB_SIZE, seed=20, end_bonus=-1.0)
    config = DecodingConfig("greedy", max_steps=8)
    free, _ = run(model, config)
    caption = captions_of(free)[0][0]
    forced, _ = run(model, config, prefix=caption[:4])
    assert captions_of(forced)[0][0] == caption
    torch.testing.assert_close(forced.log_probs, free.log_probs)


def test_a_prefix_is_read_once_for_all_beams():
    model = PrefixModel(VOCAB_SIZE, seed=23, end_bonus=-5.0)
    widths = []

    class Watched(PrefixModel):
        def logits(self, image, prefix):
            widths.append(len(prefix))
            return super().logits(image, prefix)

    model = Watched(VOCAB_SIZE, seed=23, end_bonus=-5.0)
    run(model, DecodingConfig(**SEARCH), prefix=PREFIX)
    assert [widths.count(length) for length in range(1, 9)] == [1, 1, 1, 1, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ([5] * 8, "8 tokens leave no room in captions of at most 8: shorten it to 7"),
        (
            [5, UNK_ID, 6, UNK_ID],
            "2 of its 4 tokens stand for characters that the vocabulary lacks",
        ),
        ([SOS_ID, 5], "start, end or mask"),
        ([5, EOS_ID], "start, end or mask"),
        ([MASK_ID], "start, end or mask"),
    ],
)
def test_a_prefix_that_no_caption_can_begin_with_is_refused(prefix, said):
    with pytest.raises(ConfigError, match=said):
        run(PrefixModel(VOCAB_SIZE), DecodingConfig(max_steps=8), prefix=prefix)
    with pytest.raises(ConfigError, match=said):
        small_captioner().generate(
            small_batch()[0], DecodingConfig(max_steps=8), prefix=torch.tensor(prefix)
        )


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("prefix", [[], [4, 5, 4, 5]])
def test_beam_search_without_repetitions_finds_what_the_slow_search_finds(size, prefix):
    model = PrefixModel(7, seed=24, end_bonus=-2.0)
    search = {**SEARCH, "no_repeat_ngram": size}
    generated, _ = run(model, DecodingConfig(**search), batch_size=6, num_captions=5, prefix=prefix)
    for image, found in enumerate(captions_of(generated)):
        slow = slow_beam_search(partial(model.log_probs, image), prefix=prefix, **search)
        assert [
            tokens
            for tokens, total in zip(found, generated.log_probs[image], strict=True)
            if total.isfinite()
        ] == [tokens for tokens, _ in slow]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_is_written_twice(strategy, size):
    model = PrefixModel(7, seed=25, end_bonus=-6.0)
    seen = 0
    for no_repeat_ngram in (size, 0):
        config = DecodingConfig(strategy, max_steps=16, no_repeat_ngram=no_repeat_ngram)
        generated, _ = run(model, config, batch_size=12, rng=generator())
        repeated = [
            any(repeats_an_ngram(tokens[:end], size) for end in range(1, len(tokens) + 1))
            for captions in captions_of(generated)
            for tokens in captions
        ]
        assert not (no_repeat_ngram and any(repeated))
        seen += sum(repeated)
    assert seen


def test_drawing_among_the_one_likeliest_token_is_greedy_search():
    model = PrefixModel(VOCAB_SIZE, seed=26)
    greedy, _ = run(model, DecodingConfig("greedy"), batch_size=5)
    config = DecodingConfig("nucleus", top_k=1, top_p=1.0, temperature=5.0)
    drawn, _ = run(model, config, batch_size=5, rng=generator())
    assert torch.equal(drawn.tokens, greedy.tokens)
    torch.testing.assert_close(drawn.log_probs, greedy.log_probs)


@pytest.mark.parametrize("weight", [0.0, 0.4])
@pytest.mark.parametrize("strategy", ["beam", "nucleus"])
@pytest.mark.parametrize("prefix", [[], [8, 11]])
def test_both_log_likelihoods_are_the_captioners_scores(strategy, prefix, weight):
    captioner = ending_captioner()
    images = small_batch()[0]
    decoding = DecodingConfig(strategy, max_steps=9, backward_weight=weight)
    generated = captioner.generate(
        images, decoding, num_captions=4, prefix=torch.tensor(prefix).long(), rng=generator()
    )
    for caption in range(4):
        tokens = torch.nn.functional.pad(generated.tokens[:, caption], (1, 0), value=SOS_ID)
        score = captioner.score(images, tokens, generated.lengths[:, caption] + 1)
        torch.testing.assert_close(generated.log_probs[:, caption], score, rtol=1e-4, atol=1e-4)
    if not weight:
        assert generated.backward_log_probs is None
        return
    tokens, lengths = with_start_and_end(generated)
    for caption in range(4):
        score = captioner.score(
            images, tokens[:, caption], lengths[:, caption], direction="backward"
        )
        assert torch.allclose(generated.backward_log_probs[:, caption], score, rtol=1e-4, atol=1e-4)
    assert generated.lengths.min() < generated.lengths.max()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1, 14])
@pytest.mark.parametrize("strategy", ["beam", "nucleus"])
def test_captions_are_ranked_as_the_slow_ranking_ranks_them(strategy, length_penalty):
    captioner = small_captioner(seed=4)
    images = small_batch()[0]
    options = {"max_steps": 9, "length_penalty": length_penalty}
    every = captioner.generate(
        images,
        DecodingConfig(strategy, backward_weight=1.0, **options),
        num_captions=5,
        rng=generator(),
    )
    first = set()
    for weight in (0.2, 0.5, 1.0):
        decoding = DecodingConfig(strategy, backward_weight=weight, **options)
        generated = captioner.generate(images, decoding, num_captions=5, rng=generator())
        for image, captions in enumerate(captions_of(every)):
            expected = slow_ranking(
                captions,
                every.log_probs[image].tolist(),
                every.backward_log_probs[image].tolist(),
                weight=weight,
                length_penalty=length_penalty,
            )
            assert captions_of(generated)[image] == expected
            first.add((image, tuple(expected[0])))
    assert len(first) > 4


def test_the_best_of_all_beams_is_returned_when_fewer_are_requested():
    captioner = small_captioner(seed=4)
    images = small_batch()[0]
    decoding = DecodingConfig(max_steps=9, backward_weight=0.9)
    every = captioner.generate(images, decoding, num_captions=5)
    one = captioner.generate(images, decoding)
    assert captions_of(one) == [captions[:1] for captions in captions_of(every)]
    torch.testing.assert_close(one.best().backward_log_probs, every.best().backward_log_probs)
    assert (one.log_probs[:, 0] < every.log_probs.max(1).values).any()


def test_images_ranked_together_and_alone_have_the_same_captions():
    captioner = ending_captioner()
    images = small_batch()[0]
    prefix = torch.tensor([8])
    decoding = DecodingConfig(max_steps=9, backward_weight=0.5, no_repeat_ngram=2)
    together = captioner.generate(images, decoding, num_captions=3, prefix=prefix)
    for row, image in enumerate(images):
        alone = captioner.generate(image[None], decoding, num_captions=3, prefix=prefix)
        assert captions_of(alone)[0] == captions_of(together)[row]
        torch.testing.assert_close(
            alone.backward_log_probs[0], together.backward_log_probs[row], rtol=1e-4, atol=1e-4
        )


def test_many_captions_are_read_in_several_passes_as_in_one(monkeypatch):
    captioner = ending_captioner()
    images = small_batch()[0]
    rows = []
    captioner.head.decoder("backward").register_forward_pre_hook(
        lambda decoder, arguments: rows.append(tuple(arguments[1].places.shape))
    )
    decoding = DecodingConfig("nucleus", max_steps=9, backward_weight=0.5)

    def generate():
        return captioner.generate(images, decoding, num_captions=120, rng=generator())

    in_parts = generate()
    assert sum(num_captions for num_captions, _ in rows) == 120 * len(images)
    assert len(rows) > 1
    assert max(number * length for number, length in rows) <= reranking.MAX_TOKENS * len(images)
    monkeypatch.setattr(reranking, "MAX_TOKENS", 2**30)
    rows.clear()
    at_once = generate()
    assert len(rows) == 1
    assert captions_of(in_parts) == captions_of(at_once)
    torch.testing.assert_close(
        in_parts.backward_log_probs, at_once.backward_log_probs, rtol=1e-4, atol=1e-4
    )


def test_a_caption_cut_at_its_longest_is_read_backward_with_an_end_token():
    captioner = endless_captioner()
    images = small_batch()[0]
    cut = captioner.generate(images, DecodingConfig(max_steps=6, backward_weight=0.5)).best()
    assert (cut.lengths == 6).all()
    tokens = torch.nn.functional.pad(cut.tokens, (1, 0), value=SOS_ID)
    tokens = torch.nn.functional.pad(tokens, (0, 1), value=EOS_ID)
    score = captioner.score(images, tokens, torch.full((4,), 8), direction="backward")
    torch.testing.assert_close(cut.backward_log_probs, score, rtol=1e-4, atol=1e-4)


def test_only_the_start_token_of_the_longest_cut_caption_does_not_count_backward():
    captioner = endless_captioner()
    images = small_batch()[0]
    decoding = DecodingConfig(max_steps=MAX_TOKENS, backward_weight=0.5)
    cut = captioner.generate(images, decoding).best()
    assert (cut.lengths == MAX_TOKENS).all()
    reading = torch.nn.functional.pad(cut.tokens.flip(1), (1, 0), value=EOS_ID)
    logits = captioner.logits(
        images, reading[:, :-1].flip(1), torch.full((4,), MAX_TOKENS), direction="backward"
    )
    said = logits.log_softmax(2).gather(2, reading[:, 1:, None])[..., 0].sum(1)
    torch.testing.assert_close(cut.backward_log_probs, said.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 14.0, -14.0])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_captions_that_a_search_did_not_find_stay_last(weight, penalty):
    captioner = ending_captioner()
    decoding = DecodingConfig(
        num_beams=60, per_node_beams=1, max_steps=2, backward_weight=weight, length_penalty=penalty
    )
    generated = captioner.generate(small_batch()[0], decoding, num_captions=60)
    missing = generated.log_probs == float("-inf")
    assert missing.any(dim=1).all()
    assert torch.equal(missing, missing.sort(dim=1).values)
    if weight:
        assert torch.equal(generated.backward_log_probs == float("-inf"), missing)


def test_a_missing_caption_is_last_whatever_the_power_of_its_length():
    log_probs, lengths = torch.tensor([[-2.0, float("-inf"), -5.0]]), torch.tensor([[9, 600, 4]])
    scores = penalized(log_probs, lengths, 14.0)
    assert scores.argsort(descending=True)[0].tolist() == [0, 2, 1]
    assert scores[0, 1] == float("-inf")


def test_the_first_captions_of_a_ranking_are_padded_to_the_longest_of_them():
    captioner = ending_captioner()
    every = captioner.generate(
        small_batch()[0], DecodingConfig(max_steps=9, backward_weight=1.0), num_captions=5
    )
    likes_short = -every.lengths.float()
    best = rerank(every, likes_short, config=DecodingConfig(backward_weight=1.0), num_captions=1)
    assert best.tokens.shape[2] == best.lengths.max() == every.lengths.min(1).values.max()
    assert every.lengths.max() > best.lengths.max()
    assert torch.equal((best.tokens != PAD_ID).sum(2), best.lengths)


def test_a_model_that_reads_left_to_right_only_ranks_by_that_alone():
    captioner = small_captioner(bidirectional=False)
    with pytest.raises(ConfigError, match="take a bidirectional model"):
        captioner.generate(small_batch()[0], DecodingConfig(max_steps=9, backward_weight=0.5))
