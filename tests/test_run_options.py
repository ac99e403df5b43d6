"""Options of a run that cannot work are refused before work starts, all at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.sources.layouts import jpeg, write
from tests.small_run import small_config
from tests.task_options import task_flags
from virtex.data.source import open_source
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError, DataError
from virtex.pretrain import check, check_inputs, parse_pretrain, pretrain
from virtex.run_data import RunData

MULTISTEP = ("--optim.schedule=multistep",)
SCORED = ("--early_stopping.protocol=voc07", "--early_stopping.data.source=scenes")
ONE_CELL = ("--image.size=32",)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([*MULTISTEP, "--optim.milestones=[2]", "--optim.gamma=-3"], "gamma -3.0 must be above 0"),
        ([*MULTISTEP, "--optim.milestones=[2]", "--optim.gamma=2"], "at most 1"),
        ([*MULTISTEP, "--optim.milestones=[0,3]"], "milestones .* must be at least 1"),
        (["--task=moco", "--run.batch_size=2"], "2 images at once .* in 2 groups leave fewer"),
        (["--task=moco", "--run.accumulation_steps=8"], "1 images at once .* in 1 groups"),
        (["--task=clip", "--run.batch_size=1"], "compares the pairs of a batch: raise"),
        (["--task=moco", "--task.group_size=1"], "group_size 1 must be at least 2"),
        ([*ONE_CELL, "--run.batch_size=1"], "one image at a time .* grid of 1 x 1"),
        ([*ONE_CELL, "--run.accumulation_steps=8"], r"run.accumulation_steps 8\) with a grid"),
        (["--task=self_critical"], "dropout 0.1 must be 0"),
        (["--task=self_critical"], "BatchNorm compute otherwise in training"),
        (["--task=self_critical", "--backbone.drop_path=0.1"], "BatchNorm, DropPath compute"),
        (
            ["--task=self_critical", "--backbone.frozen", "--optim.unfreeze_at=3"],
            "BatchNorm compute",
        ),
        (["--num_samples=-1"], "num_samples -1 must be 0 to 1,000"),
        (["--num_samples=1001"], "num_samples 1001 must be 0 to 1,000"),
        (["--run.compile_mode=max-autotune"], "compiles nothing with run.compile none"),
        (["--optim.lookahead_steps=0", "--optim.lookahead_alpha=0.8"], "alpha 0.8 means nothing"),
        (
            [*SCORED, "--run.checkpoint_every=0"],
            "chooses among checkpoints, and with run.checkpoint_every 0 there is one",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(
    options: list[str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        check(small_config(tmp_path / "run", *options))


@pytest.mark.parametrize(
    "options",
    [
        [*MULTISTEP, "--optim.milestones=[1,5]"],
        ["--task=moco", "--run.batch_size=4"],
        [*ONE_CELL, "--run.batch_size=1", "--backbone.frozen_norm"],
        ["--run.batch_size=1"],
        task_flags("self_critical"),
        [*task_flags("self_critical"), "--backbone.frozen", "--backbone.drop_path=0.1"],
        ["--num_samples=1000"],
        ["--run.compile=task", "--run.compile_mode=max-autotune"],
    ],
)
def test_options_at_the_edge_of_what_works_are_taken(options: list[str], tmp_path: Path) -> None:
    check(small_config(tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()  # a check writes nothing


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (["--early_stopping.data.root=LABELED"], "nothing is scored without a protocol"),
        (
            ["--tokenizer.tokenizer_path=a.model", "--tokenizer.vocab_size=300"],
            "tokenizer.vocab_size has no effect",
        ),
    ],
)
def test_options_of_earlier_runs_that_do_nothing_are_named(
    options: list[str], warning: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_config(tmp_path / "run", *options)
    assert warning in caplog.text


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ("optim: {lookahead_steps: 5, lookahead_alpha: 0.8}", ["--optim.lookahead_steps=0"]),
        ("run: {compile: task, compile_mode: max-autotune}", ["--run.compile=none"]),
        (
            "early_stopping: {protocol: voc07, patience: 3, data: {root: LABELED}}",
            ["--early_stopping.protocol=none"],
        ),
    ],
)
def test_an_option_that_a_flag_turns_off_takes_those_of_files_with_it(
    file: str, flags: list[str], tmp_path: Path
) -> None:
    config = small_config(tmp_path / "run", "--config", f"\n{file}", *flags)
    check(config)
    plain = small_config(tmp_path / "run", *flags)
    assert (config.optim, config.run, config.early_stopping) == (
        plain.optim, plain.run, plain.early_stopping,
    )  # fmt: skip


def test_milestones_that_are_not_reached_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [*MULTISTEP, "--optim.milestones=[1,2,5]", "--run.num_steps=2", "--num_samples=0"]
    pretrain(small_config(tmp_path / "run", *flags))
    assert "optim.milestones [2, 5] lie beyond the 2 steps" in caplog.text


def test_problems_of_several_groups_are_told_together(tmp_path: Path) -> None:
    flags = ["--optim.lr=-1", "--run.batch_size=0", "--image.size=0", "--task.token_weight=-1"]
    with pytest.raises(ConfigError) as caught:
        small_config(tmp_path / "run", *flags)
    text = str(caught.value)
    for problem in ("lr -1", "batch_size 0", "size 0", "token_weight -1"):
        assert problem in text, text
    assert text.startswith("several groups of options cannot work:\n- ")


def test_contradictions_of_several_options_are_told_together(tmp_path: Path) -> None:
    flags = ["--run.accumulation_steps=3", "--optim.warmup_steps=10", "--optim.unfreeze_at=7"]
    with pytest.raises(ConfigError) as caught:
        check(small_config(tmp_path / "run", *flags))
    text = str(caught.value)
    for problem in ("split equally", "warmup_steps 10", "unfreeze_at 7 must", "neither is set"):
        assert problem in text, text


def test_validation_images_that_are_trained_on_are_refused_unless_a_run_has_begun_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "1.jpg", jpeg())
    write(tmp_path / "2.jpg", jpeg())
    train = write(tmp_path / "train.csv", "image,caption\n1.jpg,a cat\n2.jpg,a dog\n")
    val = write(tmp_path / "val.csv", "image,caption\n2.jpg,an animal\n")
    options = ["--data.root", str(train), "--data.val_root", str(val), "--out", str(tmp_path / "x")]
    config = parse_pretrain([*options, "--data.source", "table"])
    with pytest.raises(ConfigError, match=r"^1 of the 1 validation images would .*2\.jpg\. Name"):
        check_inputs(config)
    monkeypatch.setattr(RunFolder, "has_begun", lambda folder: True)
    check_inputs(config)
    assert "this run began with validation images of its training data: 1 of" in caplog.text


def test_bad_captions_are_refused_unless_a_run_has_begun_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "1.jpg", jpeg())
    table = write(tmp_path / "train.jsonl", '{"image": "1.jpg", "caption": ["a cat", ""]}\n')
    out = tmp_path / "x"
    options = ["--data.source", "table", "--data.root", str(table), "--out", str(out)]
    config = parse_pretrain(options)
    with pytest.raises(DataError, match=r"allows no larger fraction"):
        check_inputs(config)
    monkeypatch.setattr(RunFolder, "has_begun", lambda folder: True)
    with pytest.raises(DataError, match=r"allows no larger fraction"):  # on unknown data
        check_inputs(config)
    RunData({"images": 1}).write(out)
    check_inputs(config)
    assert "1 of 1 rows were skipped, or their bad captions: " in caplog.text
    with pytest.raises(DataError, match=r"allows no larger fraction"):
        check_inputs(replace(config, accept_changed_data=True))


def test_a_number_of_captions_under_several_keys_is_refused_unless_a_run_has_begun_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / "1.jpg", jpeg())
    write(tmp_path / "data" / "1.json", '{"alt": "a cat", "long": "a cat on a mat"}')
    options = [
        "--data.source=folder",
        f"--data.root={tmp_path / 'data'}",
        f"--out={tmp_path / 'x'}",
    ]
    one, two = (
        parse_pretrain([*options, "--data.num_captions=1", f"--data.caption_keys={keys}"])
        for keys in ("{long: 1}", "{alt: 1, long: 9}")
    )
    check_inputs(one)
    with pytest.raises(ConfigError, match=r"^--data.num_captions 1 takes .* under alt, long by"):
        check_inputs(two)
    with pytest.raises(ConfigError, match=r"Leave --data.num_captions out"):
        open_source(two.data, split="train")
    monkeypatch.setattr(RunFolder, "has_begun", lambda folder: True)
    check_inputs(two)
    assert "this run began with the first captions of several keys: --data.num" in caplog.text


def test_a_run_that_began_on_a_folder_of_test_images_goes_on_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1", "a/2", "Test/3"):
        write(tmp_path / "images" / f"{name}.jpg", jpeg())
        write(tmp_path / "images" / f"{name}.txt", "a cat on a mat")
    flags = ["--data.source=folder", f"--data.root={tmp_path}/images", "--run.batch_size=2"]
    config = small_config(tmp_path / "run", *flags, "--run.num_steps=1", "--num_samples=0")
    with pytest.raises(DataError, match="holds Test but no train"):
        pretrain(config)
    with monkeypatch.context() as earlier:
        earlier.setattr("virtex.data.split_folders.held_out_folders", lambda config: [])
        pretrain(config)
    assert pretrain(config).step == 1
    assert f"this run began with all of {tmp_path}/images, Test included" in caplog.text
