"""Every shipped recipe trains on drawn scenes, with nothing but sizes changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from virtex import config
from virtex.models.textual_head import HeadConfig
from virtex.pretrain import PretrainConfig, parse_pretrain, pretrain
from virtex.study import StudyConfig
from virtex.study.plan import left_out, planned_runs
from virtex.study.scores import measurements
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.moco import MocoConfig

RECIPES = [path.stem for path in config.recipe_paths("pretrain")]
SIZES = """
data: {source: scenes, num_images: 60, num_val_images: 4, image_size: 64}
tokenizer: {vocab_size: 200}
image: {size: 64}
run: {batch_size: 4, num_steps: 2, validate_every: 0, checkpoint_every: 0, device: cpu,
  tensorboard: false}
loader: {num_workers: 0}
num_samples: 0
"""
SMALL_RESNET = "backbone: {options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}\n"
SMALL_VIT = "backbone: {options: {embed_dim: 32, depth: 2, num_heads: 2}}\n"
SMALL_NETWORKS = {"prefix_lm": SMALL_VIT, "cpu_small_vit": SMALL_VIT}
"""Sizes of the recipes whose network is not a ResNet."""
TO_ADAPT = ["--backbone.name", "resnet18", "--early_stopping.protocol", "none"]
"""Flags for a recipe that needs weights and classes (tests/test_adapting.py)."""
PRECISION = "run: {precision: fp32}\n"  # fp16 is for GPUs
TASK_SIZES = {
    "head": {"hidden_size": 64, "num_heads": 1},
    "text": {"hidden_size": 64, "num_heads": 1, "num_layers": 1},
    "regions": {"pyramid_channels": 8, "box_width": 16, "num_proposals": 50},
    "queue_size": 32,
}


def recipe(name: str, out: Path, *arguments: str) -> PretrainConfig:
    needed = ["--data.root", "x", "--out", str(out)]
    return parse_pretrain(["--config", name, *needed, *arguments])


def small(name: str, out: Path) -> PretrainConfig:
    """The recipe with small sizes."""
    network = SMALL_NETWORKS.get(name, SMALL_RESNET)
    sizes = ["--config", SIZES, "--config", network, "--config", PRECISION]
    flags = ["--config", name, "--out", str(out), *sizes]
    if name == "self_critical":  # of a captioner's run (tests/tasks/test_self_critical.py)
        flags += ["--init_parts", "backbone"]
    if name.startswith("adapt_"):
        flags[2:2] = [*TO_ADAPT, "--early_stopping.patience", "0"]
    options = parse_pretrain(flags)
    task_sizes = {
        field: replace(getattr(options.task, field), **size) if isinstance(size, dict) else size
        for field, size in TASK_SIZES.items()
        if hasattr(options.task, field)
    }
    return replace(options, task=replace(options.task, **task_sizes))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_on_scenes(name: str, tmp_path: Path) -> None:
    result = pretrain(small(name, tmp_path / "run"))
    assert (result.step, result.reason) == (2, "finished")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert all(json.loads(line).get("train/loss", 1) > 0 for line in lines)


def test_the_rows_of_the_papers_tables_differ_from_the_base_as_they_say(tmp_path: Path) -> None:
    base = recipe("base", tmp_path)
    assert isinstance(base.task, CaptioningConfig)
    expected = {
        "bicaptioning_R_50_L1_H1024": base,
        **{
            f"bicaptioning_R_50_L{layers}_H{size}": replace(
                base, task=replace(base.task, head=HeadConfig(size, layers))
            )
            for layers, size in [(1, 512), (1, 768), (1, 2048), (2, 1024), (3, 1024), (4, 1024)]
        },
        "bicaptioning_R_101_L1_H1024": replace(
            base, backbone=replace(base.backbone, name="resnet101")
        ),
        "bicaptioning_R_50W2X_L1_H1024": replace(
            base, backbone=replace(base.backbone, name="wide_resnet50_2")
        ),
    }
    best = expected["bicaptioning_R_50_L1_H2048"]
    assert isinstance(best.task, CaptioningConfig)
    expected |= {
        "captioning_R_50_L1_H2048": replace(best, task=replace(best.task, bidirectional=False)),
        "bicaptioning_R_50_L1_H2048_1caption": replace(
            best, data=replace(best.data, num_captions=1)
        ),
        **{
            f"bicaptioning_R_50_L1_H2048_{percent}pct": replace(
                best, data=replace(best.data, share=percent / 100)
            )
            for percent in (10, 20, 50)
        },
    }
    for name, options in expected.items():
        assert recipe(name, tmp_path) == options, name


def test_the_papers_moco_is_its_first_version(tmp_path: Path) -> None:
    options = recipe("moco_coco", tmp_path)
    assert options.task == MocoConfig(128, 65_536, 0.999, 0.07, False)
    assert (options.optim.lr, options.optim.backbone_lr) == (0.03, 0.03)
    assert options.run.num_steps == round(200 * 118_287 / options.run.batch_size)
    assert options.run.batch_size == 256


@pytest.mark.parametrize("path", config.recipe_paths("study"), ids=lambda path: path.stem)
def test_a_study_s_rows_are_valid(path: Path, tmp_path: Path) -> None:
    flags = ["--config", path.stem, "--out", str(tmp_path), "--data.source", "scenes"]
    flags = [*flags, "--target.root", "x"]
    if path.stem.startswith("domain"):  # named, so that no weights are opened
        flags += ["--init", "x", "--pretrain.backbone.name", "resnet18"]
    options = config.parse(StudyConfig, config.with_recipes(flags, "study"), prog="study")
    options = replace(options, roots=dict.fromkeys(left_out(options), tmp_path))
    runs = planned_runs(options)
    for run in runs:
        measured = {one.score.name for one in measurements(options, run)}
        assert {score.name for score in options.scores} - measured <= {"captions"}
    assert len(runs) >= len(options.rows)
    if path.stem == "paper_data_efficiency":
        shares = [(run.options.data.share, run.options.data.num_captions) for run in runs[1:]]
        assert shares == [(0.1, None), (0.2, None), (0.5, None), (1.0, 1), (1.0, None)]
