import pytest
import torch

from tests.oracles.contrastive import encode_text
from virtex.errors import ConfigError
from virtex.models.text_encoder import TextEncoder, TextEncoderConfig

CAPTIONS = [[1, 5, 6, 7, 2], [1, 8, 2], [1, 9, 9, 0, 4, 6, 2]]
TOKENS = torch.tensor([caption + [0] * (9 - len(caption)) for caption in CAPTIONS])
LENGTHS = torch.tensor([len(caption) for caption in CAPTIONS])


def small_encoder(*, causal: bool = True) -> TextEncoder:
    """Far from where training starts, so that small errors show."""
    torch.manual_seed(0)
    config = TextEncoderConfig(
        hidden_size=24, num_layers=2, num_heads=3, causal=causal, max_tokens=9
    )
    encoder = TextEncoder(config, 12)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.4)
    return encoder


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_padded_batch_is_encoded_as_its_slow_twin_encodes_each_caption(causal, training):
    encoder = small_encoder(causal=causal).train(training)
    with torch.no_grad():
        vectors = encoder(TOKENS, LENGTHS)
    expected = torch.stack([encode_text(encoder, caption) for caption in CAPTIONS])
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-4)


def test_the_two_kinds_of_attention_differ():
    vectors = [small_encoder(causal=causal)(TOKENS, LENGTHS) for causal in (True, False)]
    assert not torch.allclose(*vectors, atol=1e-2)


def test_layers_start_apart_and_biases_at_zero():
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(hidden_size=64, num_layers=2), 50)
    first, second = (layer.linear1.weight for layer in encoder.transformer.layers)
    assert not torch.equal(first, second)
    biases = [p for name, p in encoder.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)
    assert first.std().item() == pytest.approx((2 * 64) ** -0.5, rel=0.05)
    residual = encoder.transformer.layers[0].linear2.weight.std().item()
    assert residual == pytest.approx(64**-0.5 / 2, rel=0.05)


def test_only_layer_norms_and_biases_are_exempt_from_decay():
    encoder = small_encoder()
    exempt = encoder.no_weight_decay()
    decayed = {name for name, _ in encoder.named_parameters()} - exempt
    assert all("norm" in name or name.endswith("bias") for name in exempt)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)


def test_a_caption_longer_than_the_encoder_is_refused():
    with pytest.raises(ConfigError, match=r"10 tokens.*built for 9"):
        small_encoder()(torch.ones(1, 10, dtype=torch.int64), torch.tensor([10]))


def test_all_problems_with_the_sizes_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"(?s)max_tokens 2.*not a multiple of 64.*dropout 1"):
        TextEncoderConfig(hidden_size=100, dropout=1.0, max_tokens=2)
