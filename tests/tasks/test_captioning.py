import pytest
import torch

from tests.models.small import SLIM
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig

VOCABULARY = train_tokenizer(["a red ball on a table", "two dogs run"], vocab_size=40)


@pytest.mark.parametrize("original", [True, False])
def test_the_backward_transformer_starts_as_the_forward_one_in_the_original_alone(
    original: bool,
) -> None:
    torch.manual_seed(0)
    config = CaptioningConfig(head=HeadConfig(hidden_size=64), original=original)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    task = config.build(backbone, TaskData(ImageConfig(size=64), VOCABULARY))
    forward, backward = task.captioner.head.decoders
    pairs = list(zip(forward.parameters(), backward.parameters(), strict=True))
    assert all(mine is not theirs for mine, theirs in pairs)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs) == original
