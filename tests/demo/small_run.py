"""A run folder with an untrained captioner that reads both ways and likes to talk."""

from pathlib import Path

import torch

from virtex.config import to_dict
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.tokens import EOS_ID
from virtex.zoo.weights_file import save_weights

BACKBONE = BackboneConfig(
    name="resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
)
IMAGE = ImageConfig(size=64)
TEXTS = ["a red ball on the table", "two dogs", "the dogs left a ball on the red table"]


def write_run(folder: Path, *, max_tokens: int = 100, tokenizer: Tokenizer | None = None) -> Path:
    torch.manual_seed(0)
    config = CaptioningConfig(head=HeadConfig(hidden_size=64, max_tokens=max_tokens))
    tokenizer = tokenizer or train_tokenizer(TEXTS, vocab_size=60)
    task = config.build(Backbone(BACKBONE), TaskData(IMAGE, tokenizer))
    head = task.captioner.head
    with torch.no_grad():
        head.embedding.words.weight.normal_(std=0.3)
        head.embedding.positions.weight.normal_()
        head.visual_projection.weight.normal_()
        head.output_bias[EOS_ID] = 2.0  # some captions end, some are cut where tokens are few
    stored = {"backbone": to_dict(BACKBONE), "image": to_dict(IMAGE)}
    stored["task"] = {"class_path": type(config).__name__, "init_args": to_dict(config)}
    folder.mkdir(parents=True)
    save_weights(
        folder / "weights.safetensors",
        task.state_dict(),
        config=stored,
        tokenizer=tokenizer,
        step=1,
    )
    return folder
