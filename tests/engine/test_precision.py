"""What precision `auto` stands for on each kind of hardware, and the warning where one is slow."""

from collections.abc import Iterator

import pytest
import torch

from virtex.engine import precision
from virtex.engine.precision import agreed_precision, choose_precision, is_fast
from virtex.engine.run import Precision, RunConfig, autocast
from virtex.models.backbone import Backbone, BackboneConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Cpu:
    """The torch of a machine with another CPU."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.is_made("avx512_bf16")

    def is_made(
        self, *has: str, aten: str = "AVX512", limit: str = "", onednn: bool = True
    ) -> None:
        self.patch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
        self.patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: aten)
        self.patch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
        self.patch.setenv("ONEDNN_MAX_CPU_ISA", limit or "DEFAULT")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cpu]:
    precision._warn.cache_clear()
    yield Cpu(monkeypatch)
    precision._warn.cache_clear()


@pytest.mark.parametrize(
    ("has", "limits", "expected"),
    [
        (["avx512_bf16"], {}, "bf16"),
        (["amx_bf16"], {}, "bf16"),
        (["avx512_f", "avx2"], {}, "fp32"),
        ([], {"aten": "DEFAULT"}, "fp32"),
        (["neon", "bf16", "sve_bf16"], {"aten": "SVE256"}, "fp32"),
        (["avx512_bf16"], {"aten": "AVX2"}, "fp32"),
        (["avx512_bf16"], {"limit": "avx2"}, "fp32"),
        (["avx512_bf16"], {"limit": "AVX512_CORE_VNNI"}, "fp32"),
        (["avx512_bf16"], {"limit": "AVX512_CORE_BF16"}, "bf16"),
        (["amx_bf16"], {"limit": "AVX512_CORE_AMX"}, "bf16"),
        (["avx512_bf16"], {"onednn": False}, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_cpu_is_fast_at_it(
    cpu: Cpu, has: list[str], limits: dict[str, str | bool], expected: str
) -> None:
    cpu.is_made(*has, **limits)  # type: ignore[arg-type]
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 0), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16")]
)
def test_auto_is_bf16_on_a_gpu_that_does_not_emulate_it(
    capability: tuple[int, int],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    precision._warn.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", GPU) == expected
    assert is_fast("fp16", GPU)
    assert choose_precision("bf16", GPU) == "bf16"
    assert ("emulates it" in caplog.text) == (expected == "fp32")


@pytest.mark.parametrize("name", ["mps", "meta"])
def test_auto_is_fp32_on_other_devices(name: str, caplog: pytest.LogCaptureFixture) -> None:
    device = torch.device(name)
    assert choose_precision("auto", device) == "fp32"
    assert choose_precision("bf16", device) == "bf16"
    assert not caplog.records


@pytest.mark.parametrize(
    ("named", "words"), [("bf16", "AMX or AVX-512 BF16"), ("fp16", "AMX or AVX-512 FP16")]
)
def test_a_precision_that_is_slow_here_is_used_with_one_warning(
    cpu: Cpu, named: Precision, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    cpu.is_made("avx512_f")
    for _ in range(3):
        assert choose_precision(named, CPU, option="run.precision") == named
    (record,) = caplog.records
    assert f"run.precision {named}: this CPU lacks {words}" in record.message
    assert "`auto`" in record.message


def test_a_precision_that_is_fast_here_is_used_in_silence(
    cpu: Cpu, caplog: pytest.LogCaptureFixture
) -> None:
    cpu.is_made("avx512_bf16")
    assert [choose_precision(named, CPU) for named in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert not caplog.records


def test_processes_of_different_hardware_agree_on_fp32(
    cpu: Cpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agreed_precision("auto", CPU, option="run.precision") == "bf16"
    monkeypatch.setattr(precision.distributed, "gather_objects", lambda own: [own, "fp32"])
    assert agreed_precision("auto", CPU, option="run.precision") == "fp32"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mobilenetv3_small_050", "fp32"), ("convnext_atto", "bf16"), ("resnet18", "bf16")],
)
def test_auto_is_fp32_where_the_gradients_of_a_network_are_slow_on_a_cpu(
    cpu: Cpu, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Backbone(BackboneConfig(name))
    assert agreed_precision("auto", CPU, network=network, option="run.precision") == expected
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert choose_precision("auto", GPU, network=network) == "bf16"
    assert choose_precision("bf16", CPU, network=network) == "bf16"


def test_auto_never_reaches_a_forward_pass() -> None:
    with pytest.raises(AssertionError, match="chosen before"):
        autocast(RunConfig(precision="auto").precision, CPU)
