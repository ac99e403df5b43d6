from functools import partial
from pathlib import Path

import pytest
import torch

import virtex
from tests.zoo.file_server import Served, serving
from tests.zoo.opened import open_backbone
from virtex.data.tokenizer import train_tokenizer
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.zoo import models
from virtex.zoo.init import open_init
from virtex.zoo.models import MODELS, Storage, fetch, find, names, storage_from, table
from virtex.zoo.released import to_released

BEST = "bicaptioning_R_50_L1_H2048"
VOCABULARY = 60


@pytest.fixture(autouse=True)
def own_storage(monkeypatch, tmp_path):
    """An empty cache, and a mirror that holds nothing yet: no test reaches a network."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("VIRTEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIRTEX_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def tokenizer():
    return train_tokenizer(["a red ball on the table", "two dogs"], vocab_size=VOCABULARY)


def small_captioner(name="resnet50", width=512, *, bidirectional=True):
    head = HeadConfig(width, feedforward_size=8, max_tokens=5)
    return Captioner(
        Backbone(BackboneConfig(name)), head, VOCABULARY, bidirectional=bidirectional
    ).eval()


def mirrored(tmp_path, file_name, model):
    torch.save({"model": to_released(model.state_dict())}, tmp_path / "mirror" / file_name)


def test_every_name_of_the_papers_tables_is_there():
    tables = {
        "task_ablations": [
            BEST,
            "captioning_R_50_L1_H2048",
            "token_classification_R_50",
            "multilabel_classification_R_50",
            "masked_lm_R_50_L1_H2048",
        ],
        "width_ablations": [f"bicaptioning_R_50_L1_H{h}" for h in (512, 768, 1024, 2048)],
        "depth_ablations": [f"bicaptioning_R_50_L{n}_H1024" for n in (1, 2, 3, 4)],
        "backbone_ablations": [f"bicaptioning_{r}_L1_H1024" for r in ("R_50", "R_50W2X", "R_101")],
    }
    expected = {f"{folder}/{name}" for folder, rows in tables.items() for name in rows}
    assert {model.name for model in MODELS} == {*expected, f"backbone_{BEST}"}


def test_kind_and_architecture_follow_from_names():
    masked = find("masked_lm_R_50_L1_H2048")
    assert (masked.kind, masked.backbone.name) == ("masked_lm", "resnet50")
    deep = find("depth_ablations/bicaptioning_R_50_L3_H1024")
    assert (deep.head.num_layers, deep.head.hidden_size) == (3, 1024)
    wide = find("bicaptioning_R_50W2X_L1_H1024")
    assert (wide.kind, wide.backbone.name) == ("bicaptioning", "wide_resnet50_2")
    assert find("token_classification_R_50").head is None
    alone = find(f"backbone_{BEST}")
    assert (alone.kind, alone.head, alone.backbone.name) == ("backbone", None, "resnet50")


def test_models_of_one_short_name_are_one_file_with_one_score():
    by_file = {}
    for model in MODELS:
        by_file.setdefault(model.file_name, set()).add((model.url, model.voc07, model.imagenet))
    assert all(len(facts) == 1 for facts in by_file.values())
    addresses = {address for facts in by_file.values() for address, _, _ in facts}
    assert len(addresses) == len(by_file)
    assert all(address.startswith("https://") for address in addresses)


def test_the_original_projects_names_are_known_too():
    assert find(f"width_ablations/{BEST}.yaml") == find(f"width_ablations/{BEST}")


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(CheckpointError, match=rf"Did you mean .*{BEST}"):
        fetch("bicaptioning_R50_L1_H2048")
    with pytest.raises(CheckpointError, match=rf"no such file or folder\. Did you mean .*{BEST}"):
        virtex.load_backbone("bicaptioning_R50_L1_H2048")


def test_a_file_or_folder_of_that_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(BEST) is not None
    Path(BEST).mkdir()
    assert find(BEST) is None
    with pytest.raises(CheckpointError, match="no run folder that has been trained"):
        open_backbone(BEST)


def test_cache_and_mirror_come_from_the_environment():
    home = Path.home() / ".cache" / "virtex"
    assert storage_from({}) == Storage(home, None)
    assert storage_from({"XDG_CACHE_HOME": "/x", "VIRTEX_MIRROR": ""}) == Storage(Path("/x/virtex"))
    both = {"VIRTEX_CACHE": "/c", "XDG_CACHE_HOME": "/x", "VIRTEX_MIRROR": "https://m"}
    assert storage_from(both) == Storage(Path("/c"), "https://m")


def test_a_mirrors_address_serves_a_file_once(tmp_path):
    served = Served(b"\x80 weights")
    with serving(served) as url:
        storage = Storage(tmp_path / "cache", url.removesuffix("file.pth"))
        paths = [fetch(name, storage=storage) for name in (f"task_ablations/{BEST}", BEST)]
    assert paths == [tmp_path / "cache" / f"{BEST}.pth"] * 2
    assert paths[0].read_bytes() == b"\x80 weights"
    assert served.num_requests == 1


def test_a_file_that_is_no_torch_file_never_enters_the_cache(tmp_path):
    with serving(Served(b'{"error": "gone"}')) as url:
        storage = Storage(tmp_path / "cache", url.removesuffix("file.pth"))
        with pytest.raises(CheckpointError, match="is another file than expected"):
            fetch(BEST, storage=storage)
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_a_damaged_file_in_the_cache_is_named_with_what_to_do(tmp_path, monkeypatch, tokenizer):
    monkeypatch.delenv("VIRTEX_MIRROR")
    cached = tmp_path / "cache" / f"{BEST}.pth"
    cached.parent.mkdir()
    cached.write_bytes(b"PK\x03\x04 cut short")
    for load in (virtex.load_backbone, partial(virtex.load_captioner, tokenizer=tokenizer)):
        with pytest.raises(
            CheckpointError, match=rf"damaged.*Remove {cached} to download it again"
        ):
            load(BEST)


def test_a_mirror_that_is_no_address_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot download http://\[bad"):
        fetch(BEST, storage=Storage(tmp_path, "http://[bad"))


@pytest.mark.parametrize("text", ["~nobody_of_that_name/run", "x" * 300])
def test_a_text_that_cannot_be_a_path_is_refused(text, monkeypatch):
    for load in (virtex.load_backbone, virtex.load_captioner, models.find, open_init):
        with pytest.raises(CheckpointError, match="cannot be a path here"):
            load(text)
    with pytest.raises(CheckpointError, match="cannot be a path here"):
        storage_from({"VIRTEX_CACHE": text})


def test_a_published_file_that_writes_no_captions_is_recognised_by_its_name(tmp_path, tokenizer):
    path = tmp_path / "mirror" / "masked_lm_R_50_L1_H2048.pth"
    mirrored(tmp_path, path.name, small_captioner(bidirectional=False))
    with pytest.raises(CheckpointError, match="is a masked_lm model, which writes no captions"):
        virtex.load_captioner(path, tokenizer=tokenizer)
    path.rename(tmp_path / "mine.pth")
    virtex.load_captioner(tmp_path / "mine.pth", tokenizer=tokenizer)


@pytest.mark.parametrize("init", ["random", "imagenet"])
def test_a_bare_initialisation_writes_no_captions(init):
    with pytest.raises(CheckpointError, match=f"^{init} is a backbone alone, which writes no"):
        virtex.load_captioner(init)


def test_a_mirrors_folder_is_used_where_it_is(tmp_path):
    with pytest.raises(CheckpointError, match=rf"no file .*{BEST}\.pth.*VIRTEX_MIRROR"):
        fetch(BEST)
    (tmp_path / "mirror" / f"{BEST}.pth").write_bytes(b"")
    assert fetch(BEST) == tmp_path / "mirror" / f"{BEST}.pth"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(CheckpointError, match="must be a folder that holds it, or the http"):
        fetch(BEST, storage=Storage(tmp_path, f"file://{tmp_path}/mirror"))


def test_a_published_name_is_an_init(tmp_path):
    backbone = Backbone(BackboneConfig("resnet50"))
    mirrored(tmp_path, f"backbone_{BEST}.pth", backbone)
    loaded, initialisation = open_backbone(f"backbone_{BEST}")
    assert torch.equal(loaded.cnn.conv1.weight, backbone.cnn.conv1.weight)
    assert initialisation.init == f"backbone_{BEST}"


def test_a_captioner_is_loaded_by_its_published_name(tmp_path, tokenizer):
    captioner = small_captioner()
    mirrored(tmp_path, "bicaptioning_R_50_L1_H512.pth", captioner)
    loaded = virtex.load_captioner("bicaptioning_R_50_L1_H512", tokenizer=tokenizer)
    assert torch.equal(loaded.captioner.head.output_bias, captioner.head.output_bias)
    backbone = virtex.load_backbone("bicaptioning_R_50_L1_H512")
    assert torch.equal(backbone.cnn.conv1.weight, captioner.backbone.cnn.conv1.weight)


def test_a_wrong_file_is_refused_with_its_content(tmp_path, tokenizer):
    mirrored(tmp_path, "bicaptioning_R_101_L1_H1024.pth", small_captioner())
    with pytest.raises(CheckpointError, match=r"holds a resnet50, but .* with a resnet101"):
        open_backbone("bicaptioning_R_101_L1_H1024")
    expected = "found bicaptioning resnet50 L1 H512; expected bicaptioning resnet101 L1 H1024"
    with pytest.raises(CheckpointError, match=expected):
        virtex.load_captioner("bicaptioning_R_101_L1_H1024", tokenizer=tokenizer)
    mirrored(tmp_path, "bicaptioning_R_50_L1_H512.pth", small_captioner(bidirectional=False))
    with pytest.raises(CheckpointError, match="found captioning resnet50 L1 H512; expected bicap"):
        virtex.load_captioner("bicaptioning_R_50_L1_H512", tokenizer=tokenizer)


def test_another_architecture_than_the_published_one_is_not_forced_on_it(tmp_path):
    mirrored(tmp_path, f"backbone_{BEST}.pth", Backbone(BackboneConfig("resnet50")))
    with pytest.raises(CheckpointError, match=r"holds a resnet50 .* but resnet101 .* requested"):
        open_backbone(f"backbone_{BEST}", config=BackboneConfig("resnet101"))


def test_errors_are_reported_before_anything_is_downloaded(tokenizer):
    with pytest.raises(CheckpointError, match="is a masked_lm model, which writes no captions"):
        virtex.load_captioner("masked_lm_R_50_L1_H2048", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match=rf"{BEST} holds no tokenizer.*--tokenizer.*docs/zoo\.md"):
        virtex.load_captioner(BEST)


def test_the_table_has_a_row_for_each_model_and_says_whose_numbers_they_are():
    rows = table().splitlines()
    assert len(rows) == 2 + len(MODELS) + 2
    assert "| task_ablations/masked_lm_R_50_L1_H2048 | masked_lm | 86.4 | 46.7 |" in rows
    assert rows[-1].startswith("Scores are the paper's")


def test_docs_hold_the_table():
    docs = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
    assert table() in docs.read_text()


def test_short_and_full_names_are_listed():
    assert {BEST, f"task_ablations/{BEST}", f"width_ablations/{BEST}"} <= set(names())
    assert models.find("resnet50") is None
