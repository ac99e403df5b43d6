"""A pretraining run of seconds: a few drawn scenes, a network of a few channels."""

from pathlib import Path

from virtex.pretrain import PretrainConfig, parse_pretrain

OPTIONS = """
data: {num_images: 24, num_val_images: 8, image_size: 64}
tokenizer: {vocab_size: 250}
image: {size: 64}
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
task: {name: bicaptioning, head: {hidden_size: 64}}
optim: {optimizer: adamw, lr: 0.003, backbone_lr: 0.003, lookahead_steps: 2}
run: {batch_size: 8, num_steps: 6, checkpoint_every: 2, validate_every: 3, log_every: 1,
  keep_checkpoints: 0, tensorboard: false, precision: fp32}
loader: {num_workers: 0}
num_samples: 2
"""


def small_config(out: Path, *arguments: str) -> PretrainConfig:
    """The options above, with others from the command line over them."""
    return parse_pretrain(["--config", OPTIONS, "--out", str(out), *arguments])
