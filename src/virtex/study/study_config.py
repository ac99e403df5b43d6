"""The options of a study: its rows, its columns, and how each row's learning rate is chosen."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from virtex.data.source import SourceConfig

GIVEN, TARGET = "given", "target"
"""An `init` of rows that stands for the study's, and a `root` for the target's training images."""


DRAW_STRIDE = 1000
"""Distance of the random seeds of two draws, larger than the seeds of rows usually are."""


@dataclass(frozen=True)
class Row:
    """A row of the table: an initialisation, pretrained once per random seed."""

    name: str
    """Name in the table."""
    recipes: list[str] = field(default_factory=list)
    """Pretraining recipes, applied after the study's."""
    pretrain: dict[str, Any] | None = field(default_factory=dict)
    """Pretraining options that differ from the study's; null: no pretraining, `init` itself."""
    times: float = 1.0
    """Factor of the number of steps (or epochs) that the row would have otherwise: for longer
    training, whatever the length of the others."""
    init: str = "random"
    """Weights that the row begins with: random, a file, a published name, or `given`, the study's
    `init`."""
    seeds: list[int] | None = None
    """Random seeds, one run each, instead of the study's."""
    score_recipes: dict[str, str] = field(default_factory=dict)
    """Recipe of `virtex transfer` by the name of a score, instead of the protocol's own: for
    weights that a protocol trains otherwise, {LVIS: lvis_segmentation_imagenet}."""
    annotation_hours: float | None = None
    """Hours of work that the row's annotations took, for a column of the table."""
    root: str | None = None
    """Name in `roots` of the pretraining data's folder, instead of `data.root`, or without
    pretraining of the weights, instead of `init`; a row for which none is given is left out.
    `target` trains on the study's `target`, its `train_split` (by default train, of VOC too, where
    voc07 trains on trainval), and logs losses on its `val_split`; the short runs of `tune` leave
    out the images that score."""


@dataclass(frozen=True)
class Score:
    """A column of the table: a protocol of `virtex transfer`, with options of its own."""

    name: str
    """Name in the table."""
    protocol: str = "voc07"
    """Name of the protocol."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the protocol that differ from the study's: {shots: 5}, {data: {root: DIR}}."""
    numbers: list[str] = field(default_factory=list)
    """Numbers of the result, one column each, such as [mask_AP, box_AP]; by default the protocol's
    headline."""
    root: str | None = None
    """Name in `roots` of the data's folder, instead of `target`; a column whose folder is not given
    is left out."""
    draws: int = 1
    """Repetitions, of which the table takes the mean: for few labels. The random seed is the row's
    and 1000 more for each further one, so that more can be added to a finished study."""


@dataclass(frozen=True)
class Tuning:
    """Choice of each row's learning rates, by short runs scored on the target's training images."""

    factors: list[float] = field(default_factory=list)
    """Factors of the row's optim.lr and optim.backbone_lr to try; none: rates stay as they are."""
    num_steps: int = 400
    """Steps of each short run, whose schedule is as long."""
    protocol: Literal["voc07", "linear"] = "voc07"
    """voc07: an SVM per class, for images with several labels; linear: a linear classifier."""
    held_out: float = 0.5
    """Fraction of the target's training images that score; the rest are trained on. Its test images
    take no part."""
    seed: int = 0
    """Random seed of the short runs and of the images held out."""


@dataclass(frozen=True)
class StudyConfig:
    """Options of `virtex study`; rows, scores, recipes and pretrain belong in a recipe."""

    out: Path
    """Folder of the runs, the results, table.md and report.html; an existing study is resumed."""
    rows: list[Row]
    """Rows of the table, in order."""
    scores: list[Score] = field(default_factory=list)
    """Columns of the table; by default VOC07 on `target`."""
    tune: Tuning = field(default_factory=Tuning)
    recipes: list[str] = field(default_factory=list)
    """Pretraining recipes of all rows."""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """Pretraining options of all rows."""
    init: str | None = None
    """Weights of rows whose `init` is `given`. All rows, random ones too, have their network and
    the normalization of its images, unless `pretrain` names a backbone."""
    row_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Pretraining options of single rows by their names, which win over all others: {bicaptioning:
    {run: {num_steps: 100}}} changes a row of a recipe without a copy of it."""
    score_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of single columns by the names of their scores, which win over all others."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Random seeds of every row that has none of its own; the table shows mean and standard
    deviation."""
    image_size: int = 224
    """Side of the images in the transfer on frozen features and to classes, in pixels."""
    data: SourceConfig = field(default_factory=SourceConfig)
    """Data of the pretraining."""
    target: SourceConfig = field(default_factory=lambda: SourceConfig(source="voc"))
    """Data of the scores: for VOC07 any source with several labels per image."""
    roots: dict[str, Path] = field(default_factory=dict)
    """Folders of further data, by the names that rows and scores have for them: {imagenet: DIR}."""
    best_from: int | None = None
    """First step of the checkpoints of which each run keeps the best by VOC07 on `target`; the
    paper's is 300,000. By default, and of a row with fewer steps, the last checkpoint is scored."""
    num_workers: int = 2
    """Worker processes that decode images for the transfer, and threads that fit SVMs."""
    leave_out_rare: bool = False
    """VOC07: leave out classes with too few images in `target`, instead of raising an error."""
    only: list[str] | str | None = None
    """Row to run, or a list of rows; the table shows all existing scores."""

    def seeds_of(self, row: Row) -> list[int]:
        """Return the random seeds of a row."""
        return self.seeds if row.seeds is None else row.seeds

    @property
    def names_network(self) -> bool:
        """Whether the pretraining options of all rows name their network."""
        backbone = self.pretrain.get("backbone")
        return isinstance(backbone, Mapping) and "name" in backbone

    def root_names(self) -> set[str]:
        """Return the names in `roots` that rows and scores have."""
        names = {row.root for row in self.rows} | {score.root for score in self.scores}
        return {name for name in names if name is not None and name != TARGET}


def folder_name(name: str) -> str:
    """Return the name of a row or column as that of a folder."""
    return re.sub(r"\W+", "_", name).lower()


def columns_of(score: Score) -> dict[str, str]:
    """Return the names of a score's numbers by the names of their columns."""
    if len(score.numbers) <= 1:
        return {score.name: "".join(score.numbers)}
    return {f"{score.name}, {name}": name for name in score.numbers}
