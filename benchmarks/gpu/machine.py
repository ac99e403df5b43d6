"""The card, its driver, and what its memory and matrix units do."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.jobs import Events, Job, Row, Skipped
from benchmarks.gpu.settings import Settings


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section."""
    return [
        Job("card", lambda seconds: card(settings)),
        Job("speed", lambda seconds: speed(settings)),
    ]


def card(settings: Settings) -> Iterator[Row]:
    """Yield the name, memory and driver of each card."""
    yield {"fact": "torch", "value": f"{torch.__version__}, CUDA {torch.version.cuda}"}
    yield {"fact": "memory of the machine", "value": f"{memory_gb():.0f} GB"}
    if settings.device == "cpu":
        capabilities = [name for name, has in torch.cpu.get_capabilities().items() if has is True]
        yield {"fact": "CPU capabilities", "value": " ".join(sorted(capabilities))}
        raise Skipped("no GPU")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        text = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
        yield {"fact": f"GPU {index}", "value": f"{text}, sm_{found.major}{found.minor}"}
    yield {"fact": "driver", "value": driver()}
    yield {"fact": "cuDNN, NCCL", "value": json.dumps([torch.backends.cudnn.version(), nccl()])}


def speed(settings: Settings) -> Iterator[Row]:
    """Yield the speed of a matrix product in bf16, and of a copy within the card."""
    if settings.device == "cpu":
        raise Skipped("no GPU")
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = timed(lambda: a @ b)
    yield {"fact": "bf16 product, 8192 cubed", "value": f"{2e-12 * size**3 / seconds:.0f} TFLOP/s"}
    source, target = (torch.empty(2**31, device="cuda", dtype=torch.uint8) for _ in range(2))
    seconds = timed(lambda: target.copy_(source))
    yield {"fact": "copy within the card", "value": f"{1e-12 * 2**32 / seconds:.2f} TB/s"}
    host = torch.empty(2**28, dtype=torch.uint8).pin_memory()
    seconds = timed(lambda: target[: 2**28].copy_(host, non_blocking=True))
    yield {"fact": "copy from pinned memory", "value": f"{1e-9 * 2**28 / seconds:.1f} GB/s"}


def timed(call: Callable[[], object], *, repeats: int = 10) -> float:
    """Return the mean seconds of a call on the GPU, after three that warm up."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def driver() -> str:
    """Return the driver's version, as nvidia-smi says it."""
    if shutil.which("nvidia-smi") is None:
        return "unknown: nvidia-smi is not installed"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return (done.stdout or done.stderr).strip().splitlines()[0]


def nccl() -> str:
    """Return NCCL's version."""
    return ".".join(map(str, torch.cuda.nccl.version()))


def memory_gb() -> float:
    """Return the size of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
