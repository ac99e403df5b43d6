"""Runs that start from released files: from backbone and head, or from the whole training."""

import json
from pathlib import Path

import pytest
import torch

from tests.oracles.released_training import ReleasedTrainer
from tests.oracles.textual_head import PaddedCaptioner
from tests.small_run import small_config
from tests.tasks.test_trajectory import VOCABULARY, captioned, captioning
from virtex.data.transforms import normalize
from virtex.engine import checkpoint
from virtex.engine.loop import FitResult
from virtex.errors import CheckpointError, ConfigError
from virtex.pretrain import parse_pretrain, pretrain
from virtex.zoo.released import to_released

STILL = ["--optim.lr=0", "--optim.backbone_lr=0", "--optim.weight_decay=0", "--run.num_steps=1"]
NUM_STEPS = 9
AS_RELEASED = [
    "--optim.optimizer=sgd", "--optim.lr=0.001", "--optim.backbone_lr=0.2", "--optim.original=true",
    "--optim.warmup_steps=2", "--optim.lookahead_steps=5", f"--run.num_steps={NUM_STEPS}",
    "--task.head.dropout=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint of the released code after five steps, with its vocabulary beside."""
    model = PaddedCaptioner(captioning().captioner)
    training = ReleasedTrainer(model, num_steps=NUM_STEPS, warmup=2)
    examples = [captioned(step) for step in range(5)]
    training.train([(normalize(images), *rest) for images, *rest in examples])
    folder = tmp_path_factory.mktemp("released")
    (folder / "vocabulary.model").write_bytes(VOCABULARY.model_bytes)
    return training.save(folder / "checkpoint_5.pth")


def run(out: Path, init: Path | str, *options: str, vocabulary: bool = True) -> FitResult:
    path = Path(init).parent / "vocabulary.model"
    named = [f"--tokenizer.tokenizer_path={path}"] if vocabulary else []
    flags = [f"--init={init}", *named, "--num_samples=0", "--task.head.hidden_size=64", *options]
    return pretrain(small_config(out, *flags))


def stored(out: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoint.load(out / "checkpoints" / f"step_{step:08d}.pt")["task"]


def test_a_released_files_textual_head_and_backbone_initialize_a_run(
    released: Path, tmp_path: Path
) -> None:
    run(tmp_path, released, *STILL, "--init_parts=task")
    found, expected = to_released(stored(tmp_path, 1)), torch.load(released)["model"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        is_learned = not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(found[name], value) is is_learned, name
    with pytest.raises(CheckpointError, match=r"a run of this package. Resume it by"):
        run(tmp_path / "other", tmp_path, "--init_parts=training", vocabulary=False)


def test_a_released_training_goes_on_and_is_resumed(
    released: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    moved = tmp_path / "moved.pth"
    moved.write_bytes(released.read_bytes())
    (tmp_path / "vocabulary.model").write_bytes(VOCABULARY.model_bytes)
    out = tmp_path / "run"
    assert run(out, moved, *AS_RELEASED, "--init_parts=training").step == NUM_STEPS
    assert "goes on after step 5" in caplog.text
    expected = torch.load(released)["model"]
    found = to_released(stored(out, 5))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [6, 7, 8, 9]
    last = stored(out, NUM_STEPS)
    moved.unlink()  # which a resumed run does not need
    for step in (6, 8, 9):
        (out / "checkpoints" / f"step_{step:08d}.pt").unlink()
    assert pretrain(parse_pretrain(["--out", str(out)])).step == NUM_STEPS
    again = stored(out, NUM_STEPS)
    assert all(torch.equal(again[name], value) for name, value in last.items())


def test_what_has_not_the_parts_is_refused_with_what_to_give(
    released: Path, tmp_path: Path
) -> None:
    for parts in ("task", "training"):
        with pytest.raises(ConfigError, match=r"needs the vocabulary .*tokenizer_path"):
            run(tmp_path, released, f"--init_parts={parts}", vocabulary=False)
    with pytest.raises(ConfigError, match=r"a released training, and random is none"):
        run(tmp_path, "random", "--init_parts=training", vocabulary=False)
    frozen = ["--backbone.frozen=true", "--optim.unfreeze_at=1"]
    with pytest.raises(ConfigError, match=r"optim.unfreeze_at changes what is trained"):
        run(tmp_path, released, "--init_parts=training", *frozen)
    with pytest.raises(CheckpointError, match=r"unexpected: backward_.*Set backbone, task"):
        run(tmp_path, released, "--init_parts=task", "--task.bidirectional=false")
    backbone = {name: v for name, v in torch.load(released)["model"].items() if "cnn" in name}
    path = tmp_path / "backbone.pth"
    torch.save(backbone, path)
    (tmp_path / "vocabulary.model").write_bytes(VOCABULARY.model_bytes)
    with pytest.raises(CheckpointError, match=r"holds a backbone alone, not a whole task"):
        run(tmp_path / "run", path, "--init_parts=task")
    assert not (tmp_path / "run" / "checkpoints").exists()
