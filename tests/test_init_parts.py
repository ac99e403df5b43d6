"""What a run gets from INIT: the backbone alone, or the whole task with its vocabulary."""

from pathlib import Path

import pytest
import torch

from tests.small_run import small_config
from tests.task_options import task_flags
from virtex.engine import checkpoint
from virtex.errors import CheckpointError, ConfigError
from virtex.pretrain import pretrain
from virtex.zoo.init import open_init

STILL = ["--optim.lr=0", "--optim.backbone_lr=0", "--optim.weight_decay=0", "--run.num_steps=1"]
OTHER_DATA = ["--data.num_images=16", "--tokenizer.vocab_size=200", "--run.seed=5"]


def run(out: Path, task: str, *options: str) -> Path:
    pretrain(small_config(out, *task_flags(task), "--num_samples=0", *options))
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("first") / "run", "clip", "--optim.ema_decay=0.5")


@pytest.mark.parametrize("parts", ["backbone", "task"])
def test_both_towers_start_from_a_run_if_the_whole_task_should(
    first: Path, tmp_path: Path, parts: str
) -> None:
    options = [*STILL, *OTHER_DATA, f"--init={first}", f"--init_parts={parts}"]
    if parts == "backbone":  # a text encoder of its own, here of equal size
        options.append(f"--tokenizer.tokenizer_path={first / 'tokenizer.model'}")
    out = run(tmp_path / "run", "clip", *options)
    found = checkpoint.load(out / "checkpoints" / "step_00000001.pt")
    kept = open_init(first)
    for name, value in found["task"].items():
        is_learned = not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        if is_learned and (parts == "task" or name.startswith("backbone.")):
            assert torch.equal(value, kept.state[name]), name
    name = "text_encoder.words.weight"
    assert torch.equal(found["task"][name], kept.state[name]) is (parts == "task")
    tokenizers = [(folder / "tokenizer.model").read_bytes() for folder in (first, out)]
    assert tokenizers[0] == tokenizers[1]


def test_the_averaged_weights_of_a_run_initialize_a_task(first: Path, tmp_path: Path) -> None:
    init = first / "weights_ema.safetensors"
    out = run(tmp_path / "run", "clip", *STILL, f"--init={init}", "--init_parts=task")
    name = "text_encoder.words.weight"
    assert torch.equal(open_init(out).state[name], open_init(init).state[name])
    assert not torch.equal(open_init(out).state[name], open_init(first).state[name])


@pytest.mark.parametrize(
    ("option", "message"),
    [("text.num_heads=4", "text.num_heads is 4, and"), ("text.causal=false", "causal is False")],
)
def test_options_that_make_another_function_of_the_same_weights_are_refused(
    option: str, message: str, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"a run of the same task.*\n- task.*{message}"):
        run(tmp_path / "run", "clip", f"--task.{option}", f"--init={first}", "--init_parts=task")


def test_a_run_of_another_task_and_what_is_no_run_are_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit .*needs a run of the same task"):
        run(tmp_path / "a", "moco", f"--init={first}", "--init_parts=task")
    with pytest.raises(ConfigError, match=r"needs a captioner, and .* writes no captions"):
        run(tmp_path / "a", "bicaptioning", f"--init={first}", "--init_parts=task")
    with pytest.raises(ConfigError, match=r"random is none: name one by --init"):
        run(tmp_path / "b", "clip", "--init_parts=task")
    vocabulary = f"--tokenizer.tokenizer_path={first / 'tokenizer.model'}"
    with pytest.raises(ConfigError, match=r"leave one of them out"):
        run(tmp_path / "c", "clip", f"--init={first}", "--init_parts=task", vocabulary)
