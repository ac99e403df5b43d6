import pytest
import torch
from torch import Tensor

from virtex.models import text_tree
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.packing import DIRECTIONS
from virtex.models.text_tree import TextTree, log_likelihoods
from virtex.models.textual_head import HeadConfig
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID

SLIM = BackboneConfig(name="resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})
VOCAB_SIZE = 20
TEXTS = [
    [SOS_ID, 5, 6, 7, EOS_ID],
    [SOS_ID, 5, 6, 8, 9, 10, EOS_ID],
    [SOS_ID, EOS_ID],
    [SOS_ID, 5, 6, EOS_ID],
    [SOS_ID, 11, PAD_ID, 9, EOS_ID],  # an unknown word
    [SOS_ID, 5, 6, 7, EOS_ID],  # the first once more
]


@pytest.fixture(scope="module", params=["post", "pre"])
def captioner(request):
    torch.manual_seed(0)
    config = HeadConfig(hidden_size=64, num_layers=2, max_tokens=8, norm=request.param)
    captioner = Captioner(Backbone(SLIM), config, VOCAB_SIZE, bidirectional=True).eval()
    for parameter in captioner.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return captioner


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def one_by_one(captioner: Captioner, images: Tensor, direction: str) -> Tensor:
    """Score each text for each image separately."""
    columns = [
        captioner.score(
            images,
            torch.tensor([text]).expand(len(images), -1),
            torch.tensor([len(text)]).expand(len(images)),
            direction=direction,
        )
        for text in TEXTS
    ]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_tree_scores_texts_as_one_by_one(captioner, images, direction):
    tree = TextTree.of(TEXTS, direction=direction)
    with torch.no_grad():
        scores = log_likelihoods(captioner.head, captioner.backbone(images), tree)
    torch.testing.assert_close(scores, one_by_one(captioner, images, direction), atol=1e-4, rtol=0)


def test_few_images_at_once_score_as_all(captioner, images, monkeypatch):
    tree = TextTree.of(TEXTS)
    grid = captioner.backbone(images).detach()
    together = log_likelihoods(captioner.head, grid, tree)
    monkeypatch.setattr(text_tree, "MAX_ELEMENTS", 1)
    torch.testing.assert_close(log_likelihoods(captioner.head, grid, tree), together)


def test_a_shared_beginning_is_read_once():
    template = [SOS_ID, 5, 6, 7]
    tree = TextTree.of([[*template, word, EOS_ID] for word in range(8, 18)])
    assert tree.num_prefixes == len(template) + 10


def test_no_texts_have_no_scores(captioner, images):
    tree = TextTree.of([])
    assert log_likelihoods(captioner.head, captioner.backbone(images), tree).shape == (3, 0)


def test_no_images_have_no_scores(captioner):
    grid = torch.zeros(0, captioner.backbone.num_channels, 2, 2)
    assert log_likelihoods(captioner.head, grid, TextTree.of(TEXTS)).shape == (0, len(TEXTS))
