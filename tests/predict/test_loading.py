import pytest
import torch

from tests.predict.small_captioner import IMAGE, SLIM, TASK, TEXTS
from virtex.config import to_dict
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Predictor
from virtex.tasks.captioning import CaptioningConfig
from virtex.zoo.init import open_init
from virtex.zoo.released import to_released
from virtex.zoo.weights_file import save_weights


def run_config(task_config=TASK, **changes):
    parts = {"backbone": SLIM, "image": IMAGE}
    named = {"class_path": type(task_config).__name__, "init_args": to_dict(task_config)}
    return {**{name: to_dict(part) for name, part in parts.items()}, "task": named, **changes}


def test_the_loaded_captioner_writes_the_captions_of_the_saved_one(
    tmp_path, task, tokenizer, predictor, images
):
    path = tmp_path / "weights.safetensors"
    save_weights(path, task.state_dict(), config=run_config(), tokenizer=tokenizer, step=7)
    before = torch.random.get_rng_state()
    loaded = load_captioner(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.caption(images) == predictor.caption(images)
    with pytest.raises(ConfigError, match="has its own tokenizer"):
        load_captioner(path, tokenizer=tokenizer)


def test_a_released_file_needs_the_tokenizer_that_it_was_trained_with(tmp_path, tokenizer, images):
    torch.manual_seed(1)
    captioner = Captioner(
        Backbone(BackboneConfig("resnet18")), TASK.head, len(tokenizer), bidirectional=True
    ).eval()
    path = tmp_path / "released.pth"
    torch.save({"model": to_released(captioner.state_dict())}, path)
    tokenizer.save(tmp_path / "released.model")
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_captioner(path)
    with pytest.raises(ConfigError, match=r"has 40 pieces, .* was trained with 60"):
        load_captioner(path, tokenizer=train_tokenizer(TEXTS, vocab_size=40))
    loaded = load_captioner(path, tokenizer=tmp_path / "released.model")
    expected = Predictor(captioner, tokenizer, ImageConfig()).caption(images[:2])
    assert loaded.caption(images[:2]) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "its config has no readable backbone, task or image: .*task"),
        (
            run_config(backbone={"name": 3, "depth": 5}),
            "its config has no readable backbone, task or image",
        ),
        (
            run_config(task={"class_path": "os.PathLike"}),
            "no task 'os.PathLike'",
        ),
        (
            run_config(CaptioningConfig(head=HeadConfig(hidden_size=128, max_tokens=12))),
            "does not fit the architecture: .* of another shape",
        ),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(
    config, message, tmp_path, task, tokenizer
):
    path = tmp_path / "weights.safetensors"
    save_weights(path, task.state_dict(), config=config, tokenizer=tokenizer, step=7)
    with pytest.raises(CheckpointError, match=message):
        load_captioner(path)


def test_an_unknown_device_or_precision_is_refused(tmp_path, task, tokenizer):
    save_weights(
        tmp_path / "weights.safetensors",
        task.state_dict(),
        config=run_config(),
        tokenizer=tokenizer,
        step=7,
    )
    with pytest.raises(ConfigError, match="precision 'banana' is none of fp32, bf16"):
        load_captioner(tmp_path, precision="banana")
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used"):
        load_captioner(tmp_path, device="gpu")
    assert load_captioner(tmp_path, device="auto").device.type in ("cpu", "cuda", "mps")


def test_a_bare_backbone_is_named_as_one_before_a_tokenizer_is_requested(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save(Backbone(BackboneConfig("resnet18")).cnn.state_dict(), path)
    with pytest.raises(
        CheckpointError, match="holds no released captioning model, but a backbone model"
    ):
        load_captioner(path)


def test_an_opened_backbone_is_refused_like_its_name():
    with pytest.raises(CheckpointError, match="imagenet is a backbone alone"):
        load_captioner(open_init("imagenet"))
