"""The paper's study, all rows and columns as shipped, on drawn scenes at toy size."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from virtex.config import parse, recipe_paths, with_recipes
from virtex.data.layouts import write_scenes
from virtex.errors import ConfigError, VirTexError
from virtex.study import StudyConfig, study
from virtex.study.checks import check_all
from virtex.study.plan import planned_runs, scored_by_last
from virtex.study.scores import measurements
from virtex.transfer.protocol import Result

LAYOUTS = ("coco", "lvis", "voc", "imagenet", "inaturalist")
COLUMNS = ("VOC07", "ImageNet", "iNaturalist", "COCO", "LVIS", "VOC detection", "captions")
FROZEN = {"VOC07", "ImageNet", "captions"}
"""Columns that train no backbone."""
CUT_IMAGENET = {f"ImageNet-supervised, {share} %" for share in (10, 20, 50)}
SHORT = {
    "paper_annotation_cost": {"MoCo, COCO", "instance segmentation"},
    "paper_backbone": set(),
    "paper_baselines": {"MoCo, COCO", "PIRL, COCO", *CUT_IMAGENET},
    "paper_data_efficiency": set(),
    "paper_depth": set(),
    "paper_tasks": {"MoCo", "instance segmentation"},
    "paper_width": set(),
}
"""Rows of each study of the paper with less than the 300,000 steps from which it chooses."""
IMAGENET = "models--timm--resnet18.tv_in1k"
REVISION = "0" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in every layout."""
    folder = tmp_path_factory.mktemp("paper")
    for layout in LAYOUTS:
        write_scenes(layout, folder / layout, num_train=24, num_val=12, image_size=64)
    return folder


def arguments(folder: Path, out: Path, *more: str, study: str = "paper_toy") -> list[str]:
    """The command line of a study of the data sets in a folder."""
    roots = [("roots.voc", "voc"), ("data.root", "coco"), ("target.root", "voc")]
    roots += [(f"roots.{name}", name) for name in LAYOUTS if name != "voc"]
    given = [part for option, name in roots for part in (f"--{option}", str(folder / name))]
    return [study, *given, "--out", str(out), *more]


def parsed(folder: Path, out: Path, *more: str, study: str = "paper_toy") -> StudyConfig:
    line = with_recipes(["--config", *arguments(folder, out, *more, study=study)], "study")
    return parse(StudyConfig, line, prog="virtex study")


def results(config: StudyConfig) -> dict[tuple[str, str], Result]:
    """The results of a study by row and score."""
    return {
        (run.row.name, one.score.name): Result.read(one.path)
        for run in planned_runs(config)
        for one in measurements(config, run)
        if one.path.exists()
    }


def test_a_row_is_scored_in_all_columns_of_the_paper(folder: Path, tmp_path: Path) -> None:
    config = parsed(folder, tmp_path, "--only", "bicaptioning")
    header, _, line = study(config, processes=1).read_text().splitlines()
    assert all(cell.strip() for cell in line.strip("| ").split("|"))
    assert all(name in header for name in COLUMNS)
    found = results(config)
    assert {score for _, score in found} == set(COLUMNS)
    protocols = {result.protocol for result in found.values()}
    assert protocols == {
        "voc07", "linear-augmented", "inaturalist", "coco-segmentation", "lvis-segmentation",
        "voc-detection", "captioning",
    }  # fmt: skip


def test_all_studies_of_the_paper_are_planned() -> None:
    assert SHORT.keys() == {
        path.stem for path in recipe_paths("study") if path.stem.startswith("paper_")
    } - {"paper_toy"}


@pytest.mark.parametrize("name", SHORT)
def test_the_best_checkpoint_is_chosen_where_a_row_is_long_enough(
    name: str, folder: Path, tmp_path: Path
) -> None:
    config = parsed(folder, tmp_path / "out", study=name)
    runs = [run for run in planned_runs(config) if run.is_pretrained]
    short = {*scored_by_last(config, runs)}
    assert short == SHORT[name]
    for run in runs:
        chosen = run.options.early_stopping
        expected = ("none", 0) if run.row.name in short else ("voc07", 300_000)
        assert (chosen.protocol, chosen.first_step) == expected


@pytest.mark.parametrize("name", ["paper_baselines", "paper_tasks"])
def test_a_study_of_the_paper_can_start_as_it_is(name: str, folder: Path, tmp_path: Path) -> None:
    own = ["--only", "random", "--leave_out_rare", "true"]
    config = parsed(folder, tmp_path / "out", *own, study=name)
    del config.roots["voc"]  # drawn scenes have no VOC2012
    check_all(config, planned_runs(config))


def test_a_row_is_scored_by_the_recipe_that_the_paper_has_for_it(
    folder: Path, tmp_path: Path
) -> None:
    config = parsed(folder, tmp_path / "out", study="paper_baselines")
    planned = {
        (run.row.name, one.score.name): one.options
        for run in planned_runs(config)
        for one in measurements(config, run)
    }
    frozen = {row for (row, score), one in planned.items() if score == "LVIS" and one.frozen_norm}
    assert frozen == {"ImageNet-supervised", *CUT_IMAGENET}
    assert frozen == {
        row
        for (row, score), one in planned.items()
        if score == "LVIS" and not one.task.regions.pyramid_norm
    }
    steep = {
        row for (row, score), one in planned.items() if score == "ImageNet" and one.optim.lr == 30
    }
    assert steep == {"MoCo, COCO"}


def test_a_first_step_after_all_runs_is_refused(folder: Path, tmp_path: Path) -> None:
    config = parsed(folder, tmp_path / "out", "--best_from", "9")
    with pytest.raises(
        ConfigError, match=r"best_from 9 is after the last step of every row, at most 4:"
    ):
        planned_runs(config)


def test_wrong_data_and_weights_are_reported_together_before_anything_runs(
    folder: Path, tmp_path: Path
) -> None:
    swapped = ["--roots.coco", str(folder / "lvis"), "--roots.lvis", str(folder / "coco")]
    wrong = [*swapped, "--data.root", str(folder / "voc"), "--roots.pirl_imagenet", "nowhere.pth"]
    only = ["--only", '["bicaptioning", "PIRL, ImageNet"]']
    config = parsed(folder, tmp_path / "out", *wrong, *only)
    with pytest.raises(VirTexError) as caught:
        study(config)
    named = ["row 'bicaptioning'", "row 'PIRL, ImageNet'"]
    named += [f"score '{name}'" for name in ("COCO", "LVIS", "captions")]
    assert [name for name in named if f"- {name}: " not in str(caught.value)] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_study_that_is_killed_ends_as_one_that_is_not(folder: Path, tmp_path: Path) -> None:
    environment, weights = imagenet_weights(tmp_path / "hub")
    more = ["--roots.moco_imagenet", str(weights), "--roots.pirl_imagenet", str(weights)]
    whole, cut = (parsed(folder, tmp_path / name, *more) for name in ("whole", "cut"))
    program = [sys.executable, "-m", "virtex.cli", "study"]
    to_whole, to_cut = ([*program, *arguments(folder, one.out, *more)] for one in (whole, cut))
    subprocess.run(to_whole, env=environment, check=True, timeout=900)
    reached = [cut.out / "random/seed_0/scores/coco", cut.out / "bicaptioning/seed_0/checkpoints"]
    for path in reached:
        kill_when_there(to_cut, environment, path)
        assert len(results(cut)) < len(results(whole))
    subprocess.run(to_cut, env=environment, check=True, timeout=900)
    rows = [run.row.name for run in planned_runs(cut)]
    cells = {(row, score) for row in rows for score in COLUMNS if score != "captions"}
    assert len(rows) == 10
    assert results(cut).keys() == results(whole).keys() == cells | {("bicaptioning", "captions")}
    assert frozen_numbers(cut) == frozen_numbers(whole)
    assert_same_weights(cut, whole)
    assert (cut.out / "table.md").read_text() == (whole.out / "table.md").read_text()


def frozen_numbers(config: StudyConfig) -> dict[tuple[str, str], dict[str, float]]:
    """The numbers of the columns that train no backbone."""
    return {key: one.numbers for key, one in results(config).items() if key[1] in FROZEN}


def assert_same_weights(first: StudyConfig, second: StudyConfig) -> None:
    for run in planned_runs(first):
        if run.is_pretrained:
            path = (run.folder / "weights.safetensors").relative_to(first.out)
            found, expected = load_file(first.out / path), load_file(second.out / path)
            assert all(torch.equal(value, expected[name]) for name, value in found.items())


def imagenet_weights(hub: Path) -> tuple[dict[str, str], Path]:
    """Put random weights where the hub's client looks for ImageNet's, and return their path."""
    path = hub / IMAGENET / "snapshots" / REVISION / "model.safetensors"
    for file in (path, hub / IMAGENET / "refs" / "main"):
        file.parent.mkdir(parents=True)
    (hub / IMAGENET / "refs" / "main").write_text(REVISION)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18").state_dict(), path)
    own = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | own, path


def kill_when_there(command: list[str], environment: dict[str, str], path: Path) -> None:
    """Run a command in a process group, and kill that once a path exists."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while not path.exists():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
