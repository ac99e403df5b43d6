"""Pretraining end to end on a few drawn scenes."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import virtex
from tests.small_run import OPTIONS, small_config
from virtex import config
from virtex.data.tokenizer import train_tokenizer
from virtex.engine import checkpoint
from virtex.engine.optim import warmup_steps
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.backbone import Backbone
from virtex.pretrain import parse_pretrain, pretrain
from virtex.report.report import write_report
from virtex.tasks.base import TaskData
from virtex.zoo.init import open_init


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(small_config(out)).reason == "finished"
    return out


def records(run: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def final_state(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / "step_00000006.pt")["task"]


@pytest.mark.parametrize("recipe", config.recipe_paths("pretrain"), ids=lambda path: path.stem)
def test_every_recipe_builds_its_task(recipe: Path, tmp_path: Path) -> None:
    flags = ["--config", recipe.stem, "--out", str(tmp_path), "--data.root", "x"]
    if recipe.stem.startswith("adapt_"):  # whose network and classes the user names
        flags += ["--early_stopping.data.root", "x", "--backbone.name", "resnet18"]
    options = parse_pretrain(flags)
    tokenizer = train_tokenizer(["a dog on the grass", "two cats"], vocab_size=24)
    data = TaskData(options.image, tokenizer, ("dog", "cat"), 10)
    reads_numbers = recipe.stem == "prefix_lm"  # when it looks how its ViT attends
    with torch.device("cpu" if reads_numbers else "meta"):  # which computes and draws no numbers
        task = options.task.build(Backbone(options.backbone), data)
    assert task.no_weight_decay() <= {name for name, _ in task.named_parameters()}


def test_the_base_recipe_is_the_paper_s(tmp_path: Path) -> None:
    options = parse_pretrain(["--config", "base", "--out", str(tmp_path), "--data.root", "x"])
    optim, run = options.optim, options.run
    assert (optim.backbone_lr, optim.lr, optim.momentum, optim.weight_decay) == (
        0.2,
        1e-3,
        0.9,
        1e-4,
    )
    assert (optim.lookahead_steps, optim.lookahead_alpha, optim.max_grad_norm) == (5, 0.5, 10)
    assert (run.batch_size, run.num_steps, warmup_steps(optim, run.num_steps)) == (
        256,
        500_000,
        10_000,
    )
    assert (options.tokenizer.vocab_size, options.image.size) == (10_000, 224)


def test_a_run_folder_holds_what_the_docs_say(run: Path) -> None:
    names = {"config.yaml", "tokenizer.model", "log.jsonl", "samples.json", "weights.safetensors"}
    assert names <= {path.name for path in run.iterdir()}
    assert [path.stem for path in sorted((run / "checkpoints").iterdir())] == [
        "step_00000002", "step_00000004", "step_00000006",
    ]  # fmt: skip
    samples = json.loads((run / "samples.json").read_text())
    assert samples["step"] == 6
    assert len(samples["samples"]) == 2
    assert all((run / sample["image"]).is_file() for sample in samples["samples"])
    assert len(records(run, "val/loss")) == 2


def test_the_loss_falls_on_scenes(tmp_path: Path) -> None:
    pretrain(small_config(tmp_path / "run", "--run.num_steps", "40"))
    losses = records(tmp_path / "run", "train/loss")
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("last", [2, 4])
def test_a_run_cut_after_a_checkpoint_ends_with_the_same_bits(
    run: Path, tmp_path: Path, last: int
) -> None:
    cut = tmp_path / "run"
    shutil.copytree(run, cut)
    for path in (cut / "checkpoints").iterdir():
        if int(path.stem.removeprefix("step_")) > last:
            path.unlink()
    pretrain(small_config(cut))
    assert records(cut, "train/loss") == records(run, "train/loss")
    whole, resumed = final_state(run), final_state(cut)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_workers_change_nothing(run: Path, tmp_path: Path) -> None:
    pretrain(small_config(tmp_path / "run", "--loader.num_workers", "2"))
    whole, other = final_state(run), final_state(tmp_path / "run")
    assert all(torch.equal(whole[name], other[name]) for name in whole)


def test_resuming_with_other_options_is_refused_and_names_them(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.003, now 0\.1"):
        pretrain(small_config(run, "--optim.lr", "0.1"))


def test_resuming_with_another_task_names_it_alone(run: Path) -> None:
    with pytest.raises(ConfigError) as error:
        pretrain(small_config(run, "--task", "token_classification"))
    assert "task.name was 'bicaptioning'" in str(error.value)
    assert "hidden_size" not in str(error.value)


def test_synchronized_statistics_which_undo_the_shuffle_are_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "out", "--task", "moco", "--run.sync_batch_norm", "true")
    with pytest.raises(ConfigError, match=r"run\.sync_batch_norm .* Leave it out"):
        pretrain(config)
    assert not config.out.exists()


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_config_file_that_is_cut_off_is_refused_with_the_remedy(copy: Path, part: float) -> None:
    path = copy / "config.yaml"
    text = path.read_text()
    path.write_text(text[: int(part * len(text))])
    with pytest.raises(CheckpointError, match=r"Remove .*config\.yaml: the options are then"):
        parse_pretrain(["--out", str(copy)])


def test_without_a_config_file_the_options_are_those_of_the_checkpoint(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (copy / "config.yaml").read_text()
    (copy / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.003, now 0\.1"):
        pretrain(small_config(copy, "--optim.lr", "0.1"))
    assert "config.yaml is missing" in caplog.text
    same = ["--out", str(copy), "--data.num_images", "24"]
    assert pretrain(parse_pretrain(same)).reason == "finished"
    assert (copy / "config.yaml").read_text().replace(str(copy), "") == before.replace(
        next(line for line in before.splitlines() if line.startswith("out: "))[5:], ""
    )


@pytest.mark.parametrize("damage", ["", "cut", "one letter", None])
def test_a_damaged_vocabulary_is_taken_from_the_weights_file_or_refused(
    copy: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = copy / "tokenizer.model"
    content = path.read_bytes()
    path.unlink()
    damaged = {"": b"", "cut": content[:100], "one letter": content.replace(b"ed", b"er", 1)}
    if damage is not None:
        path.write_bytes(damaged[damage])
    assert pretrain(parse_pretrain(["--out", str(copy)])).reason == "finished"
    assert "taking the vocabulary of" in caplog.text
    assert path.read_bytes() == content
    (copy / "weights.safetensors").unlink()
    if damage is not None:
        path.write_bytes(damaged[damage])
    else:
        path.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model.*put a copy"):
        pretrain(parse_pretrain(["--out", str(copy)]))


def test_config_and_vocabulary_are_on_disk_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, synced = tmp_path / "run", set[str]()
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def stop(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr("virtex.pretrain.fit", stop)
    with pytest.raises(ZeroDivisionError):
        pretrain(config := small_config(out))
    assert synced >= {"config.yaml", "tokenizer.model", "run"}
    assert parse_pretrain(["--out", str(out)]).optim == config.optim  # begins again by them
    (out / "weights.safetensors").touch()  # of a run whose checkpoints were removed
    with pytest.raises(ConfigError, match="holds no run to resume"):
        parse_pretrain(["--out", str(out)])


def test_an_unknown_task_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean moco"):
        small_config(tmp_path / "run", "--task", "mocco")


def test_a_run_needs_no_options_to_be_resumed(run: Path) -> None:
    assert parse_pretrain(["--out", str(run)]) == small_config(run)


def test_a_run_starts_from_the_backbone_of_another(run: Path, tmp_path: Path) -> None:
    still = ["--optim.lr", "0", "--optim.backbone_lr", "0", "--task", "token_classification"]
    pretrain(small_config(tmp_path / "run", "--init", str(run), *still))
    before, after = (
        dict(virtex.load_backbone(r).named_parameters()) for r in (run, tmp_path / "run")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "backbone",
    [
        "{name: vit_tiny_patch16_224, options: {depth: 1, embed_dim: 24, num_heads: 2}}",
        "{name: convnext_atto, options: {depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}}",
        "{name: resnet50, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}",
    ],
)
def test_other_backbones_train_and_load(backbone: str, tmp_path: Path) -> None:
    options = f"backbone: {backbone}\n"
    result = pretrain(small_config(tmp_path / "run", "--config", options, "--run.num_steps", "2"))
    assert result.step == 2
    loaded = virtex.load_backbone(tmp_path / "run")
    assert loaded(torch.zeros(1, 3, 64, 64)).shape[1] == loaded.num_channels


def test_a_frozen_backbone_stays_as_it_started(run: Path, tmp_path: Path) -> None:
    frozen = ["--init", str(run), "--backbone.frozen", "true", "--run.num_steps", "2"]
    pretrain(small_config(tmp_path / "run", *frozen))
    before, after = (
        virtex.load_backbone(folder).state_dict() for folder in (run, tmp_path / "run")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_that_do_not_fit_the_backbone_are_refused(run: Path, tmp_path: Path) -> None:
    wider = '{"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]}'
    with pytest.raises(CheckpointError, match="was requested"):
        pretrain(small_config(tmp_path / "run", "--init", str(run), "--backbone.options", wider))


def test_forward_captioning_trains_one_direction(tmp_path: Path) -> None:
    pretrain(small_config(tmp_path / "run", "--task.bidirectional", "false"))
    assert records(tmp_path / "run", "train/captioning_forward")
    assert not records(tmp_path / "run", "train/captioning_backward")


def test_the_weights_file_alone_captions_and_gives_the_backbone(run: Path, tmp_path: Path) -> None:
    weights = shutil.copy(run / "weights.safetensors", tmp_path)
    assert open_init(Path(weights)).step == 6
    predictor = virtex.load_captioner(weights)
    [caption] = predictor.caption(next((run / "samples").iterdir()))
    assert caption.log_likelihood < 0
    grid = virtex.load_backbone(weights)(torch.zeros(1, 3, 64, 64))
    assert grid.shape == (1, 16, 2, 2)


def test_early_stopping_keeps_the_best_checkpoint_s_weights(tmp_path: Path) -> None:
    out = tmp_path / "run"
    protocol = ["--early_stopping.protocol", "voc07", "--early_stopping.image_size", "64"]
    data = {"source": "scenes", "num_images": 90, "num_val_images": 60, "image_size": 64}
    data_flags = [text for name, value in data.items()
                  for text in (f"--early_stopping.data.{name}", str(value))]  # fmt: skip
    options = small_config(out, *protocol, "--early_stopping.leave_out_rare", "true", *data_flags)
    pretrain(options)
    scores = {}
    for path in (out / "results").glob("*.json"):
        result = json.loads(path.read_text())
        scores[result["initialisation"]["step"]] = result["numbers"]["mAP"]
    assert set(scores) == {2, 4, 6}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert open_init(out / "weights.safetensors").step == best


def folder_of_photos(root: Path, *, num_good: int, num_bad: int) -> Path:
    root.mkdir()
    for number in range(num_good + num_bad):
        path = root / f"{number:03d}.jpg"
        Image.new("RGB", (80, 64), (number, 100, 200)).save(path)
        path.with_suffix(".txt").write_text(f"a photo of color number {number} at noon\n")
        if number >= num_good:
            path.write_bytes(path.read_bytes()[:200])
    return root


def photo_flags(root: Path) -> list[str]:
    values = {"source": "folder", "root": root, "num_images": 8000, "num_val_images": 1000}
    flags = [text for name, value in values.items() for text in (f"--data.{name}", str(value))]
    return [*flags, "--data.image_size", "96", "--tokenizer.vocab_size", "40"]


def test_a_corrupt_image_is_named_and_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder_of_photos(tmp_path / "photos", num_good=20, num_bad=1)
    result = pretrain(small_config(tmp_path / "run", *photo_flags(root)))
    assert result.reason == "finished"
    assert "020.jpg" in caplog.text


def test_too_many_corrupt_images_stop_the_run(tmp_path: Path) -> None:
    root = folder_of_photos(tmp_path / "photos", num_good=10, num_bad=10)
    limit = ["--loader.bad_image_limit", "0"]
    with pytest.raises(DataError, match="bad_image_limit"):
        pretrain(small_config(tmp_path / "run", *photo_flags(root), *limit))


def command(tmp_path: Path, *arguments: str) -> list[str]:
    (tmp_path / "small.yaml").write_text(OPTIONS)
    return ["-m", "virtex.cli", "pretrain", "--config", str(tmp_path / "small.yaml"), *arguments]


def test_sigterm_to_the_whole_group_writes_a_checkpoint_and_exits_143(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--out", str(out), "--run.num_steps", "100000", "--loader.num_workers", "1"]
    flags += ["--run.checkpoint_every", "0", "--run.validate_every", "0"]
    process = subprocess.Popen(
        [sys.executable, *command(tmp_path, *flags)], start_new_session=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / "log.jsonl").exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors.decode()
    [saved] = (out / "checkpoints").glob("step_*.pt")
    assert checkpoint.load(saved)["step"] > 0


def test_one_process_trains_in_a_folder_while_others_read_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = small_config(out, "--run.num_steps", "20", "--loader.num_workers", "1")
    trainer = multiprocessing.get_context("fork").Process(target=pretrain, args=(options,))
    trainer.start()
    assert trainer.pid is not None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (out / "samples.json").exists():
        time.sleep(0.005)
    os.kill(trainer.pid, signal.SIGSTOP)
    rarely = ["--run.checkpoint_every", "0", "--run.validate_every", "0"]
    again = parse_pretrain(["--out", str(out), *rarely])
    message = f"{out} is in use by process {trainer.pid} on {os.uname().nodename}"
    try:
        with pytest.raises(ConfigError, match=message):
            pretrain(again)
        assert write_report([out], tmp_path).exists()
        assert virtex.load_captioner(out).caption(next((out / "samples").iterdir()))
    finally:
        trainer.kill()
        trainer.join()
    assert trainer.exitcode == -signal.SIGKILL
    assert pretrain(again).step == 20
    assert len(records(out, "train/loss")) == 20


def test_a_folder_in_timm_s_layout_is_the_same_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_config(tmp_path / "run", "--init", "local-dir:models/mine")
    assert config.init == f"local-dir:{tmp_path / 'models' / 'mine'}"


def test_a_start_that_failed_does_not_constrain_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="warmup_steps"):
        pretrain(small_config(out, "--optim.warmup_steps", "100"))
    assert pretrain(small_config(out, "--run.num_steps", "2")).step == 2


def test_a_mistyped_run_folder_does_not_start_a_new_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        parse_pretrain(["--out", str(tmp_path / "typo")])
