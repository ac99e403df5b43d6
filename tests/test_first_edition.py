"""Files that the first edition wrote, commit c6382b2, give what they gave then.

A user's runs, weights, configs and results outlive the code that wrote them. See
tests/golden/first_edition/README.md.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests import first_edition
from tests.first_edition import BACKBONES, CAPTIONERS, CUT_RUNS, EDITION, TASKS, records, unpack
from virtex.cli import main
from virtex.data.source import SourceConfig, open_source

MEASURED = json.loads((EDITION / "measured.json").read_text())
CONFIGS = sorted(path.stem for path in (EDITION / "configs").glob("*.yaml"))
TRAINED_CONFIGS = [name for name in CONFIGS if name not in ("small", "study", "voc07_small")]
TOLERANCE = 1e-4
"""Relative, of numbers that another processor may round otherwise; drift is below 1e-5."""

NOISE = 1e-3
"""Absolute, of norms of weights: Adam makes steps of rounding where a gradient should be 0."""
RANKS = 0.02
"""Relative, of mean average precision, in which two images may change places."""


@pytest.fixture(scope="module")
def shared_edition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, for tests that write nothing."""
    return unpack(tmp_path_factory.mktemp("first") / "edition")


@pytest.fixture
def reading(shared_edition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work below the files, whose paths are relative, without writing to them."""
    monkeypatch.chdir(shared_edition)


@pytest.fixture
def writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work below a copy of the files."""
    monkeypatch.chdir(unpack(tmp_path / "edition"))


def times(paths: list[Path]) -> dict[Path, int]:
    """Return when each file was written."""
    return {path: path.stat().st_mtime_ns for path in paths}


def assert_close(found: Any, expected: Any) -> None:
    """Compare numbers within the tolerance, and texts exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, str) or (isinstance(expected, list) and isinstance(expected[0], str)):
        assert found == expected
    else:
        assert found == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("init", BACKBONES)
def test_a_backbone_is_the_one_that_was_saved(init: str) -> None:
    assert_close(first_edition.backbone(init), MEASURED["backbones"][init])


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("init", TASKS)
def test_a_task_is_whole(init: str) -> None:
    assert first_edition.task(init) == MEASURED["tasks"][init]


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("init", CAPTIONERS)
def test_a_captioner_says_what_it_said(init: str) -> None:
    assert_close(first_edition.captioner(init), MEASURED["captioners"][init])


@pytest.mark.usefixtures("reading")
def test_a_contrastive_run_compares_as_it_did() -> None:
    assert first_edition.embedder() == pytest.approx(MEASURED["embedder"], rel=TOLERANCE)


@pytest.mark.usefixtures("reading")
def test_torch_hub_takes_an_exported_backbone() -> None:
    root = Path(__file__).resolve().parents[1]
    weights = Path("exported/torchvision.pth").resolve()
    model = torch.hub.load(str(root), "resnet50", source="local", weights=str(weights))
    state = {f"cnn.{name}": value for name, value in model.state_dict().items()}
    assert (
        first_edition.digest(state) == MEASURED["backbones"]["exported/torchvision.pth"]["sha256"]
    )


@pytest.mark.usefixtures("writing")
@pytest.mark.parametrize("run", CUT_RUNS)
def test_a_cut_run_goes_on_to_its_end(run: str) -> None:
    before = records(run)
    found, expected = first_edition.resumed(run), MEASURED["resumed"][run]
    assert found["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE)
    assert found["norms"] == pytest.approx(expected["norms"], rel=TOLERANCE, abs=NOISE)
    assert [one["step"] for one in records(run) if "train/loss" in one] == list(range(1, 13))
    assert records(run)[: len(before)] == before


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("name", TRAINED_CONFIGS)
def test_a_config_file_trains_the_task_that_it_trained(name: str, tmp_path: Path) -> None:
    options = ["--run.num_steps", "1", "--num_samples", "0", "--run.precision", "fp32"]  # as then
    config = ["--config", f"configs/{name}.yaml", *options]
    assert main(["pretrain", *config, "--out", str(tmp_path / "run")]) == 0
    weights = [path for path in (Path(name), Path(f"weights/{name}.safetensors")) if path.exists()]
    before = weights[0] / "weights.safetensors" if weights[0].is_dir() else weights[0]
    assert shapes(tmp_path / "run" / "weights.safetensors") == shapes(before)


def shapes(path: Path) -> dict[str, list[int]]:
    """Return names and shapes of a weights file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.usefixtures("reading")
def test_results_and_runs_are_reported(tmp_path: Path) -> None:
    runs_and_results = ["results", "study", *CUT_RUNS]
    assert main(["report", *runs_and_results, "--out", str(tmp_path)]) == 0
    report = (tmp_path / "report.md").read_text()
    shown = [float(number) for number in re.findall(r"\d+\.?\d*", report)]
    results = [json.loads(path.read_text()) for path in Path("results").glob("*.json")]
    assert len(results) == 5
    for result in results:
        score = result["numbers"][result["headline"]]
        assert result["protocol"] in report
        assert any(number == pytest.approx(score, abs=0.051) for number in shown)
    sample = json.loads(Path("bicaptioning/samples.json").read_text())["samples"][0]
    assert sample["generated"] in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("writing")
def test_kept_features_are_taken_up() -> None:
    features = times(list(Path("results/features").rglob("*.safetensors")))
    results = {path: json.loads(path.read_text()) for path in Path("results").glob("*.json")}
    data = "data: {source: scenes, num_images: 60, num_val_images: 40, image_size: 64}\n"
    configs = ["--config", "configs/voc07_small.yaml", "--config", data]
    init = ["--init", "bicaptioning", "--out", "results"]
    assert main(["transfer", "voc07", *configs, *init]) == 0
    assert len(features) == 2
    assert times(list(Path("results/features").rglob("*.safetensors"))) == features
    assert set(Path("results").glob("*.json")) == set(results)
    for path, result in results.items():
        assert json.loads(path.read_text())["numbers"] == pytest.approx(
            result["numbers"], rel=RANKS
        )


@pytest.mark.usefixtures("writing")
def test_a_study_measures_nothing_again() -> None:
    files = times([path for path in Path("study").rglob("*") if path.is_file()])
    table = Path("study/table.md")
    expected = table.read_text().replace("VOC07 mAP", "mAP on scenes")
    assert main(["study", "configs/study.yaml", "--out", "study"]) == 0
    assert table.read_text() == expected.replace("VOC07 mAP", "mAP on scenes")
    files |= times([table, Path("study/report.html"), Path("study/.table.lock")])
    assert times([path for path in Path("study").rglob("*") if path.is_file()]) == files


@pytest.mark.usefixtures("writing")
def test_a_study_goes_on_with_a_row_that_was_cut(capsys: pytest.CaptureFixture[str]) -> None:
    result_path = Path("study/token_bags/seed_0/result.json")
    expected = json.loads(result_path.read_text())
    result_path.unlink()
    assert main(["study", "configs/study.yaml", "--out", "study"]) == 0
    found = json.loads(result_path.read_text())
    assert found["numbers"] == pytest.approx(expected["numbers"], rel=RANKS)
    assert {**found["settings"], **found["data"]} == {**expected["settings"], **expected["data"]}


@pytest.mark.usefixtures("writing")
def test_a_file_of_captions_goes_on_where_it_was_cut() -> None:
    kept = Path("captions.jsonl").read_bytes().rpartition(b"\n")[0]
    found = first_edition.captions()
    assert Path("captions.jsonl").read_bytes().startswith(kept + b"\n")
    assert len(found) == len(MEASURED["captions"]) == 8
    for row, expected in zip(found, MEASURED["captions"], strict=True):
        assert_close(row, expected)


@pytest.mark.usefixtures("writing")
def test_the_index_of_a_shard_is_made_again_once() -> None:
    """The first edition's left out samples, so that it is not taken up."""
    index = Path("shards/.virtex-index/00000.tar.safetensors")
    with safe_open(index, framework="numpy") as file:
        modified = int(file.metadata()["shard_mtime_ns"])
    os.utime("shards/00000.tar", ns=(modified, modified))  # a checkout does not keep it
    before = index.read_bytes()
    source = open_source(SourceConfig("webdataset", root=Path("shards")), split="train")
    assert source is not None
    captions = [source.captions(number) for number in range(len(source))]
    assert captions == [(f"a picture called photo{number}",) for number in range(3)]
    assert source[0].image == Path("photos/photo0.png").read_bytes()
    written = index.stat()
    assert index.read_bytes() != before
    assert open_source(SourceConfig("webdataset", root=Path("shards")), split="train") is not None
    assert (index.stat().st_mtime_ns, index.stat().st_ino) == (
        written.st_mtime_ns,
        written.st_ino,
    )
