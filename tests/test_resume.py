"""What may change when a run is resumed: paths and device, never the data."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from tests.small_run import OPTIONS
from virtex.engine import checkpoint, precision
from virtex.errors import ConfigError, DataError
from virtex.pretrain import PretrainConfig, check, parse_pretrain, pretrain
from virtex.zoo.init import open_init

DATA = (
    "data: {num_images: 8000, num_val_images: 1000, image_size: 96}\ntokenizer: {vocab_size: 40}\n"
)
SHORT = "run: {batch_size: 4, num_steps: 3, checkpoint_every: 1, validate_every: 0}\n"


def photos(root: Path, *, number: int = 16) -> Path:
    """Images with a caption each, in train and val."""
    for split, count in (("train", number), ("val", 4)):
        (root / split).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 255, (64, 80, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / f"{index:02d}.png")
            text = f"a photo of number {index} at noon\n"
            (root / split / f"{index:02d}.txt").write_text(text)
    return root


def options(root: Path, out: Path, *arguments: str) -> PretrainConfig:
    flags = ["--data.source", "folder", "--data.root", str(root), "--num_samples", "0"]
    files = ["--config", OPTIONS, "--config", DATA, "--config", SHORT]
    return parse_pretrain([*files, *flags, "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a finished run on them."""
    folder = tmp_path_factory.mktemp("whole")
    pretrain(options(photos(folder / "data"), folder / "run"))
    return folder


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """A copy of data and run, the run cut after step 1."""
    shutil.copytree(whole, tmp_path / "copy")
    for step in (2, 3):
        (tmp_path / "copy" / "run" / "checkpoints" / f"step_{step:08d}.pt").unlink()
    return tmp_path / "copy"


def assert_same_end(whole: Path, cut: Path) -> None:
    states = (
        checkpoint.load(folder / "run" / "checkpoints" / "step_00000003.pt")["task"]
        for folder in (whole, cut)
    )
    before, now = states
    assert all(torch.equal(before[name], now[name]) for name in before)


def test_the_same_data_elsewhere_give_the_same_end(whole: Path, cut: Path) -> None:
    pretrain(options(cut / "data", cut / "run"))
    assert_same_end(whole, cut)
    stored = yaml.safe_load((cut / "run" / "config.yaml").read_text())
    assert stored["data"]["root"] == str(cut / "data")


def test_a_run_is_resumed_from_any_working_directory(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    pretrain(options(Path("data"), Path("run")))
    for step in (2, 3):
        (tmp_path / "run" / "checkpoints" / f"step_{step:08d}.pt").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pretrain(parse_pretrain(["--out", "../run"]))
    assert_same_end(whole, tmp_path)


def test_another_device_is_no_other_run(cut: Path) -> None:
    config = cut / "run" / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cuda:1"))
    assert pretrain(options(cut / "data", cut / "run", "--run.device", "cpu")).step == 3


def test_a_run_may_hold_options_of_another_optimizer(
    whole: Path, cut: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier versions took them; a new run is refused."""
    path = cut / "run" / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    stored["optim"]["momentum"] = 0.5
    path.write_text(yaml.safe_dump(stored, sort_keys=False))
    check(parse_pretrain(["--out", str(cut / "run")]))
    pretrain(options(cut / "data", cut / "run"))
    assert_same_end(whole, cut)
    with pytest.raises(ConfigError, match=r"momentum 0\.5 means nothing to optim\.optimizer adamw"):
        pretrain(options(cut / "data", cut / "new", "--optim.momentum=0.5"))
    assert options(cut / "data", cut / "new", "--optim.optimizer=sgd").optim.betas == (0.9, 0.999)


def change_caption(data: Path) -> None:
    (data / "train" / "03.txt").write_text("another caption\n")


def add_image(data: Path) -> None:
    shutil.copy(data / "train" / "03.png", data / "train" / "99.png")
    (data / "train" / "99.txt").write_text("one more\n")


def rename_image(data: Path) -> None:
    for suffix in ("png", "txt"):
        (data / "train" / f"03.{suffix}").rename(data / "train" / f"77.{suffix}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_caption, r"captions: other ones, as many \(16\)"),
        (add_image, r"images: 16 before, 17 now"),
        (rename_image, r"image ids: other ones"),
    ],
)
def test_other_data_at_the_same_path_are_refused(
    cut: Path, change: Callable[[Path], None], message: str
) -> None:
    change(cut / "data")
    with pytest.raises(DataError, match=message) as error:
        pretrain(options(cut / "data", cut / "run"))
    assert "--accept_changed_data" in str(error.value)


def test_changed_data_are_accepted_once(cut: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_caption(cut / "data")
    assert pretrain(options(cut / "data", cut / "run", "--accept_changed_data")).step == 3
    change = "captions: other ones, as many (16)"
    assert f"the training data changed, which was accepted: {change}" in caplog.text
    assert json.loads((cut / "run" / "data.json").read_text())["changes"] == [change]
    assert pretrain(parse_pretrain(["--out", str(cut / "run")])).step == 3
    add_image(cut / "data")
    with pytest.raises(DataError, match="17 now"):
        pretrain(parse_pretrain(["--out", str(cut / "run")]))


def test_torchrun_changes_the_number_of_processes_only_in_an_elastic_run(
    whole: Path, cut: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = cut / "run" / "data.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_processes": 2}))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # a machine of two was lost
    with pytest.raises(ConfigError, match=r"1 instead of 2.*--run\.elastic"):
        pretrain(options(cut / "data", cut / "run"))
    monkeypatch.setattr(logging.getLogger("virtex"), "propagate", True)
    pretrain(options(cut / "data", cut / "run", "--run.elastic"))
    said = [r for r in caplog.records if "another number of processes, 1 instead" in r.message]
    assert {record.levelname for record in said} == {"WARNING"}
    assert_same_end(whole, cut)


def test_other_validation_data_are_logged_alone(
    whole: Path, cut: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cut / "data" / "val" / "03.txt").write_text("another caption\n")
    pretrain(options(cut / "data", cut / "run"))
    assert "the validation data changed: captions: other ones" in caplog.text
    assert_same_end(whole, cut)


def test_a_run_of_an_earlier_version_takes_the_data_as_its_own(
    cut: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cut / "run" / "data.json").unlink()
    caplog.set_level("INFO", "virtex")
    pretrain(options(cut / "data", cut / "run"))
    assert "the data now count as its own" in caplog.text
    change_caption(cut / "data")
    with pytest.raises(DataError):
        pretrain(options(cut / "data", cut / "run"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1, "train": 3}', "\x00"])
def test_a_damaged_record_of_the_data_is_named(cut: Path, content: str) -> None:
    (cut / "run" / "data.json").write_text(content)
    with pytest.raises(DataError, match=r"data\.json cannot be read.*Remove it"):
        pretrain(options(cut / "data", cut / "run"))


def test_a_vocabulary_may_lie_elsewhere_but_be_no_other(whole: Path, tmp_path: Path) -> None:
    first, other = tmp_path / "first.model", tmp_path / "other.model"
    shutil.copy(whole / "run" / "tokenizer.model", first)
    given = ["--tokenizer.tokenizer_path", str(first)]
    pretrain(options(whole / "data", tmp_path / "run", *given))
    first.rename(other)
    given[1] = str(other)
    assert pretrain(options(whole / "data", tmp_path / "run", *given)).step == 3
    given[1] = str(tmp_path / "third.model")
    Path(given[1]).write_bytes(b"another")
    with pytest.raises(ConfigError, match="tokenizer_path was"):
        pretrain(options(whole / "data", tmp_path / "run", *given))


def test_initial_weights_may_lie_elsewhere(whole: Path, tmp_path: Path) -> None:
    first, other = tmp_path / "first.safetensors", tmp_path / "other.safetensors"
    shutil.copy(whole / "run" / "weights.safetensors", first)
    pretrain(options(whole / "data", tmp_path / "run", "--init", str(first)))
    first.rename(other)
    assert pretrain(options(whole / "data", tmp_path / "run", "--init", str(other))).step == 3
    with pytest.raises(ConfigError, match=r"init was .* leave it out"):
        pretrain(options(whole / "data", tmp_path / "run", "--init", "random"))


@pytest.fixture(scope="module")
def started(whole: Path) -> Path:
    """A folder with weights, a vocabulary, and a run that began with both."""
    folder = whole / "started"
    (folder / "files").mkdir(parents=True)
    shutil.copy(whole / "run" / "weights.safetensors", folder / "files" / "first.safetensors")
    shutil.copy(whole / "run" / "tokenizer.model", folder / "files" / "words.model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pretrain(started_with(whole, folder, "files"))
    return folder


def started_with(whole: Path, folder: Path, files: str, *arguments: str) -> PretrainConfig:
    given = f"--init={files}/first.safetensors", f"--tokenizer.tokenizer_path={files}/words.model"
    return options(whole / "data", folder / "run", *given, *arguments)


def test_files_that_a_run_began_with_may_be_out_of_sight(
    whole: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = (started / "run" / "config.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    for files in ("files", "../files", "."):
        given = started_with(whole, started, files)
        check(given)
        assert pretrain(given).step == 3
        assert (started / "run" / "config.yaml").read_text() == stored


def test_files_that_were_moved_are_known_by_their_names(
    whole: Path, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(started)
    (started / "files").rename(started / "moved")
    check(started_with(whole, started, "files"))
    with pytest.raises(ConfigError, match=r"init was .*\n.*tokenizer_path was"):
        check(started_with(whole, started, "other"))
    (started / "moved").rename(started / "files")


def test_other_weights_of_the_same_name_are_refused(
    whole: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(started / "files", tmp_path / "files")
    check(started_with(whole, started, "files"))
    weights = open_init(started / "run").state
    save_file({name: weight.clone() for name, weight in weights.items()}, "files/first.safetensors")
    with pytest.raises(ConfigError, match="init was"):
        check(started_with(whole, started, "files"))


def test_epochs_become_steps_that_stay_the_same_on_resume(tmp_path: Path) -> None:
    root, out = photos(tmp_path / "data"), tmp_path / "run"  # 16 images
    epochs = ["--run.num_epochs", "0.6"]
    assert pretrain(options(root, out, *epochs)).step == 3  # of 4 images: 2.4, rounded up
    stored = yaml.safe_load((out / "config.yaml").read_text())["run"]
    assert (stored["num_steps"], stored["num_epochs"]) == (3, None)
    assert pretrain(options(root, out, *epochs)).step == 3
    assert pretrain(parse_pretrain(["--out", str(out)])).step == 3
    assert pretrain(options(root, out, "--run.num_steps", "3")).step == 3
    for number in range(10, 14):
        shutil.copy(root / "train" / "03.png", root / "train" / f"9{number}.png")
        (root / "train" / f"9{number}.txt").write_text("one more\n")
    assert pretrain(options(root, out, *epochs, "--accept_changed_data")).step == 3
    with pytest.raises(ConfigError, match=r"num_epochs is 0\.7.* began with 0\.6"):
        pretrain(options(root, out, "--run.num_epochs", "0.7"))


def test_a_run_that_begins_again_keeps_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = photos(tmp_path / "data"), tmp_path / "run"
    config = options(root, out, "--run.num_epochs", "0.6")
    with monkeypatch.context() as patch:
        patch.setattr("virtex.pretrain.fit", lambda *_, **__: 1 / 0)  # before the first checkpoint
        with pytest.raises(ZeroDivisionError):
            pretrain(config)
    assert pretrain(parse_pretrain(["--out", str(out)])).step == 3
    assert pretrain(config).step == 3  # the first command goes on, too


def on_a_cpu(patch: pytest.MonkeyPatch, *, bf16: bool) -> None:
    """Act as on a CPU with or without instructions for bf16."""
    precision._warn.cache_clear()
    patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})
    patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    patch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def stored_precision(run: Path) -> list[str]:
    """Precision in config.yaml, in the checkpoints and in the weights file."""
    saved = [torch.load(path, weights_only=True) for path in run.glob("checkpoints/*.pt")]
    configs = [yaml.safe_load((run / "config.yaml").read_text())]
    configs += [one["config"] for one in saved]
    configs.append(open_init(str(run / "weights.safetensors")).config)
    return sorted({config["run"]["precision"] for config in configs})


def test_a_run_keeps_the_precision_that_auto_stood_for(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    config = options(cut / "data", out, "--run.precision", "auto")
    on_a_cpu(monkeypatch, bf16=True)
    pretrain(config)
    assert stored_precision(out) == ["bf16"]
    weights = (out / "weights.safetensors").read_bytes()
    for step in (2, 3):
        (out / "checkpoints" / f"step_{step:08d}.pt").unlink()
    on_a_cpu(monkeypatch, bf16=False)
    assert "keeps the precision" not in caplog.text
    pretrain(config)
    assert caplog.text.count("the run keeps the precision that it began with") == 1
    assert stored_precision(out) == ["bf16"]
    assert (out / "weights.safetensors").read_bytes() == weights
    with pytest.raises(ConfigError, match=r"run\.precision was 'bf16', now 'fp32'"):
        pretrain(options(cut / "data", out, "--run.precision", "fp32"))


def test_auto_stands_for_fp32_on_a_cpu_without_bf16(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_cpu(monkeypatch, bf16=False)
    pretrain(options(cut / "data", tmp_path / "run", "--run.precision", "auto"))
    assert stored_precision(tmp_path / "run") == ["fp32"]
    assert "this CPU lacks" not in caplog.text
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_a_run_takes_tf32_unless_it_began_in_a_version_without_the_option(
    whole: Path, cut: Path
) -> None:
    path = cut / "run" / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    assert stored["run"].pop("float32_matmul") == "high"
    path.write_text(yaml.safe_dump(stored, sort_keys=False))
    pretrain(options(cut / "data", cut / "run"))
    assert yaml.safe_load(path.read_text())["run"]["float32_matmul"] == "default"
    assert_same_end(whole, cut)


def test_a_run_of_steps_is_not_resumed_by_epochs(cut: Path) -> None:
    with pytest.raises(ConfigError, match="began with 3 steps"):
        pretrain(options(cut / "data", cut / "run", "--run.num_epochs", "2"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--run.num_epochs=2", "--run.num_steps=3"],
        ["--config", "run: {num_epochs: 2, num_steps: 3}\n"],
    ],
)
def test_epochs_and_steps_exclude_each_other(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        options(tmp_path, tmp_path / "run", *arguments)


def test_the_later_one_of_epochs_and_steps_holds(tmp_path: Path) -> None:
    def length(*arguments: str) -> tuple[int, float | None]:
        run = options(tmp_path, tmp_path / "run", *arguments).run
        return run.num_steps, run.num_epochs

    assert length("--run.num_epochs=2") == (500_000, 2)
    assert length("--config", "run: {num_epochs: 2}\n", "--run.num_steps=5") == (5, None)
    with pytest.raises(ConfigError, match=r"num_epochs 0\.0 must be above 0"):
        length("--run.num_epochs=0")


def test_options_that_count_steps_are_checked_against_epochs(tmp_path: Path) -> None:
    flags = ["--run.num_epochs", "0.6", "--optim.warmup_steps", "100"]
    with pytest.raises(ConfigError, match="warmup_steps"):
        pretrain(options(photos(tmp_path / "data"), tmp_path / "run", *flags))
