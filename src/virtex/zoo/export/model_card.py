"""The model card, README.md of a model folder: use, data, recipe and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from virtex.models.backbone import Backbone
from virtex.zoo.export.card_scores import Score
from virtex.zoo.export.model import Model
from virtex.zoo.hub import HUB, LOCAL
from virtex.zoo.hub_client import is_repository_name
from virtex.zoo.models import Published, find

TAGS = ("timm", "virtex", "image-feature-extraction")
ZERO_SHOT = "zero-shot-image-classification"
NO_SCORES = """None recorded. Measure the backbone, then export again to list the result here:

    virtex transfer voc07 --init RUN --data.root VOCdevkit --out RUN/results
"""
NO_SCORES_OF_OTHERS = "None was measured by this package.\n"
PAPER = """Karan Desai and Justin Johnson, "VirTex: Learning Visual Representations from Textual
Annotations", CVPR 2021, arXiv:2006.06666"""
IMAGES = """`images` (B, 3, H, W) are RGB, normalised with the mean and standard deviation that
config.json holds."""
OPEN_CLIP = """import open_clip

model, preprocess = open_clip.create_model_from_pretrained("{name}")
tokenizer = open_clip.get_tokenizer("{name}")
model.eval()
vectors = model.encode_text(tokenizer(["a photo of a dog"]), normalize=True)"""
NO_LICENCE = """virtex, the code, is MIT. The licence of the weights depends on the data that they
were trained on; whoever publishes them states it as `license:` at the head of this file.
"""
LICENCE = "virtex, the code, is MIT. The licence of the weights is {license}.\n"
LIMITS = """- It knows what its data show and say: what they leave out or get wrong, and whom they
  describe unfairly, is in the weights too.
- The scores below are all that was measured; nothing is known of other kinds of images.
- It is a research model: check it on your own images before anything depends on it.
"""
LIMITS_OF_CAPTIONS = """- Captions may name what an image does not show, with no sign of doubt.
"""


@dataclass(frozen=True)
class CardConfig:
    """What a card states beside what the model holds."""

    title: str
    repository: str | None = None
    """Repository of the Hugging Face hub, OWNER/NAME, that the model is pushed to."""
    license: str | None = None
    """Licence of the weights, as the hub names it."""
    with_open_clip: bool = False
    """Whether the folder is for open_clip, too."""

    @property
    def name(self) -> str:
        """Name of the model's folder or repository in code."""
        return f"{LOCAL}FOLDER" if self.repository is None else f"{HUB}{self.repository}"


def model_card(model: Model, card: CardConfig, *, scores: Sequence[Score]) -> str:
    """Return the card as Markdown, with front matter for the Hugging Face hub.

    Raises:
        CheckpointError: The run's config cannot be read.
    """
    captions = model.writes_captions
    published = find(model.opened.init)
    title = card.title if card.repository is None else card.repository.partition("/")[2]
    licence = LICENCE.format(license=card.license) if card.license else NO_LICENCE
    sections = [
        _front_matter(model, card, captions=captions),
        f"# {title}\n\n{_origin(model, published)}",
        f"## Use\n\n{_use(model, card, captions=captions)}",
        *_training(model, published),
        f"## Limits\n\n{LIMITS}{LIMITS_OF_CAPTIONS if captions else ''}",
        f"## Scores\n\n{_table(scores) if scores else _no_scores(model, published)}",
        f"## Licence\n\n{licence}",
    ]
    return "\n".join(sections)


def without_folders(value: Any) -> Any:
    """Return plain values, such as a config, with absolute paths cut to their last part.

    So are the keys of a mapping, of which those that would be the same get a number.
    """
    if isinstance(value, Mapping):
        names = [without_folders(name) for name in value]
        if len(set(names)) < len(names):
            names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
        return dict(zip(names, map(without_folders, value.values()), strict=True))
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    path = Path(value.removeprefix(LOCAL))
    return path.name if path.is_absolute() else value


def _front_matter(model: Model, card: CardConfig, *, captions: bool) -> str:
    datasets = _datasets(model.opened.config.get("data"))
    tags = [*TAGS, *(["image-to-text"] if captions else [])]
    values = {
        **({"license": card.license} if card.license else {}),
        "library_name": "open_clip" if card.with_open_clip else "timm",
        "pipeline_tag": ZERO_SHOT if card.with_open_clip else "image-feature-extraction",
        "tags": [*tags, "clip", "open_clip"] if card.with_open_clip else tags,
        **({"datasets": datasets} if datasets else {}),
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _datasets(data: object) -> list[str]:
    """Return the data sets of a run that are on the hub, by their names there."""
    root = data.get("root") if isinstance(data, Mapping) else None
    is_on_hub = isinstance(data, Mapping) and data.get("source") == "huggingface"
    if not (is_on_hub and isinstance(root, str)) or Path(root).exists():
        return []
    name = root.partition("@")[0]
    return [name] if is_repository_name(name) else []


def _origin(model: Model, published: Published | None) -> str:
    name = model.backbone.config.name
    if published is not None:
        return (
            f"The backbone `{name}` of the VirTex project's `{published.name}` ({published.kind}), "
            f"in timm's layout.\n\n- file: <{published.url}>\n- paper: {PAPER}\n"
        )
    if not model.is_run:
        source = Path(model.opened.init).name
        return f"The backbone `{name}` of `{source}`, in timm's layout.\n"
    stored = model.opened.config.get("task", {})
    task = str(stored.get("name") or stored.get("class_path", "an unknown task"))
    return (
        f"The backbone `{name}`, trained by `virtex pretrain` for {model.opened.step} steps on "
        f"the pretext task {task.removesuffix('Config')}.\n"
    )


def _use(model: Model, card: CardConfig, *, captions: bool) -> str:
    is_local = card.repository is None
    init = "FOLDER" if is_local else card.name
    hint = ["# local-dir:FOLDER needs timm 1.0.29; where this is on the hub, hf-hub:OWNER/NAME"]
    lines = [
        "import timm",
        "",
        *(hint if is_local else []),
        f'backbone = timm.create_model("{card.name}", pretrained=True).eval()',
        f"{_grid_line(model.backbone)}  # (B, C, h, w)",
        "features = grid.mean((2, 3))  # (B, C)",
    ]
    if model.is_run:
        lines += ["", "import virtex", "", f'backbone = virtex.load_backbone("{init}")']
    if captions:
        lines += [f'virtex.load_captioner("{init}").caption(["photo.jpg"])']
    if card.with_open_clip:
        lines += ["", *OPEN_CLIP.format(name=card.name).splitlines()]
    code = "\n".join(lines)
    size = f" In training they were {model.image.size} pixels square." if model.is_run else ""
    return f"```python\n{code}\n```\n\n{IMAGES}{size}\n"


def _grid_line(backbone: Backbone) -> str:
    """Return the line of code by which timm computes the grid."""
    if backbone.is_sequence:
        return (
            "(grid,) = backbone.forward_intermediates(\n"
            "    images, indices=1, norm=True, intermediates_only=True\n)"
        )
    moved = ".permute(0, 3, 1, 2)" if backbone.channels_come_last else ""
    return f"grid = backbone.forward_features(images){moved}"


def _training(model: Model, published: Published | None) -> list[str]:
    """Return the sections on data and recipe."""
    if published is not None:
        labels = "object labels" if published.kind == "multilabel_classification" else "captions"
        return [
            f"## Data\n\nCOCO, train2017: images and their {labels}.\n",
            "## Recipe\n\nThe paper's; not recorded in the file that this was made from.\n",
        ]
    if not model.is_run:
        return ["## Data and recipe\n\nNot recorded in the file that this was made from.\n"]
    config = without_folders(model.opened.config)
    data = config.pop("data", {})
    config.pop("out", None)
    return [f"## Data\n\n{_yaml(data)}", f"## Recipe\n\n{_yaml(config)}"]


def _yaml(values: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(_set(values), sort_keys=False)
    return f"```yaml\n{text}```\n"


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not None."""
    return {
        name: _set(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }


def _no_scores(model: Model, published: Published | None) -> str:
    """Return the section on scores if none was measured: the paper's, or how to measure them."""
    if published is not None:
        return (
            f"The paper's, in percent: VOC07 linear mAP {published.voc07:.1f}, ImageNet-1k linear "
            f"top-1 {published.imagenet:.1f}. {NO_SCORES_OF_OTHERS}"
        )
    return NO_SCORES if model.is_run else NO_SCORES_OF_OTHERS


def _table(scores: Sequence[Score]) -> str:
    rows = [
        f"| {score.protocol} | {score.data} | {score.image_size or ''} | "
        f"{score.number} {score.value:.2f} |"
        for score in scores
    ]
    head = ["| protocol | data | image size | score |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"
