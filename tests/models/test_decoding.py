import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.searches import VOCAB_SIZE, HistoryCache, captions_of, run
from tests.models.small import small_captioner
from tests.oracles.decoding import (
    EOS,
    PrefixModel,
    likeliest_caption,
    nucleus_distribution,
    slow_beam_search,
)
from virtex.errors import ConfigError
from virtex.models.beam_search import BeamSearch
from virtex.models.decoding import DecodingConfig, decode
from virtex.models.running import Running
from virtex.models.sampling import Sampling


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize(("num_beams", "per_node_beams"), [(5, 2), (3, 1), (2, 4), (1, 2)])
@pytest.mark.parametrize("end_bonus", [-2.0, 2.0])
def test_beam_search_finds_what_the_slow_search_finds(
    original, num_beams, per_node_beams, end_bonus
):
    model = PrefixModel(VOCAB_SIZE, seed=3, end_bonus=end_bonus)
    search = {"num_beams": num_beams, "per_node_beams": per_node_beams, "max_steps": 8}
    config = DecodingConfig(original=original, **search)
    batch_size = 6
    generated, _ = run(model, config, batch_size=batch_size, num_captions=num_beams)
    found = captions_of(generated)
    for image in range(batch_size):
        slow = slow_beam_search(partial(model.log_probs, image), original=original, **search)
        assert found[image] == [tokens for tokens, _ in slow]
        expected = torch.tensor([total for _, total in slow], dtype=torch.float32)
        torch.testing.assert_close(generated.log_probs[image], expected, atol=1e-4, rtol=1e-5)


def varied_captioner():
    """Untrained, but what it writes depends on image and position, and may end early."""
    captioner = small_captioner()
    for module in captioner.head.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.reset_parameters()
    with torch.no_grad():
        captioner.head.output_bias.zero_()
        captioner.head.visual_projection.weight.mul_(5)
        captioner.head.embedding.positions.weight.mul_(5)
    return captioner


@pytest.mark.parametrize("original", [False, True])
def test_the_captioners_cached_search_finds_what_computing_every_prefix_finds(original):
    captioner = varied_captioner()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    search = {"num_beams": 4, "per_node_beams": 2, "max_steps": 8}
    generated = captioner.generate(images, DecodingConfig(original=original, **search)).best()

    @torch.no_grad()
    def log_probs(image, prefix):
        tokens, lengths = torch.tensor([prefix]), torch.tensor([len(prefix)])
        logits = captioner.logits(images[image : image + 1], tokens, lengths)
        return logits[0, -1].double().log_softmax(0).tolist()

    for image in range(4):
        slow = slow_beam_search(partial(log_probs, image), original=original, **search)
        tokens, total = slow[0]
        length = generated.lengths[image]
        assert generated.tokens[image, :length].tolist() == tokens
        assert generated.log_probs[image].item() == pytest.approx(total, abs=1e-3)
    assert len(generated.tokens.unique(dim=0)) > 2
    assert generated.lengths.min() < 8


@pytest.mark.parametrize("original", [False, True])
def test_the_best_caption_is_the_first_of_all_beams_although_its_search_stops_early(original):
    model = PrefixModel(VOCAB_SIZE, seed=4, end_bonus=1.0)
    config = DecodingConfig(original=original, max_steps=8)
    best, early = run(model, config, batch_size=8)
    every, late = run(model, config, batch_size=8, num_captions=5)
    assert captions_of(best) == [captions[:1] for captions in captions_of(every)]
    assert torch.equal(best.best().log_probs, every.best().log_probs)
    assert sum(early.batch_sizes) < sum(late.batch_sizes)


def test_enough_beams_find_the_likeliest_of_all_captions():
    model = PrefixModel(7, seed=1)
    config = DecodingConfig(num_beams=4**4, per_node_beams=7, max_steps=4)
    generated, _ = run(model, config, batch_size=3)
    for image in range(3):
        tokens, total = likeliest_caption(
            partial(model.log_probs, image), vocab_size=7, max_steps=4
        )
        assert captions_of(generated)[image][0] == tokens
        assert generated.log_probs[image, 0].item() == pytest.approx(total, abs=1e-4)


def test_greedy_search_is_a_single_beam():
    model = PrefixModel(VOCAB_SIZE, seed=5)
    greedy, _ = run(model, DecodingConfig(strategy="greedy"), batch_size=5)
    single, _ = run(model, DecodingConfig(num_beams=1, per_node_beams=1), batch_size=5)
    assert torch.equal(greedy.tokens, single.tokens)
    assert torch.equal(greedy.log_probs, single.log_probs)


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("strategy", ["beam", "greedy", "nucleus"])
def test_no_token_follows_itself_and_no_special_token_is_written(strategy, original):
    model = PrefixModel(8, seed=6, end_bonus=-3.0)
    config = DecodingConfig(strategy=strategy, original=original, max_steps=20)
    rng = torch.Generator().manual_seed(0)
    generated, _ = run(model, config, batch_size=10, rng=rng)
    written = [tokens for captions in captions_of(generated) for tokens in captions]
    assert max(map(len, written)) > 5
    for tokens in written:
        assert all(a != b for a, b in itertools.pairwise(tokens))
    specials = {token for tokens in written for token in tokens} & {0, 1, 3}
    assert bool(specials) == original


@pytest.mark.parametrize("strategy", ["beam", "greedy", "nucleus"])
def test_finished_images_leave_the_batch_and_change_nothing(strategy):
    model = PrefixModel(VOCAB_SIZE, seed=7, end_bonus=1.5)
    config = DecodingConfig(strategy=strategy, max_steps=10)
    together, cache = run(model, config, batch_size=6, rng=torch.Generator().manual_seed(1))
    assert cache.batch_sizes[-1] < 6
    rng = torch.Generator().manual_seed(1)
    for image in range(6):
        alone, _ = run(model, config, first_image=image, rng=rng)
        assert captions_of(alone)[0] == captions_of(together)[image]
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[image])


def test_tokens_after_the_end_token_are_padding():
    model = PrefixModel(VOCAB_SIZE, seed=8, end_bonus=4.0)
    generated, _ = run(model, DecodingConfig(max_steps=10), batch_size=6, num_captions=5)
    position = torch.arange(generated.tokens.shape[-1])
    assert generated.tokens[position >= generated.lengths[..., None]].eq(0).all()
    last = generated.tokens.gather(2, generated.lengths[..., None] - 1)[..., 0]
    assert last.eq(EOS).all()
    assert generated.tokens.shape[-1] == generated.lengths.max() < 10


def test_a_length_penalty_ranks_the_final_beams_by_likelihood_per_token():
    model = PrefixModel(VOCAB_SIZE, seed=9, end_bonus=0.5)
    search = {"num_beams": 5, "per_node_beams": 2, "max_steps": 8}
    config = DecodingConfig(length_penalty=1.0, **search)
    generated, _ = run(model, config, batch_size=8)
    changed = 0
    for image in range(8):
        slow = slow_beam_search(partial(model.log_probs, image), **search)
        tokens, total = max(slow, key=lambda beam: beam[1] / len(beam[0]))
        assert captions_of(generated)[image][0] == tokens
        assert generated.log_probs[image, 0].item() == pytest.approx(total, abs=1e-4)
        changed += tokens != slow[0][0]
    assert changed


@pytest.mark.parametrize(
    ("top_p", "temperature", "top_k"),
    [(0.9, 1.0, 0), (0.5, 1.0, 0), (1.0, 0.5, 0), (1.0, 1.0, 3), (0.8, 2.0, 4), (1.0, 1.0, 99)],
)
def test_nucleus_sampling_draws_from_the_truncated_distribution(top_p, temperature, top_k):
    model = PrefixModel(VOCAB_SIZE, seed=10)
    config = DecodingConfig(
        "nucleus", max_steps=1, top_p=top_p, temperature=temperature, top_k=top_k
    )
    rng = torch.Generator().manual_seed(2)
    num_draws = 20_000
    logits = torch.from_numpy(model.logits(0, [1]))
    generated = decode(
        lambda tokens, _: logits.expand(*tokens.shape, -1),
        HistoryCache(1),
        config=config,
        batch_size=1,
        num_captions=num_draws,
        rng=rng,
    )
    expected = nucleus_distribution(
        model.log_probs(0, [1]), top_p=top_p, temperature=temperature, top_k=top_k
    )
    counts = np.bincount(generated.tokens[0, :, 0].numpy(), minlength=VOCAB_SIZE)
    assert not counts[expected == 0].any()
    deviation = np.sqrt(expected * (1 - expected) / num_draws)
    assert (np.abs(counts / num_draws - expected) <= 4 * deviation).all()


@pytest.mark.parametrize("vocab_size", [50, 10_000])
def test_the_largest_draws_find_no_token_that_is_forbidden(vocab_size):
    size = 100
    logits = 3 * torch.randn(size, 1, vocab_size, generator=torch.Generator().manual_seed(0))
    logits[1::2, :, 5:20] = -200  # so unlikely that their probability is 0 as well
    draws = 1 - torch.arange(1, 11).view(1, -1, 1).expand(size, -1, 1) * 2.0**-24
    running = Running(
        torch.arange(size), torch.full((size, 1, 1), 7), torch.zeros(size, 1)
    )  # of which none may say 7 once more
    for config in (DecodingConfig("nucleus", top_p=1.0), DecodingConfig("nucleus", top_p=0.9999)):
        drawn = Sampling(config, draws.expand(-1, -1, 2)).extend(running, logits)
        assert not torch.isin(drawn.last, torch.tensor([7, *config.forbidden])).any()
        assert drawn.log_probs.isfinite().all()


def test_nan_logits_give_captions_of_nan_log_probability():
    def step(tokens, _):
        return torch.full((*tokens.shape, VOCAB_SIZE), float("nan"))

    config = DecodingConfig("nucleus", max_steps=3)
    rng = torch.Generator().manual_seed(0)
    generated = decode(step, HistoryCache(2), config=config, batch_size=2, rng=rng)
    assert generated.log_probs.isnan().all()


def test_samples_are_drawn_by_numbers_as_by_the_generator_of_them():
    model = PrefixModel(VOCAB_SIZE, seed=11)
    config = DecodingConfig("nucleus", max_steps=6)
    draws = torch.rand((2, 4, 6), generator=torch.Generator().manual_seed(3))
    given, drawn = (
        run(model, config, batch_size=2, num_captions=4, rng=rng)[0]
        for rng in (draws, torch.Generator().manual_seed(3))
    )
    assert torch.equal(given.tokens, drawn.tokens)


def test_samples_of_one_image_are_independent_and_have_the_models_log_probability():
    model = PrefixModel(VOCAB_SIZE, seed=11)
    config = DecodingConfig("nucleus", max_steps=6, top_p=0.8, temperature=0.7)
    rng = torch.Generator().manual_seed(3)
    generated, _ = run(model, config, batch_size=2, num_captions=4, rng=rng)
    for image, captions in enumerate(captions_of(generated)):
        assert len({tuple(tokens) for tokens in captions}) > 1
        for tokens, log_prob in zip(captions, generated.log_probs[image], strict=True):
            total = sum(
                model.log_probs(image, [1, *tokens[:i]])[token] for i, token in enumerate(tokens)
            )
            assert log_prob.item() == pytest.approx(total, abs=1e-4)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others():
    model = PrefixModel(VOCAB_SIZE, seed=12)
    config = DecodingConfig("nucleus", max_steps=6)

    def sample(seed):
        rng = torch.Generator().manual_seed(seed)
        return captions_of(run(model, config, batch_size=4, rng=rng)[0])

    assert sample(0) == sample(0)
    assert sample(0) != sample(1)


def test_a_vocabulary_smaller_than_the_beam_leaves_missing_captions():
    model = PrefixModel(5, seed=13)
    generated, _ = run(model, DecodingConfig(max_steps=1), batch_size=1, num_captions=5)
    assert generated.log_probs[0].isfinite().tolist() == [True, True, False, False, False]
    assert set(generated.tokens[0, 2:].flatten().tolist()) == {EOS}


def test_settings_that_cannot_work_are_named_all_at_once():
    with pytest.raises(ConfigError, match=r"(?s)num_beams is 0.*top_p is 1\.5.*temperature is 0"):
        DecodingConfig(num_beams=0, top_p=1.5, temperature=0)
    with pytest.raises(
        ConfigError, match=r"(?s)top_k is -1.*no_repeat_ngram is -2.*backward_weight is 2"
    ):
        DecodingConfig(top_k=-1, no_repeat_ngram=-2, backward_weight=2)
    with pytest.raises(ConfigError, match="greedy writes a single caption"):
        DecodingConfig("greedy", backward_weight=0.5)
    with pytest.raises(ConfigError, match=r"6 captions .* at most 5: .* raise num_beams"):
        run(PrefixModel(VOCAB_SIZE), DecodingConfig(), num_captions=6)
    with pytest.raises(ConfigError, match="greedy, which writes at most 1: use strategy beam"):
        run(PrefixModel(VOCAB_SIZE), DecodingConfig("greedy"), num_captions=2)
    with pytest.raises(ConfigError, match="pass rng"):
        run(PrefixModel(VOCAB_SIZE), DecodingConfig("nucleus"))


class Operations(TorchDispatchMode):
    """Collects the names of all tensor operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("strategy", ["beam", "nucleus"])
def test_a_step_copies_nothing_to_the_device(strategy):
    config = DecodingConfig(strategy, no_repeat_ngram=2, top_k=4)
    search = BeamSearch(config, num_captions=1, num_beams=3)
    if strategy == "nucleus":
        search = Sampling(config, torch.rand(2, 3, 9))
    running = Running(torch.arange(2), torch.full((2, 3, 4), 7), torch.zeros(2, 3))
    logits = torch.zeros(2, 3, VOCAB_SIZE)
    with Operations() as operations:
        search.extend(running, logits)
    assert "aten.topk.default" in operations.names
    assert "aten.lift_fresh.default" not in operations.names  # a tensor of a Python list


@pytest.mark.parametrize("strategy", ["beam", "greedy", "nucleus"])
@pytest.mark.parametrize("count", [0, -1])
def test_fewer_captions_than_one_are_refused(strategy, count):
    with pytest.raises(ConfigError, match=f"{count} captions .* at least 1"):
        run(PrefixModel(VOCAB_SIZE), DecodingConfig(strategy), num_captions=count)


@pytest.mark.parametrize("number", [math.inf, math.nan])
@pytest.mark.parametrize("name", ["temperature", "length_penalty", "top_p", "backward_weight"])
def test_settings_that_are_no_numbers_are_refused(name, number):
    with pytest.raises(ConfigError, match=f"{name} is {number}"):
        DecodingConfig("nucleus", **{name: number})


def test_captions_are_cut_to_what_the_model_was_built_for():
    config = DecodingConfig("nucleus", max_steps=20, top_k=3)
    assert config.within(12) == DecodingConfig("nucleus", max_steps=12, top_k=3)
    assert config.within(20) == config.within(99) == config
