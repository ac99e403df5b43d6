import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from tests.oracles import contrastive as slow
from tests.tasks.small_tasks import build, scenes_batch, without_gradient
from tests.tasks.two_processes import check_gradients
from virtex.data.transforms import normalize
from virtex.errors import ConfigError
from virtex.models.k_hot import NO_TARGET
from virtex.models.text_encoder import TextEncoderConfig
from virtex.tasks.base import Batch
from virtex.tasks.contrastive import (
    CollateCaptions,
    Contrastive,
    ContrastiveConfig,
    sigmoid_loss,
    softmax_loss,
)

TEXT = TextEncoderConfig(hidden_size=16, num_layers=2, num_heads=2)
LOSSES = ["softmax", "sigmoid"]


def small_task(loss: str) -> Contrastive:
    """In training mode, but for BatchNorm, which would see other statistics in half a batch."""
    task = build(ContrastiveConfig(loss=loss, embedding_size=8, text=TEXT))
    with torch.no_grad():
        for name, parameter in task.named_parameters():
            if "bn" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.startswith("text_encoder"):
                parameter.normal_(std=0.3)
    task.backbone.eval()
    return task


def embeddings(task: Contrastive, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    images = task.embed_images(normalize(batch["image"]))
    return images, task.embed_texts(batch["tokens"], batch["lengths"])


def unit_rows(num_rows: int, *, seed: int) -> torch.Tensor:
    rows = torch.randn(num_rows, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows.double(), dim=1)


@pytest.mark.parametrize("num_pairs", [1, 2, 5])
def test_losses_are_those_of_their_pairwise_twins(num_pairs: int):
    images, texts = unit_rows(num_pairs, seed=1), unit_rows(num_pairs, seed=2)
    own = torch.arange(num_pairs)
    logits = 7 * images @ texts.T
    expected = slow.softmax_loss(images, texts, scale=7)
    assert softmax_loss(logits, logits.T, own).item() == pytest.approx(expected)
    expected = slow.sigmoid_loss(images, texts, scale=7, bias=-2)
    assert sigmoid_loss(logits - 2, own).item() == pytest.approx(expected)


def test_shares_of_a_batch_average_to_the_loss_of_the_whole():
    images, texts = unit_rows(6, seed=1), unit_rows(6, seed=2)
    logits = 7 * images @ texts.T
    own = torch.arange(6)
    shares = [
        softmax_loss(logits[rows], logits.T[rows], own[rows]) for rows in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(sum(shares) / 2, softmax_loss(logits, logits.T, own))
    shares = [sigmoid_loss(logits[rows], own[rows]) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(shares) / 2, sigmoid_loss(logits, own))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_a_batch_is_that_of_its_embeddings(loss: str):
    task = small_task(loss)
    batch = scenes_batch(task)
    output = task(batch)
    images, texts = (rows.detach() for rows in embeddings(task, batch))
    if loss == "softmax":
        expected = slow.softmax_loss(images, texts, scale=1 / 0.07)
    else:
        expected = slow.sigmoid_loss(images, texts, scale=10, bias=-10)
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)
    assert output.logs["contrastive"].item() == output.loss.item()
    temperature = {"softmax": 0.07, "sigmoid": 0.1}[loss]
    assert output.logs["temperature"].item() == pytest.approx(temperature)
    hits = [float((images[i] @ texts.T).argmax() == i) for i in range(4)]
    assert output.logs["retrieval_top1"].item() == sum(hits) / 4


def test_retrieval_is_right_where_each_image_is_nearest_to_its_own_caption():
    task = small_task("softmax")
    batch = scenes_batch(task)
    pairs = unit_rows(4, seed=3).float()
    task._project_images = lambda pooled: pairs
    task.embed_texts = lambda tokens, lengths: pairs
    assert task(batch).logs["retrieval_top1"] == 1
    task.embed_texts = lambda tokens, lengths: pairs.roll(1, dims=0)
    assert task(batch).logs["retrieval_top1"] == 0


def test_embeddings_have_unit_length_and_padding_does_not_change_them():
    task = small_task("softmax").eval()
    batch = scenes_batch(task)
    images, texts = embeddings(task, batch)
    assert images.shape == texts.shape == (4, 8)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))
    for row, length in enumerate(batch["lengths"].tolist()):
        alone = task.embed_texts(batch["tokens"][row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(alone[0], texts[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_stay_exact_under_autocast(loss: str):
    task = small_task(loss)
    batch = scenes_batch(task)
    with torch.autocast("cpu", torch.bfloat16):
        output = task(batch)
        images, texts = (rows.detach() for rows in embeddings(task, batch))
    assert output.loss.dtype == images.dtype == texts.dtype == torch.float32
    if loss == "softmax":
        expected = slow.softmax_loss(images, texts, scale=1 / 0.07)
    else:
        expected = slow.sigmoid_loss(images, texts, scale=10, bias=-10)
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_parameter_learns(loss: str):
    task = small_task(loss)
    task(scenes_batch(task)).loss.backward()
    assert without_gradient(task) == []


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_both_sides_of_every_pair(loss: str):
    task = small_task(loss)
    batch = scenes_batch(task)
    task(batch).loss.backward()
    gradients = {name: parameter.grad for name, parameter in task.named_parameters()}
    task.zero_grad()
    images, texts = embeddings(task, batch)
    logits = task.log_scale.exp() * images @ texts.T
    if loss == "softmax":
        likelihoods = (logits.log_softmax(0) + logits.log_softmax(1)).diagonal() / 2
    else:
        likelihoods = logsigmoid((2 * torch.eye(4) - 1) * (logits + task.bias)).sum(1)
    (-likelihoods.mean()).backward()
    check_gradients(
        gradients, {name: parameter.grad for name, parameter in task.named_parameters()}
    )


def test_the_temperature_of_a_softmax_stays_at_or_above_a_hundredth():
    for loss, expected in (("softmax", 100), ("sigmoid", 1000)):
        task = small_task(loss)
        with torch.no_grad():
            task.log_scale.fill_(math.log(1000))
        task.after_step(1, [])
        assert task.log_scale.exp().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_outside_the_backbone_only_matrices_are_decayed(loss: str):
    task = small_task(loss)
    expected = {
        name
        for name, parameter in task.named_parameters()
        if parameter.dim() < 2 and not name.startswith("backbone.")
    }
    assert task.no_weight_decay() == expected
    assert ("bias" in expected) == (loss == "sigmoid")


def test_captions_are_cut_to_what_the_text_encoder_takes():
    text = TextEncoderConfig(hidden_size=16, num_layers=1, num_heads=2, max_tokens=5)
    task = build(ContrastiveConfig(text=text))
    batch = scenes_batch(task)
    assert batch["tokens"].shape[1] == 5
    assert (batch["tokens"].gather(1, batch["lengths"][:, None] - 1) == 2).all()


def test_captions_are_padded_to_a_multiple_of_8_tokens_or_to_the_most():
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    for num_tokens, padded in ((3, 8), (8, 8), (9, 10)):
        batch = CollateCaptions(10)([{"image": image, "tokens": torch.ones(num_tokens).long()}])
        assert batch["tokens"].tolist() == [[1] * num_tokens + [0] * (padded - num_tokens)]
        assert batch["lengths"].tolist() == [num_tokens]


def test_options_that_cannot_work_are_refused_together():
    with pytest.raises(ConfigError, match=r"(?s)embedding_size 0.*'hinge'"):
        ContrastiveConfig(loss="hinge", embedding_size=0)


def test_the_token_loss_is_added_to_the_contrast():
    task = build(
        ContrastiveConfig(embedding_size=8, text=TEXT, token_weight=2.0, token_idf=True)
    ).eval()
    plain = build(ContrastiveConfig(embedding_size=8, text=TEXT)).eval()
    plain.load_state_dict(task.state_dict(), strict=False)
    batch = scenes_batch(task)
    task.prepare_step([batch], seed=0)
    output = task(batch)
    targets, weights = batch["token_targets"], task.token_loss.frequencies.weights()
    log_probs = task.token_loss.output(task.backbone.pooled(normalize(batch["image"]))).log_softmax(
        1
    )
    expected = [
        -sum(weights[c] * row[c] for c in classes) / sum(weights[c] for c in classes)
        for row, classes in zip(
            log_probs,
            [[c for c in line.tolist() if c != NO_TARGET] for line in targets],
            strict=True,
        )
    ]
    of_tokens = sum(expected) / len(expected)
    torch.testing.assert_close(output.logs["tokens"], of_tokens.detach())
    torch.testing.assert_close(output.loss, plain(batch).loss + 2 * of_tokens)


def test_frequencies_of_tokens_without_their_loss_are_an_error():
    with pytest.raises(ConfigError, match="token_idf needs a token_weight"):
        ContrastiveConfig(token_idf=True)
