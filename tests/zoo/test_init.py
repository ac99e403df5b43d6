from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from tests.zoo.opened import open_backbone
from virtex.config import to_dict
from virtex.data.tokenizer import train_tokenizer
from virtex.engine import checkpoint
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.backbones import architecture_of, build_backbone, load_backbone, origin_of
from virtex.zoo.init import open_init, plain_init
from virtex.zoo.weights_file import save_weights

SLIM = BackboneConfig(name="resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})
RUN_CONFIG = {"backbone": to_dict(SLIM), "num_samples": 3}


class SmallTask(nn.Module):
    """Has a backbone, and weights that share memory, as a tied output layer does."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone(SLIM)
        self.words = nn.Linear(4, 6)
        self.output = nn.Linear(4, 6)
        self.output.weight = self.words.weight


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a red ball on a table", "two dogs"], vocab_size=40)


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    return SmallTask().eval()


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18().eval()


@pytest.fixture
def run(tmp_path, task, tokenizer):
    """A run folder with a checkpoint at step 20 and no weights file."""
    folder = tmp_path / "run"
    values = {"task": task.state_dict(), "config": RUN_CONFIG, "step": 20}
    checkpoint.save(folder / "checkpoints" / "step_00000020.pt", values)
    tokenizer.save(folder / "tokenizer.model")
    return folder


def save(path, task, tokenizer, step=30):
    save_weights(path, task.state_dict(), config=RUN_CONFIG, tokenizer=tokenizer, step=step)
    return path


def grid_of(backbone):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.eval()(images)


def torchvision_grid(resnet):
    stages = nn.Sequential(*list(resnet.children())[:-2])
    return grid_of(stages)


def test_a_weights_file_gives_back_what_was_saved(tmp_path, task, tokenizer):
    weights = open_init(save(tmp_path / "new" / "weights.safetensors", task, tokenizer))
    assert weights.config == RUN_CONFIG
    assert weights.tokenizer == tokenizer
    assert weights.step == 30
    expected = task.state_dict()
    assert weights.state.keys() == expected.keys()
    assert all(torch.equal(weights.state[name], value) for name, value in expected.items())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights.safetensors"]


@contextmanager
def files_up_to(num_bytes):
    """No file of this process may grow beyond `num_bytes`, pytest's own output included."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are a Unix matter")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_the_disk_cannot_hold_leaves_the_old_file_and_no_other(
    tmp_path, task, tokenizer
):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")
    with (
        pytest.raises(CheckpointError, match=r"cannot write .*Free some space"),
        files_up_to(10_000),
    ):
        save(path, task, tokenizer)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, task, tokenizer):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError, match=r"cannot write .*file is no folder.*choose another path"
    ):
        save(tmp_path / "file" / "weights.safetensors", task, tokenizer)


@pytest.mark.parametrize("form", ["folder", "weights", "folder with weights", "checkpoint"])
def test_a_backbone_comes_back_from_each_form_of_a_run(form, run, task, tokenizer):
    init, step = run, 20
    if form == "checkpoint":
        init = run / "checkpoints" / "step_00000020.pt"
    elif form != "folder":
        weights, step = save(run / "weights.safetensors", task, tokenizer), 30
        init = weights if form == "weights" else run
    backbone, initialisation = open_backbone(init)
    assert torch.equal(grid_of(backbone), grid_of(task.backbone))
    assert (initialisation.init, initialisation.step) == (str(init), step)
    assert initialisation.backbone == SLIM
    assert len(initialisation.sha256) == 64


def test_a_loaded_backbone_is_in_evaluation_mode(run):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for backbone in (load_backbone(run), load_backbone("random", config=SLIM)):
        assert not backbone.training
        with torch.no_grad():
            together, alone = backbone(images)[:1], backbone(images[:1])
        torch.testing.assert_close(together, alone)


def test_a_checkpoint_has_the_classes_of_the_weights_beside_it(run, task, tokenizer, caplog):
    path = run / "checkpoints" / "step_00000020.pt"
    assert open_init(path).categories == ()
    weights = run / "weights.safetensors"
    save_weights(
        weights, task.state_dict(), config=RUN_CONFIG, tokenizer=None, step=3, categories=["dog"]
    )
    assert open_init(path).categories == ("dog",)
    weights.write_bytes(b"cut")
    assert open_init(path).categories == ()
    assert "names of the classes" in caplog.text


def test_a_checkpoint_that_lacks_its_task_is_refused(tmp_path):
    path = tmp_path / "checkpoints" / "step_00000020.pt"
    checkpoint.save(path, {"config": RUN_CONFIG, "step": 20})
    with pytest.raises(CheckpointError, match=r"holds no state dict: found .*config"):
        open_backbone(path)


@pytest.mark.parametrize(
    "broken", [{"task": [1, 2]}, {"task": {"backbone.cnn.conv1.weight": 3}}, {"config": [1]}]
)
def test_a_checkpoint_whose_parts_are_of_other_types_is_refused(run, broken):
    path = run / "checkpoints" / "step_00000020.pt"
    checkpoint.save(path, checkpoint.load(path) | broken)
    with pytest.raises(CheckpointError, match="its task or config is no mapping"):
        open_backbone(path)


def test_a_git_lfs_pointer_is_named_whatever_its_suffix(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_backbone(path)


def test_a_checkpoint_named_from_its_own_folder_has_the_tokenizer_of_its_run(
    run, tokenizer, monkeypatch
):
    monkeypatch.chdir(run / "checkpoints")
    assert open_init("step_00000020.pt").tokenizer == tokenizer


def test_a_checkpoint_under_another_name_is_recognised(run, task):
    path = (run / "checkpoints" / "step_00000020.pt").rename(run / "best.pth")
    backbone, initialisation = open_backbone(path)
    assert torch.equal(grid_of(backbone), grid_of(task.backbone))
    assert initialisation.step == 20


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"version": "one", "config": "{}", "step": "3"},
        {"version": "1"},
        {"version": "1", "config": "{", "step": "3"},
        {"version": "1", "config": "[]", "step": "3"},
        {"version": "1", "config": "{}", "step": "x"},
    ],
)
def test_metadata_that_cannot_be_read_are_refused(metadata, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"format": "virtex", **metadata})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors (is|holds)"):
        open_backbone(path)


def test_the_backbone_is_found_inside_a_captioner_and_not_in_its_momentum_copy(
    tmp_path, task, tokenizer
):
    inner = {f"captioner.{name}": value for name, value in task.state_dict().items()}
    other = {f"momentum_copy.{name}": value + 1 for name, value in task.state_dict().items()}
    path = tmp_path / "weights.safetensors"
    save_weights(path, {**inner, **other}, config=RUN_CONFIG, tokenizer=tokenizer, step=1)
    assert torch.equal(grid_of(open_backbone(path)[0]), grid_of(task.backbone))


def test_random_is_a_function_of_its_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (
        grid_of(open_backbone("random", config=SLIM, seed=s)[0]) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())
    assert open_backbone("random", config=SLIM)[1].backbone == SLIM


def test_frozen_comes_from_the_caller_and_not_from_the_file(run):
    frozen = replace(SLIM, frozen=True)
    assert not any(p.requires_grad for p in open_backbone(run, config=frozen)[0].parameters())
    assert all(p.requires_grad for p in open_backbone(run)[0].parameters())


@pytest.mark.parametrize("kind", ["bare", "old", "wrapped", "moco", "virtex", "data parallel"])
def test_published_resnets_load_whatever_their_prefix(kind, tmp_path, resnet18):
    state = resnet18.state_dict()
    values = {
        "bare": state,
        "old": {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
        "wrapped": {"epoch": 90, "arch": "resnet18", "state_dict": state},
        "moco": {
            "epoch": 200,
            "state_dict": {
                **{f"module.encoder_q.{name}": value for name, value in state.items()},
                **{f"module.encoder_k.{name}": 0 * value for name, value in state.items()},
                "module.encoder_q.fc.2.bias": torch.zeros(128),
                "module.queue": torch.zeros(128, 10),
            },
        },
        "virtex": {
            "model": {
                **{f"visual.cnn.{name}": v for name, v in state.items() if "fc" not in name},
                "textual.output.bias": torch.zeros(4),
            },
            "iteration": 500_000,
        },
        "data parallel": {"state_dict": {f"module.{name}": v for name, v in state.items()}},
    }[kind]
    path = tmp_path / "model.pth"
    torch.save(values, path, _use_new_zipfile_serialization=kind != "moco")
    backbone, initialisation = open_backbone(path)
    torch.testing.assert_close(grid_of(backbone), torchvision_grid(resnet18))
    assert initialisation.backbone == BackboneConfig(name="resnet18")
    assert initialisation.step is None


def test_a_file_that_lacks_weights_or_has_too_many_names_them(tmp_path, resnet18):
    state = resnet18.state_dict()
    del state["layer3.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        open_backbone(path)
    message = str(caught.value)
    assert "1 missing: layer3.0.conv1.weight" in message
    assert "1 unexpected: layer9.weight" in message
    assert "1 of another shape: bn1.bias is (3,), must be (64,)" in message


def test_another_architecture_than_the_requested_one_is_refused(run, tmp_path, resnet18):
    with pytest.raises(CheckpointError, match=r"resnet18 with options .*but resnet34 .* requested"):
        open_backbone(run, config=BackboneConfig(name="resnet34"))
    path = tmp_path / "model.pth"
    torch.save(resnet18.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"missing: layer1\.0\.bn3"):
        open_backbone(path, config=BackboneConfig(name="resnet50"))
    tagged = BackboneConfig(name="resnet18.tv_in1k", options=SLIM.options)
    assert torch.equal(
        grid_of(open_backbone(run, config=tagged)[0]), grid_of(open_backbone(run)[0])
    )


@pytest.mark.parametrize("name", ["model.pth", "weights.safetensors"])
def test_a_file_cut_short_or_altered_is_refused(name, tmp_path, task, tokenizer):
    path = tmp_path / name
    if name == "model.pth":
        torch.save(task.backbone.cnn.state_dict(), path)
    else:
        save(path, task, tokenizer)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        open_backbone(path)


def test_safetensors_of_others_and_of_newer_versions_are_refused(tmp_path, task, tokenizer):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no known backbone: its keys are weight"):
        open_backbone(path)
    save_file(
        {"tokenizer": torch.zeros(2)}, path, {"format": "virtex", "version": "2", "config": "{}"}
    )
    with pytest.raises(CheckpointError, match="upgrade virtex"):
        open_backbone(path)


def test_an_init_that_does_not_exist_lists_what_is_allowed(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"'imagnet': no such file or folder\. Did .* INIT is ra"
    ):
        open_backbone("imagnet")
    with pytest.raises(CheckpointError, match="no run folder that has been trained"):
        open_backbone(tmp_path)
    with pytest.raises(ConfigError, match="unknown backbone 'resnet5'"):
        open_backbone("random", config=BackboneConfig(name="resnet5"))


def test_imagenet_without_a_network_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="cannot get the published weights of 'resnet50"):
        open_backbone("imagenet")


def test_the_weights_that_imagenet_means_are_logged_and_recorded(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    opened, named = open_init("imagenet"), BackboneConfig("resnet101", frozen=True)
    recorded = BackboneConfig("resnet101.tv_in1k", pretrained=True, frozen=True)
    assert origin_of(opened, architecture_of(opened, named)).backbone == recorded
    with caplog.at_level("INFO", "virtex"), pytest.raises(CheckpointError, match="cannot get"):
        build_backbone(opened, config=named)
    assert "imagenet: takes timm's weights resnet101.tv_in1k" in caplog.text


def test_a_record_of_the_same_weights_is_the_same_however_init_is_spelled(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    spellings = (run.name, f"./{run.name}", f"{run.name}/", f"./{run.name}//")
    plain, *others = (origin_of(open_init(each)).record() for each in spellings)
    assert plain["init"] == run.name
    assert all(each == plain for each in others)


@pytest.mark.parametrize(
    ("init", "plain"),
    [
        ("./a/b/", "a/b"),
        ("/a//b", "/a/b"),
        ("./", "."),
        ("local-dir:./a/", "local-dir:a"),
        ("hf-hub:a/b@./c", "hf-hub:a/b@./c"),
        ("./random", "./random"),  # a folder, and not random weights
        ("./local-dir:a", "./local-dir:a"),
        ("~/a/../b", "~/a/../b"),
    ],
)
def test_an_init_is_spelled_plainly_where_it_means_the_same(init, plain):
    assert plain_init(init) == plain
