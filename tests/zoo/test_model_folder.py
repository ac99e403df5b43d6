"""A folder for the hub: what timm and virtex read, and a card that says what is known."""

import json
import shutil

import pytest
import timm
import timm.data
import torch
import yaml
from PIL import Image

import virtex
from tests.zoo.exported import (
    SIZE,
    SLIM,
    SLIM_CONVNEXT,
    SLIM_VIT,
    exported,
    grid_of,
    images,
    same,
    torchvision_resnet,
    write_run,
)
from tests.zoo.opened import open_backbone
from virtex.data.transforms import ImageConfig
from virtex.errors import DataError
from virtex.zoo.export.model_card import without_folders
from virtex.zoo.export.model_folder import timm_config
from virtex.zoo.init import open_init
from virtex.zoo.models import find
from virtex.zoo.weights_file import save_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "slim")


def result(initialisation, value):
    return {
        "protocol": "voc07",
        "headline": "mAP",
        "numbers": {"mAP": value, "other": 1.0},
        "settings": {"image_size": 224},
        "initialisation": initialisation,
        "data": {
            "train": {"source": "voc", "split": "trainval"},
            "test": {"source": "voc", "split": "test"},
        },
    }


@pytest.mark.parametrize(
    "backbone", [SLIM, SLIM_VIT, SLIM_CONVNEXT], ids=["resnet", "vit", "convnext"]
)
def test_the_lines_on_a_card_load_its_folder_and_give_the_grid(backbone, tmp_path):
    run = write_run(tmp_path / "run", backbone)
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    Image.new("RGB", (80, 70), "red").save(tmp_path / "photo.jpg")
    code = code.replace("FOLDER", str(folder)).replace("photo.jpg", str(tmp_path / "photo.jpg"))
    names = {"images": images()}
    with torch.no_grad():
        exec(code, names)
    expected = grid_of(run.task.backbone)
    torch.testing.assert_close(names["grid"], expected, rtol=1e-5, atol=1e-5)
    assert names["features"].shape == expected.shape[:2]
    assert torch.equal(grid_of(names["backbone"]), expected)


def test_a_model_folder_holds_what_timm_and_virtex_read_and_nothing_else(run, tmp_path):
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "weights.safetensors",
    ]
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert same(network.state_dict(), run.task.backbone.cnn.state_dict())
    data = timm.data.resolve_model_data_config(network)
    assert (data["input_size"], data["mean"]) == ([3, SIZE, SIZE], [0.485, 0.456, 0.406])
    assert data["crop_pct"] == pytest.approx(SIZE / 73)
    classifier = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5)
    assert torch.equal(classifier.conv1.weight, network.conv1.weight)
    captions = [
        virtex.load_captioner(init).caption(Image.new("RGB", (80, 70), "red"))
        for init in (run.folder, folder)
    ]
    assert captions[0] == captions[1]


@pytest.mark.parametrize(("size", "short_side"), [(64, 73), (443, 506), (34, 50), (224, 224)])
def test_timm_resizes_validation_images_as_virtex_does(run, size, short_side):
    image = ImageConfig(size=size, validation_resize=short_side)
    stated = timm_config(run.task.backbone, image)["pretrained_cfg"]
    transform = timm.data.create_transform(
        (3, size, size), interpolation="bilinear", crop_pct=stated["crop_pct"]
    )
    resize, crop, *_ = transform.transforms
    assert resize.size == short_side
    assert crop.size == (size, size)


def test_a_card_states_data_recipe_and_only_the_scores_of_these_weights(tmp_path):
    run = write_run(tmp_path / "run")
    sha256 = open_backbone(run.folder)[1].sha256
    results = tmp_path / "run" / "results"
    results.mkdir()
    for name, initialisation, value in [
        ("mine", {"init": "RUN", "step": 30, "sha256": sha256}, 81.25),
        ("early_stopping", {"init": "RUN", "step": 30}, 82.25),
        ("earlier", {"init": "RUN", "step": 20}, 83.25),
        ("other", {"init": "OTHER", "step": 30, "sha256": "0" * 64}, 84.25),
        ("random", {"init": "random", "step": None, "sha256": None}, 85.25),
    ]:
        (results / f"{name}.json").write_text(json.dumps(result(initialisation, value)))
    card = (exported(run.folder, "huggingface", tmp_path / "model") / "README.md").read_text()
    averaged = tmp_path / "run" / "weights_ema.safetensors"
    shutil.copy(tmp_path / "run" / "weights.safetensors", averaged)
    own = exported(str(averaged), "huggingface", tmp_path / "averaged") / "README.md"
    assert "mAP 81.25" in own.read_text()  # whose digest is stated: here the files are the same
    assert "mAP 82.25" not in own.read_text()
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["library_name"] == "timm"
    assert "license" not in front_matter
    rows = [line for line in card.splitlines() if line.startswith("| voc07")]
    assert rows == [
        "| voc07 | voc trainval -> test | 224 | mAP 82.25 |",
        "| voc07 | voc trainval -> test | 224 | mAP 81.25 |",
    ]
    data, recipe = (
        yaml.safe_load(card.partition(f"## {name}\n\n```yaml\n")[2].partition("```")[0])
        for name in ("Data", "Recipe")
    )
    assert data == {"source": "coco", "root": "COCO", "share": 0.5}
    assert recipe["run"] == {"batch_size": 16, "num_steps": 30}
    assert recipe["backbone"]["name"] == "resnet18"


@pytest.mark.parametrize(
    ("data", "stated"),
    [
        ({"source": "huggingface", "root": "someone/pairs"}, ["someone/pairs"]),
        ({"source": "huggingface", "root": "someone/pairs@v1.0"}, ["someone/pairs"]),
        ({"source": "huggingface", "root": "/data/pairs"}, None),
        ({"source": "coco", "root": "someone/COCO"}, None),
    ],
)
def test_a_card_names_data_sets_of_the_hub_alone(data, stated, run, tmp_path):
    weights = open_init(run.folder)
    config = {**weights.config, "data": data}
    path = tmp_path / "run.safetensors"
    save_weights(path, weights.state, config=config, tokenizer=weights.tokenizer, step=30)
    card = (exported(path, "huggingface", tmp_path / "model") / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1]).get("datasets") == stated


def test_folders_are_cut_wherever_a_config_names_them():
    mix = {"/home/me/cc3m": 0.7, "s3://bucket/pairs": 0.3}
    values = {"init": "local-dir:/home/me/backbone", "data": {"mix": mix, "root": None}}
    assert without_folders(values) == {
        "init": "backbone",
        "data": {"mix": {"cc3m": 0.7, "s3://bucket/pairs": 0.3}, "root": None},
    }
    same = {"/home/me/train": 0.7, "/home/you/train": 0.3}
    assert without_folders(same) == {"train (1)": 0.7, "train (2)": 0.3}


def test_a_published_config_does_not_contain_folders_of_the_trainer(run, tmp_path):
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    for name in ("README.md", "config.json", "weights.safetensors"):
        content = (folder / name).read_bytes()
        assert b"someone" not in content
        assert run.folder.encode() not in content


def test_a_broken_result_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "run" / "results").mkdir()
    (tmp_path / "run" / "results" / "half.json").write_text("{")
    with pytest.raises(DataError, match=r"half\.json is not a transfer result"):
        exported(run.folder, "huggingface", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_folder_of_a_bare_backbone_says_what_is_not_known(tmp_path):
    torch.save(torchvision_resnet("resnet18").state_dict(), tmp_path / "init.pth")
    folder = exported(tmp_path / "init.pth", "huggingface", tmp_path / "model")
    card = (folder / "README.md").read_text()
    assert "Not recorded" in card
    assert "None was measured" in card
    assert "virtex transfer" not in card
    assert "import virtex" not in card
    assert not (folder / "weights.safetensors").exists()


def test_the_card_of_a_published_model_states_paper_address_and_data(tmp_path, monkeypatch):
    name = "multilabel_classification_R_50"
    monkeypatch.setenv("VIRTEX_MIRROR", str(tmp_path))
    torch.save(torchvision_resnet("resnet50").state_dict(), tmp_path / f"{name}.pth")
    card = (exported(name, "huggingface", tmp_path / "model") / "README.md").read_text()
    for told in (name, find(name).url, "arXiv:2006.06666", "train2017: images and their object"):
        assert told in card
    assert "VOC07 linear mAP 86.2, ImageNet-1k linear top-1 46.2" in card
    assert "virtex transfer" not in card


def test_other_files_of_a_folder_stay_when_it_is_overwritten(run, tmp_path):
    (tmp_path / "model" / ".git").mkdir(parents=True)
    (tmp_path / "model" / "README.md").write_text("as it was")
    exported(run.folder, "huggingface", tmp_path / "model", overwrite=True)
    assert "as it was" not in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "model" / ".git").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_overwriting_a_folder_leaves_no_weights_of_another_model(run, tmp_path):
    folder = exported(run.folder, "huggingface", tmp_path / "model")
    torch.save(torchvision_resnet("resnet18").state_dict(), tmp_path / "init.pth")
    exported(tmp_path / "init.pth", "huggingface", folder, overwrite=True)
    assert not (folder / "weights.safetensors").exists()
    assert (folder / "model.safetensors").exists()
