"""Early stopping: which checkpoint is kept, and when a run ends, by the scores in RUN/results."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small_run import small_config
from tests.zoo.opened import open_backbone
from virtex.config import from_dict
from virtex.data.layouts import write_scenes
from virtex.data.sources.scenes import ScenesSource
from virtex.early_stopping import EarlyStopping, EarlyStoppingConfig, num_since_best
from virtex.engine import checkpoint
from virtex.engine.run import RunFolder
from virtex.errors import CheckpointError, ConfigError
from virtex.pretrain import PretrainConfig, parse_pretrain, pretrain
from virtex.transfer.protocol import Result
from virtex.zoo.init import open_init
from virtex.zoo.weights_file import AVERAGED_NAME, WEIGHTS_NAME, save_weights

DATA = {"source": "scenes", "num_images": 60, "num_val_images": 40, "image_size": 64}
IDENTITIES = {
    role: ScenesSource(DATA[number], split=split, image_size=64).identity()
    for role, split, number in (
        ("train", "train", "num_images"), ("test", "val", "num_val_images"),
    )
}  # fmt: skip
FLAGS = [
    "--early_stopping.protocol=voc07", "--early_stopping.image_size=32",
    "--early_stopping.leave_out_rare", "--num_samples=0",
    *(f"--early_stopping.data.{name}={value}" for name, value in DATA.items()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], 0),
        ([1], 0),
        ([1, 2], 0),
        ([2, 1], 1),
        ([2, 2, 2], 2),
        ([1, 3, 2, 3], 2),
        ([3, 1, 4], 0),
    ],
)
def test_scores_since_the_first_best_one_are_counted(scores: list[float], expected: int) -> None:
    assert num_since_best({10 * step: score for step, score in enumerate(scores)}) == expected


def store(out: Path, step: int, score: float) -> float:
    """Store and return the score of a checkpoint."""
    Result(
        protocol="multilabel-svm",
        headline="mAP",
        numbers={"mAP": score},
        settings={},
        initialisation={"init": str(out), "step": step},
        data=IDENTITIES,
        seed=0,
        versions={},
        device="cpu",
        seconds=1.0,
    ).write(out / "results" / f"multilabel-svm-step_{step:08d}.json")
    return score


def give_scores(monkeypatch: pytest.MonkeyPatch, found: dict[int, float]) -> dict[int, float]:
    """Give checkpoints these scores by their step; each may be asked for once."""

    def score(self: EarlyStopping, backbone: object, step: int) -> float:
        return store(self.folder.parent, step, found.pop(step))

    monkeypatch.setattr(EarlyStopping, "_score", score)
    return found


def options(out: Path, *arguments: str) -> PretrainConfig:
    return small_config(out, *FLAGS, *arguments)


def refuse_weights(
    monkeypatch: pytest.MonkeyPatch, *refused: tuple[str, int]
) -> list[tuple[str, int]]:
    """Have no space for these files of weights, by name and step, once each; return the rest."""
    left = list(refused)

    def write(path: Path, *args: object, step: int, **options: object) -> None:
        if (path.name, step) in left:
            left.remove((path.name, step))
            raise CheckpointError("No space left on device")
        save_weights(path, *args, step=step, **options)

    monkeypatch.setattr("virtex.run_steps.save_weights", write)
    return left


def stops(out: Path) -> list[dict[str, int]]:
    lines = (out / "log.jsonl").read_text().splitlines()
    return [record for line in lines if "early_stopping/best_step" in (record := json.loads(line))]


def test_patience_ends_a_run_which_stays_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    give_scores(monkeypatch, {2: 90.0, 4: 10.0, 6: 5.0})
    caplog.set_level("INFO", "virtex")
    for resumed in (False, True):
        result = pretrain(options(out, "--early_stopping.patience", "1"))
        assert (result.step, result.reason, result.exit_code) == (4, "stopped", 0), resumed
        [stop] = stops(out)
        assert (stop["step"], stop["early_stopping/best_step"]) == (4, 2)
    assert "the run is complete" in caplog.text
    assert open_init(out).step == 2
    assert pretrain(parse_pretrain(["--out", str(out), "--early_stopping.patience", "0"])).step == 6


def test_checkpoints_before_the_first_step_are_kept_and_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    give_scores(monkeypatch, {4: 10.0, 6: 20.0})
    options_ = options(out, "--early_stopping.first_step=3", "--early_stopping.patience=1")
    assert pretrain(options_).reason == "finished"
    assert open_init(out).step == 6
    assert len(list((out / "results").iterdir())) == 2


def test_a_score_records_its_weights_as_transfer_does_for_the_run(tmp_path: Path) -> None:
    pretrain(options(out := tmp_path / "run", "--run.num_steps=2", "--backbone.drop_path=0.1"))
    _, origin = open_backbone(out)
    expected = json.loads(json.dumps({**origin.record(), "sha256": None}))
    (path,) = (out / "results").iterdir()
    assert Result.read(path).initialisation == expected


def test_checkpoints_are_compared_on_one_set_of_images(tmp_path: Path) -> None:
    """An easier set would choose the weights."""
    for layout, seed in (("first", 0), ("other", 1)):
        write_scenes("voc", tmp_path / layout, num_train=20, num_val=12, image_size=64, seed=seed)
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    own = [flag for flag in FLAGS if ".data." not in flag]
    own += ["--early_stopping.data.source=voc"]

    def go_on(data: str) -> None:
        folder = f"--early_stopping.data.root={tmp_path / data}"
        pretrain(small_config(tmp_path / "run", *own, folder))

    go_on("first")
    RunFolder(tmp_path / "run").checkpoints.at(6).unlink()
    with pytest.raises(ConfigError, match=r"scored on other data .*give the same data, or"):
        go_on("other")
    go_on("moved")


def test_scores_of_weights_that_no_longer_exist_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    for step in (2, 4, 6):  # of a run whose checkpoints were removed
        store(out, step, 99.0)
    stored = next((out / "results").iterdir())  # what `virtex transfer` writes of a checkpoint
    other = stored.with_name("multilabel-svm-step_00000009.pt-5e2c8c27.json")
    other.write_bytes(stored.read_bytes())
    scores = give_scores(monkeypatch, {2: 10.0, 4: 30.0, 6: 20.0})
    pretrain(options(out))
    assert (open_init(out).step, scores) == (4, {})
    RunFolder(out).checkpoints.at(6).unlink()  # as where the newest is damaged
    scores[6] = 40.0
    pretrain(options(out))
    assert (open_init(out).step, scores) == (6, {})
    assert other.exists()


@pytest.mark.parametrize(("keep", "kept"), [(3, 4), (1, 6)])  # the checkpoint of step 4 or none
def test_the_best_weights_that_a_full_disk_refused_are_written_later_if_they_can_be(
    keep: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    give_scores(monkeypatch, {2: 10.0, 4: 50.0, 6: 20.0})
    refused = refuse_weights(monkeypatch, (WEIGHTS_NAME, 4))
    out = tmp_path / "run"
    pretrain(options(out, f"--run.keep_checkpoints={keep}"))
    assert "No space left on device Training goes on." in caplog.text
    assert (open_init(out).step, refused) == (kept, [])
    assert ("the best of the others are kept" in caplog.text) == (kept == 6)
    if kept == 4:
        stored = checkpoint.load(RunFolder(out).checkpoints.at(4))["task"]
        written = load_file(out / WEIGHTS_NAME)
        assert all(torch.equal(value, written[name]) for name, value in stored.items())


def test_patience_ends_no_run_whose_best_weights_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    give_scores(monkeypatch, {2: 10.0, 4: 50.0, 6: 20.0, 8: 30.0})
    refuse_weights(monkeypatch, (WEIGHTS_NAME, 4), (WEIGHTS_NAME, 4))
    out = tmp_path / "run"
    result = pretrain(options(out, "--early_stopping.patience=1", "--run.num_steps=10"))
    assert "step 6: patience has ended, but step 4, the best, is not written" in caplog.text
    assert (result.step, result.reason, open_init(out).step) == (8, "stopped", 4)


def test_averaged_weights_are_of_the_step_of_the_others_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_scores(monkeypatch, {2: 30.0, 4: 50.0, 6: 20.0})

    refuse_weights(monkeypatch, *[(WEIGHTS_NAME, 4)] * 9)
    out = tmp_path / "run"
    pretrain(options(out, "--run.keep_checkpoints=1", "--optim.ema_decay=0.5"))
    assert open_init(out).step == 2
    assert not (out / AVERAGED_NAME).exists()


@pytest.mark.parametrize("value", [{"patience": -1}, {"first_step": -1}, {"batch_size": 0}])
def test_numbers_out_of_range_are_refused(value: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"must be at least [01]"):
        EarlyStoppingConfig("voc07", **value)


WITH_LABELS = ("auto", "coco", "lvis", "huggingface", "classes", "inaturalist", "voc")


@pytest.mark.parametrize("protocol", ["voc07", "linear"])
@pytest.mark.parametrize("source", WITH_LABELS)
def test_a_protocol_without_images_says_how_to_name_them(source: str, protocol: str) -> None:
    given = {"protocol": protocol, "data": {"source": source}}
    with pytest.raises(ConfigError, match=r"give their folder by --early_stopping\.data\.root DIR"):
        from_dict(EarlyStoppingConfig, given)
    named = from_dict(EarlyStoppingConfig, {**given, "data": {"source": "scenes"}})
    assert named.with_found_layout() == named


def test_images_without_labels_and_folders_without_images_are_refused(tmp_path: Path) -> None:
    for source, message in (
        ("folder", "labels are needed"),
        ("auto", r"--early_stopping\.data\.\*.*data\.source"),
    ):
        data = {"source": source, "root": str(tmp_path)}
        config = from_dict(EarlyStoppingConfig, {"protocol": "linear", "data": data})
        with pytest.raises(ConfigError, match=message) as caught:
            config.with_found_layout()
        assert "the data of early stopping" in str(caught.value)


def test_patience_without_a_protocol_and_a_first_step_too_late_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need a protocol"):
        small_config(tmp_path / "run", "--early_stopping.patience=1")
    with pytest.raises(ConfigError, match="after the last step, 6"):
        pretrain(options(tmp_path / "run", "--early_stopping.first_step=7"))
