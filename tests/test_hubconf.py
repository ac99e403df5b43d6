"""hubconf.py: from a checkout, in an environment that has torch and torchvision alone."""

import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import traceback
import venv
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from tests.hub_stub import serving_hub
from tests.zoo.file_server import Served, serving
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.released import to_released

ROOT = Path(__file__).resolve().parents[1]
BARE = """
import importlib.util, json, sys, torch
for name in ("timm", "virtex", "safetensors", "yaml"):
    assert importlib.util.find_spec(name) is None, name
root, weights = sys.argv[1:]
model = torch.hub.load(root, "resnet50", source="local", pretrained=False).eval()
with torch.no_grad():
    shape = list(model(torch.zeros(2, 3, 224, 224)).shape)
loaded = torch.hub.load(root, "resnet50", source="local", weights=weights)
sys.path.insert(0, root)
import hubconf
entries = [name for name, value in vars(hubconf).items() if callable(value) and name[0] != "_"]
total = loaded.conv1.weight.double().sum().item()
print(json.dumps({"shape": shape, "entries": entries, "total": total}))
"""


def hub(name, **options):
    return torch.hub.load(str(ROOT), name, source="local", **options)


def requirements(name, found=None):
    """A distribution and all that it requires, by name, extras left out."""
    found = {} if found is None else found
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:  # for another platform or Python
        return found
    found[name] = distribution
    for line in distribution.requires or []:
        required = re.match(r"[\w.-]+", line)[0].lower()
        if "extra ==" not in line and required not in found:
            requirements(required, found)
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A virtual environment into which torch, torchvision and what they require are linked."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    exposed = folder / "exposed"
    exposed.mkdir()
    for distribution in requirements("torchvision").values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            link, real = exposed / top, Path(distribution.locate_file(top))
            if not link.exists() and real.exists():
                link.symlink_to(real.resolve())
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=paths))
    (packages / "exposed.pth").write_text(f"{exposed}\n")
    return folder / "venv" / "bin" / "python"


@pytest.mark.skipif(sys.platform == "win32", reason="links packages, which needs rights on Windows")
def test_torch_and_torchvision_are_all_that_is_needed(bare_python, tmp_path):
    resnet = torchvision.models.resnet50()
    torch.save(resnet.state_dict(), tmp_path / "resnet50.pth")
    command = [bare_python, "-I", "-c", BARE, ROOT, tmp_path / "resnet50.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["shape"] == [2, 2048, 7, 7]
    assert sorted(result["entries"]) == ["resnet101", "resnet50", "wide_resnet50_2"]
    assert result["total"] == pytest.approx(resnet.conv1.weight.double().sum().item())


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "wide_resnet50_2"])
def test_parameters_have_torchvisions_names_and_shapes(name):
    with torch.device("meta"):
        own = hub(name).state_dict()
        theirs = getattr(torchvision.models, name)().state_dict()
    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in own.items()} == shapes


@torch.no_grad()
def test_features_are_torchvisions_grid():
    resnet = torchvision.models.resnet50().eval()
    model = hub("resnet50").eval()
    model.load_state_dict({k: v for k, v in resnet.state_dict().items() if k[:3] != "fc."})
    images = torch.randn(2, 3, 64, 64)
    stages = torch.nn.Sequential(*list(resnet.children())[:-2])
    assert torch.equal(model(images), stages(images))


def test_a_random_network_starts_as_the_papers_does():
    model = hub("resnet50")
    assert not any(block.bn3.weight.any() for block in model.layer2)


LAYOUTS = ["bare", "wrapped", "virtex", "moco", "data parallel", "old", "classifier"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_load_from_each_layout(layout, tmp_path):
    backbone = Backbone(BackboneConfig("resnet50"))
    state = to_released(backbone.state_dict())
    query = {f"module.encoder_q.{name}": value for name, value in state.items()}
    other = {f"module.encoder_k.{name}": value + 1 for name, value in state.items()}
    visual = {f"visual.cnn.{name}": value for name, value in state.items()}
    values = {
        "bare": state,
        "wrapped": {"model": state, "iteration": 3},
        "virtex": {"model": {**visual, "textual.output.bias": torch.zeros(3)}},
        "moco": {"state_dict": {**other, **query, "module.queue": torch.zeros(2)}},
        "data parallel": {f"module.{name}": value for name, value in visual.items()},
        "old": {name: v for name, v in state.items() if "num_batches" not in name},
        "classifier": {**state, "fc.weight": torch.zeros(3, 2048), "fc.bias": torch.zeros(3)},
    }[layout]
    torch.save(values, tmp_path / "model.pth")
    model = hub("resnet50", weights=str(tmp_path / "model.pth"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture
def addresses(tmp_path, monkeypatch):
    """A cache of torch.hub's own, and no proxy on the way to a server here."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))


def test_weights_come_from_an_address_too(tmp_path, addresses):
    resnet = torchvision.models.resnet50()
    torch.save(resnet.state_dict(), tmp_path / "model.pth")
    with serving(Served((tmp_path / "model.pth").read_bytes())) as url:
        model = hub("resnet50", weights=url)
    assert torch.equal(model.conv1.weight, resnet.conv1.weight)
    served = Served(b"", statuses=[404])
    with serving(served) as url, pytest.raises(RuntimeError, match=r"404.*weights=PATH"):
        hub("resnet50", weights=url.replace("file", "missing"))


def test_weights_come_from_the_hugging_face_hub(tmp_path, monkeypatch):
    resnet = torchvision.models.resnet50()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    save_file(resnet.state_dict(), tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    with serving_hub() as stub:
        monkeypatch.setenv("HF_ENDPOINT", stub.endpoint)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        repository = stub.model("someone/resnet50")
        whole = {"model.safetensors": content, "config.json": b'{"architecture": "resnet50"}'}
        repository.refs["v1"] = repository.commit(whole).sha
        repository.commit({**whole, "model.safetensors": content[:-1000]})
        model = hub("resnet50", weights="hf-hub:someone/resnet50@v1")
        with pytest.raises(RuntimeError, match="is damaged, no torch file"):
            hub("resnet50", weights="hf-hub:someone/resnet50")
        with pytest.raises(RuntimeError, match=r"cannot read .*/someone/other/.*HTTP Error 401"):
            hub("resnet50", weights="hf-hub:someone/other")
    assert torch.equal(model.layer4[2].bn3.running_var, resnet.layer4[2].bn3.running_var)
    assert torch.equal(model.conv1.weight, resnet.conv1.weight)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"model_args": {"output_stride": 16}}, r"states \{'output_stride': 16\}, and resnet50"),
        ({"architecture": "resnetblur50.bt_in1k"}, r"states \{'architecture': 'resnetblur50'\}"),
        ({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}, r"states \{'mean': \(0.5, 0.5, 0.5\)\}"),
        ({"std": [0.5, 0.5, 0.5]}, r"'std': .*load it by virtex.load_backbone\('hf-hub:someone/"),
        ([], "states no model of timm's"),
    ],
    ids=["options", "network", "mean", "flat", "list"],
)
def test_a_model_of_the_hub_that_computes_something_else_is_refused(
    stated, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with serving_hub() as stub:
        monkeypatch.setenv("HF_ENDPOINT", stub.endpoint)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        stub.model("someone/other").commit({"config.json": json.dumps(stated).encode()})
        with pytest.raises(RuntimeError, match=message):
            hub("resnet50", weights="hf-hub:someone/other")


def test_a_file_of_virtex_or_of_other_types_is_said_to_be_one(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"backbone.cnn.conv1.weight": torch.ones(1)}, path)
    with pytest.raises(RuntimeError, match=r"weights file of virtex, .*--format torchvision"):
        hub("resnet50", weights=path)
    save_file({"conv1.weight": torch.ones(1, dtype=torch.uint8)}, path)
    with pytest.raises(RuntimeError, match=r"conv1.weight of type U8; allowed is F32, F16"):
        hub("resnet50", weights=path)


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.to(torch.int8),
        lambda weight: weight * float("nan"),
        torch.Tensor.to_sparse,
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_that_are_no_numbers_are_refused(change, tmp_path):
    state = hub("resnet50").state_dict()
    torch.save({**state, "conv1.weight": change(state["conv1.weight"])}, tmp_path / "model.pth")
    with pytest.raises(RuntimeError, match=r"not of finite floating-point numbers: conv1.weight"):
        hub("resnet50", weights=tmp_path / "model.pth")


def test_two_addresses_of_one_file_name_are_two_files(tmp_path, addresses):
    torch.manual_seed(0)
    for _ in range(2):
        resnet = torchvision.models.resnet50()
        torch.save(resnet.state_dict(), tmp_path / "model.pth")
        served = Served((tmp_path / "model.pth").read_bytes())
        with serving(served) as url:
            for _ in range(2):
                model = hub("resnet50", weights=url)
        assert torch.equal(model.conv1.weight, resnet.conv1.weight)
        assert served.num_requests == 1


def test_an_address_that_is_none_is_refused(addresses):
    for address in ("http://[bad/model.pth", "http://127.0.0.1:port/model.pth"):
        with pytest.raises(RuntimeError, match=r"cannot read http://"):
            hub("resnet50", weights=address)


def test_what_arrived_and_is_no_weights_file_is_named_with_where_it_lies(tmp_path, addresses):
    with serving(Served(b"hello")) as url, pytest.raises(RuntimeError) as caught:
        hub("resnet50", weights=url)
    (kept,) = (tmp_path / "hub" / "checkpoints").iterdir()
    assert f"{kept} is damaged" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"hello text\n", b"\x00\x01", b"\x80\x02", b"PK\x03\x04", b"r"]
)
def test_what_is_no_torch_file_is_refused(content, tmp_path):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"model\.pth is damaged, no torch file, or holds more"):
        hub("resnet50", weights=str(tmp_path / "model.pth"))


def test_torchs_advice_to_load_unsafely_is_not_passed_on(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "model.pth")
    with pytest.raises(RuntimeError) as caught:
        hub("resnet50", weights=str(tmp_path / "model.pth"))
    shown = "".join(traceback.format_exception(caught.value))
    assert "Re-running `torch.load`" not in shown


def test_a_torch_that_may_run_what_a_file_says_loads_no_weights(tmp_path, monkeypatch):
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "model.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(RuntimeError, match=r"torch 2\.5\.1.*upgrade to torch 2\.6"):
        hub("resnet50", weights=str(tmp_path / "model.pth"))
    hub("resnet50")


def test_what_does_not_fit_is_named(tmp_path):
    path = str(tmp_path / "model.pth")
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(
        RuntimeError, match=r"another network: missing: layer1\.0\.bn3.*another shape"
    ):
        hub("resnet50", weights=path)
    torch.save([1, 2], path)
    with pytest.raises(RuntimeError, match="holds a list, not a state dict"):
        hub("resnet50", weights=path)
    torch.save({3: torch.zeros(2)}, path)
    with pytest.raises(RuntimeError, match="holds no state dict: found 3"):
        hub("resnet50", weights=path)
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(RuntimeError, match="or holds more than weights"):
        hub("resnet50", weights=path)
    with pytest.raises(RuntimeError, match=r"cannot read .*nothing\.pth"):
        hub("resnet50", weights=str(tmp_path / "nothing.pth"))
    with pytest.raises(ValueError, match="not both"):
        hub("resnet50", pretrained=True, weights=path)


def test_published_weights_are_those_of_the_zoo():
    from virtex.zoo.models import find

    names = ["backbone_bicaptioning_R_50_L1_H2048", "bicaptioning_R_101_L1_H1024"]
    names.append("bicaptioning_R_50W2X_L1_H1024")
    source = (ROOT / "hubconf.py").read_text()
    for name in names:
        assert find(name).url.removeprefix("https://www.dropbox.com/s/") in source
