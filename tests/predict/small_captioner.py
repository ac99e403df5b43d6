"""An untrained captioner that the tests of this folder share."""

import torch

from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Task, TaskData
from virtex.tasks.captioning import CaptioningConfig

SLIM = BackboneConfig(name="resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})
IMAGE = ImageConfig(size=48)
TASK = CaptioningConfig(head=HeadConfig(hidden_size=64, max_tokens=12))
TEXTS = ["a red ball on the table", "two dogs", "the dogs left a ball on the red table"]


def small_task(tokenizer: Tokenizer) -> Task:
    """Its captions differ from image to image."""
    torch.manual_seed(0)
    task = TASK.build(Backbone(SLIM), TaskData(IMAGE, tokenizer))
    head = task.captioner.head
    with torch.no_grad():
        head.embedding.words.weight.normal_(std=0.3)
        head.embedding.positions.weight.normal_()
        head.visual_projection.weight.normal_()
        for name, parameter in head.decoders.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
        head.output_bias[2] = 6.0  # the end token: captions differ in length
    return task.eval()
