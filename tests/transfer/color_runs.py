"""Runs that learned to name colors, and the captioned folders they learned from."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from tests.transfer.conftest import COLORS, write_colors
from virtex.pretrain import parse_pretrain, pretrain

OPTIONS = """
data: {source: folder}
tokenizer: {vocab_size: 40}
image: {size: 32, jitter_prob: 0.0}
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 32]}}
run: {batch_size: 12, num_steps: 60, checkpoint_every: 0, validate_every: 0, device: cpu,
  tensorboard: false, precision: fp32}
loader: {num_workers: 0}
num_samples: 0
"""
TASKS = {
    "bicaptioning": """
task: {name: bicaptioning, head: {hidden_size: 64, max_tokens: 16}}
optim: {optimizer: adamw, lr: 0.005, backbone_lr: 0.005, warmup_steps: 2, lookahead_steps: 0}
""",
    "contrastive": """
task:
  name: clip
  embedding_size: 16
  text: {hidden_size: 64, num_layers: 1, max_tokens: 16}
optim: {optimizer: adamw, lr: 0.002, backbone_lr: 0.002, warmup_steps: 2, lookahead_steps: 0}
""",
}


def write_captioned_colors(root: Path) -> None:
    """`write_colors` with a caption beside each image; `single` has one image of each colour."""
    write_colors(root)
    for image in sorted(root.glob("*/*/*.png")):
        image.with_suffix(".txt").write_text(f"a photo of a {image.parent.name} wall\n")
    for color in COLORS:
        folder = root / "single" / color
        folder.mkdir(parents=True)
        for suffix in (".png", ".txt"):
            found = (root / "val" / color / "0").with_suffix(suffix)
            (folder / found.name).write_bytes(found.read_bytes())


def train_on_colors(root: Path, out: Path, task: str) -> Path:
    """The folder of a run that learned from `train`."""
    places = ["--data.root", str(root / "train"), "--out", str(out)]
    pretrain(parse_pretrain(["--config", OPTIONS, "--config", TASKS[task], *places]))
    return out


def diverged(run: Path, folder: Path) -> Path:
    """The folder of a run whose weights of one convolution are NaN."""
    folder.mkdir()
    with safe_open(run / "weights.safetensors", "pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if "checksum" not in key}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if name.endswith("layer4.0.conv2.weight"):
            tensor.fill_(float("nan"))
    save_file(tensors, folder / "weights.safetensors", metadata=metadata)
    return folder
