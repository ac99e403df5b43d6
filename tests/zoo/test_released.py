import importlib.util
import json
from pathlib import Path

import pytest
import torch

from tests.real_data import real
from tests.zoo.opened import foreign
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import DIRECTIONS
from virtex.models.textual_head import HeadConfig
from virtex.zoo.foreign import unwrap
from virtex.zoo.released import load_released, released_layout, to_released

PATH = Path("released.pth")


def reference_file(name):
    return real(f"reference/{name}")


@pytest.fixture(scope="module")
def values():
    """The module that makes weights, images and captions of the reference."""
    spec = importlib.util.spec_from_file_location("weights", reference_file("weights.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected():
    return json.loads(reference_file("bicaptioning_post_L1_H128.json").read_text())


@pytest.fixture(scope="module")
def released(values, expected):
    return {
        name: torch.as_tensor(values.value(name, tuple(shape)))
        for name, shape in expected["keys"].items()
    }


@pytest.fixture(scope="module")
def captioner(released):
    return load_released(foreign(unwrap({"model": released, "iteration": 500_000}, PATH)))


@pytest.fixture(scope="module")
def batch(values, expected):
    size, resolution, seed = expected["batch"], expected["resolution"], expected["seed"]
    tokens, _, lengths = values.captions(size, expected["max_tokens"], 1000, seed)
    images = values.images(size, resolution, seed)
    return torch.as_tensor(images), torch.as_tensor(tokens), torch.as_tensor(lengths)


def flat(numbers):
    return torch.tensor(numbers).flatten()


@torch.no_grad()
def test_a_released_models_grid_is_as_recorded(captioner, batch, expected):
    grid = captioner.backbone(batch[0])
    probe = grid[:, ::256, 1, 2].flatten()
    torch.testing.assert_close(probe, flat(expected["feature_probe"]), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_released_models_losses_are_as_recorded(captioner, batch, expected):
    for direction, loss in captioner.loss(*batch).items():
        recorded = expected["loss_components"][f"captioning_{direction}"]
        assert loss.item() == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
@torch.no_grad()
def test_a_released_models_logits_are_as_recorded(captioner, batch, expected, direction):
    probe = captioner.logits(*batch, direction=direction)[0, :, ::125].flatten()
    recorded = flat(expected[f"{direction}_logits_probe"])
    torch.testing.assert_close(probe, recorded, rtol=0, atol=1e-4)


def test_the_released_search_finds_the_recorded_captions(captioner, batch, expected):
    generated = captioner.generate(batch[0], DecodingConfig(original=True)).best()
    assert generated.tokens.tolist() == expected["beam5_tokens"]


def captioner_of(released_shapes):
    """A captioner without values, of the size of a released H1024 model."""
    norm = "pre" if "textual.transformer.norm.weight" in released_shapes else "post"
    bidirectional = "backward_textual.output.bias" in released_shapes
    backbone = Backbone(BackboneConfig("resnet50"))
    with torch.device("meta"):
        return Captioner(backbone, HeadConfig(norm=norm), 10_000, bidirectional=bidirectional)


@pytest.mark.parametrize(
    "kind", ["bicaptioning", "bicaptioning_prenorm", "captioning", "masked_lm"]
)
def test_our_names_give_all_released_names_and_no_other(kind):
    shapes = json.loads(reference_file(f"keys_{kind}.json").read_text())
    shapes = shapes.get("keys", shapes)
    state = captioner_of(shapes).state_dict()
    layout = released_layout(state)
    assert {
        name: [sum(len(state[part]) for part in ours), *state[ours[0]].shape[1:]]
        for name, ours in layout.items()
        if state[ours[0]].dim()
    } == {name: shape for name, shape in shapes.items() if shape}
    assert layout.keys() == shapes.keys()


@pytest.fixture(params=["post", "pre"])
def small(request):
    torch.manual_seed(0)
    config = HeadConfig(64, num_layers=2, feedforward_size=96, norm=request.param, max_tokens=7)
    backbone = Backbone(BackboneConfig("resnet18"))
    return Captioner(backbone, config, 50, bidirectional=request.param == "post")


def test_a_model_comes_back_from_the_released_layout(small):
    loaded = load_released(foreign(to_released(small.state_dict())))
    assert loaded.config == small.config
    assert loaded.backbone.config == small.backbone.config
    assert loaded.bidirectional == small.bidirectional
    for name, value in small.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_copies_of_a_shared_weight_must_agree(small):
    released = to_released(small.state_dict())
    released["textual.output.weight"] = released["textual.output.weight"] + 1
    with pytest.raises(CheckpointError, match=r"differ.*output\.weight|differ.*words\.weight"):
        load_released(foreign(released))


def test_a_missing_weight_is_named(small):
    released = to_released(small.state_dict())
    del released["textual.transformer.layers.1.linear2.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: textual.*linear2\.bias$"):
        load_released(foreign(released))


def test_an_unexpected_weight_is_named(small):
    released = to_released(small.state_dict()) | {"textual.extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"model: 1 unexpected: textual\.extra$"):
        load_released(foreign(released))


@pytest.mark.parametrize("layer", ["linear2.weight", "multihead_attn.in_proj_weight"])
def test_a_weight_of_another_shape_is_refused(small, layer):
    released = to_released(small.state_dict())
    name = f"textual.transformer.layers.0.{layer}"
    released[name] = released[name][1:]
    told = rf"no whole released model.*of another shape: {name} is \(.*\), must be \("
    with pytest.raises(CheckpointError, match=told) as caught:
        load_released(foreign(released))
    assert "head.decoders" not in str(caught.value)


def test_a_classification_model_is_refused_as_a_captioner():
    released = {"visual.cnn.conv1.weight": torch.zeros(1), "textual.output.bias": torch.zeros(81)}
    with pytest.raises(CheckpointError, match="load_backbone takes their backbone"):
        load_released(foreign(released))
