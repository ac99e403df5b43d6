"""Pretraining on a manifest: nothing visits all examples, and a cut run ends with the same bits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.data.sources.manifests import write_manifest, write_shards
from tests.small_run import OPTIONS
from virtex import distributed
from virtex.data.sources.shards import ShardedSource
from virtex.engine import checkpoint
from virtex.errors import ConfigError, DataError
from virtex.pretrain import PretrainConfig, check, parse_pretrain, pretrain

DATA = """
data: {num_images: 8000, num_val_images: 1000, image_size: 96}
tokenizer: {vocab_size: 40}
run: {batch_size: 4, num_steps: 4, checkpoint_every: 2, validate_every: 0}
"""
BAD = ["000000003", "000000010", "000000017"]
FINAL = Path("checkpoints") / "step_00000004.pt"


def options(root: Path, out: Path, *arguments: str) -> PretrainConfig:
    files = ["--config", OPTIONS, "--config", DATA]
    return parse_pretrain([*files, "--data.root", str(root), "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 21 images, three of them bad, and a finished run on them."""
    folder = tmp_path_factory.mktemp("whole")
    write_shards(folder / "data", [9, 7, 5], bad=BAD)
    write_shards(folder / "val", [4])
    val = write_manifest(folder / "val")
    manifest = write_manifest(folder / "data")
    pretrain(options(manifest, folder / "run", "--data.val_root", str(val)))
    return folder


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """A copy of data and run elsewhere, the run cut after step 2."""
    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "copy" / "run" / FINAL).unlink()
    return tmp_path / "copy"


def test_a_run_records_its_lanes_manifest_and_faults(whole: Path) -> None:
    stored = yaml.safe_load((whole / "run" / "config.yaml").read_text())
    assert stored["data"]["source"] == "webdataset"
    assert stored["data"]["num_lanes"] == 4
    data = json.loads((whole / "run" / "data.json").read_text())
    assert data["train"].keys() == {"images", "shards sha256"}
    assert data["train"]["images"] == 21
    faults = (whole / "run" / "faults.jsonl").read_text().splitlines()
    assert faults
    assert {json.loads(line)["id"][-9:] for line in faults} <= set(BAD)
    samples = json.loads((whole / "run" / "samples.json").read_text())["samples"]
    assert samples[0]["captions"] == ["a caption of image 000000000"]


def test_a_cut_run_on_moved_shards_ends_with_the_same_bits(whole: Path, cut: Path) -> None:
    manifest = write_manifest(cut / "data", out=cut / "elsewhere")
    val = cut / "val" / ".virtex-manifest"
    pretrain(options(manifest, cut / "run", "--data.val_root", str(val)))
    before, now = (checkpoint.load(run / "run" / FINAL)["task"] for run in (whole, cut))
    assert all(torch.equal(before[name], now[name]) for name in before)
    assert (cut / "run" / "faults.jsonl").read_text() == (
        whole / "run" / "faults.jsonl"
    ).read_text()


def test_other_shards_or_lanes_are_refused_on_resume(cut: Path) -> None:
    other = write_manifest(cut / "data", left_out={"00001.tar": [2]}, out=cut / "other")
    val = cut / "val" / ".virtex-manifest"
    with pytest.raises(DataError, match="images: 21 before, 20 now"):
        pretrain(options(other, cut / "run", "--data.val_root", str(val)))
    manifest = cut / "data" / ".virtex-manifest"
    with pytest.raises(ConfigError, match=r"data.num_lanes was 4, now 2"):
        check(options(manifest, cut / "run", "--data.num_lanes", "2"))


def test_a_resume_by_another_kind_of_root_is_said_in_words(whole: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "data", [9])
    pretrain(options(tmp_path / "data", tmp_path / "run", "--run.num_steps", "1"))
    manifest = write_manifest(tmp_path / "data")
    found = refusal(options(manifest, tmp_path / "run", "--run.num_steps", "1"))
    assert "run reads a folder of shards, in a permutation of all examples, and now it" in found
    assert f"read a manifest, in 4 lanes: resume it with --data.root {tmp_path}/data" in found
    found = refusal(options(whole / "data", whole / "run"))
    assert f"data is none: name {whole}/data/.virtex-manifest with --data.root. A run that" in found
    assert "began with a manifest keeps its lanes, and is resumed with a manifest." in found
    mixed = ["--out", str(whole / "run"), "--data.mix", f"{{{manifest}: 1}}"]
    found = refusal(parse_pretrain(mixed))
    assert "A run that is resumed has the one that it began with: leave the other out" in found
    check(parse_pretrain([*mixed, "--data.root", "null", "--accept_changed_data", "true"]))


def test_validation_on_the_training_manifest_is_refused_before_work(
    whole: Path, tmp_path: Path
) -> None:
    manifest = whole / "data" / ".virtex-manifest"
    found = refusal(options(manifest, tmp_path / "run", "--data.val_root", str(manifest)))
    assert "is a manifest that is trained on" in found


def refusal(config: PretrainConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        check(config)
    return str(caught.value)


def test_a_start_reads_a_bounded_number_of_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "data", [60] * 10)
    manifest, reads = write_manifest(tmp_path / "data"), []
    read = ShardedSource._read

    def counted(source: ShardedSource, *arguments: object) -> list[bytes]:
        reads.append(arguments)
        return read(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardedSource, "_read", counted)
    monkeypatch.setattr("virtex.run_summary.NUM_LOOKED_AT", 20)
    monkeypatch.setattr("virtex.data.sources.shards.NUM_LOOKED_AT", 20)
    monkeypatch.setattr("virtex.run_monitors.NUM_FROM_SHARDS", 20)
    flags = ("--tokenizer.sample", "50", "--run.num_steps", "1")
    pretrain(options(manifest, tmp_path / "run", *flags))
    assert 0 <= len(reads) - (50 + 20 + 20 + 20 + 4) <= 2  # and what the loader looks at first


def test_a_mix_trains_and_is_stored(tmp_path: Path) -> None:
    for name in "ab":
        write_shards(tmp_path / name, [9])
    paths = [write_manifest(tmp_path / name) for name in "ab"]
    mix = yaml.safe_dump({"data": {"mix": {str(paths[0]): 0.75, str(paths[1]): 0.25}}})
    out = tmp_path / "run"
    short = ["--out", str(out), "--run.num_steps", "1", "--num_samples", "0"]
    config = parse_pretrain(["--config", OPTIONS, "--config", DATA, "--config", mix, *short])
    assert pretrain(config).step == 1
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert stored["data"]["mix"] == {
        str(path): w for path, w in zip(paths, (0.75, 0.25), strict=True)
    }
    assert pretrain(parse_pretrain(["--out", str(out)])).step == 1


def test_processes_that_do_not_fit_the_lanes_are_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, [5])
    manifest = write_manifest(tmp_path)
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(ConfigError, match="2 lanes cannot be split equally over 4 processes"):
        check(options(manifest, tmp_path / "run", "--data.num_lanes", "2"))
    check(options(manifest, tmp_path / "run"))
