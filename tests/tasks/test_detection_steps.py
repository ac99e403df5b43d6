"""A step of a detector: the same by one process and several, compiled, and on another device."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine.toy import split
from tests.tasks.test_detection import BARE, SCENES, batch_of, small_detection, with_padding
from tests.tasks.two_processes import check_gradients, in_one_process, in_two_processes
from virtex.engine.device_batches import mark_dynamic, to_device
from virtex.models import region_outputs, region_pool, region_proposals, suppression
from virtex.models.batch_norm import synchronize
from virtex.tasks.detection import Detection


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_two_processes_compute_the_gradients_of_one(architecture, tmp_path):
    make = partial(synchronized_detector, architecture)
    steps = in_two_processes(make, tmp_path)
    one = in_one_process(make)
    assert sum(step["loss"] for step in steps) / 2 == pytest.approx(one["loss"], rel=1e-5)
    for step in steps:
        check_gradients(step["gradients"], one["gradients"])
    for name, value in steps[0]["state"].items():
        assert torch.equal(steps[1]["state"][name], value), name


def synchronized_detector(architecture: str) -> tuple[Detection, dict]:
    """With BatchNorm over all processes, and a batch whose last image has no objects."""
    task = small_detection(architecture).train()
    synchronize(task, torch.device("cpu"))
    return task, batch_of(task, *map(SCENES.__getitem__, range(3)), BARE)


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_two_pieces_compute_the_gradients_of_one_batch_but_for_masks(architecture):
    """Each piece divides by its own number of regions with an object."""
    task = small_detection(architecture, masks=False).eval()
    batch = batch_of(task, *map(SCENES.__getitem__, range(4)))
    whole, parts = ({}, {})
    for pieces, gradients in ((1, whole), (2, parts)):
        task.zero_grad()
        for piece in split(batch, pieces):
            (task(piece).loss / pieces).backward()
        gradients |= {name: value.grad.clone() for name, value in task.named_parameters()}
    check_gradients(parts, whole)


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_a_compiled_detector_is_one_graph_for_any_number_of_objects(architecture):
    task = small_detection(architecture).eval()  # without BatchNorm's statistics to update
    batch = batch_of(task, SCENES[0], SCENES[1])
    counter = CompileCounter()
    compiled = torch.compile(task, backend=counter, fullgraph=True)
    for one in (batch, with_padding(batch, 8), with_padding(batch, 16)):
        mark_dynamic(one, task.dynamic)
        losses, gradients = [], []
        for module in (task, compiled):
            task.zero_grad()
            loss = module(one).loss
            loss.backward()
            losses.append(loss.item())
            gradients.append({name: x.grad.clone() for name, x in task.named_parameters()})
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        check_gradients(*gradients)
    assert counter.frame_count == 1


class NoReads(TorchDispatchMode):
    """Fails at an operation for which the host would wait for a GPU."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "repeat_interleave")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        assert name not in self.names, name
        if name in ("index", "index_put", "index_put_"):
            assert all(x is None or x.dtype == torch.int64 for x in args[1]), "a mask as an index"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_a_step_on_another_device_is_the_same_and_reads_nothing(architecture, monkeypatch):
    task = small_detection(architecture).eval()
    batch = batch_of(task, SCENES[0], BARE)
    expected = task(batch).loss.item()
    for module in (region_outputs, region_pool):
        monkeypatch.setattr(module, "may_read", lambda _: False)
    monkeypatch.setattr(region_proposals, "kept_boxes", suppression.kept_in_rounds)
    with NoReads():
        loss = task(batch).loss
        loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_a_step_of_a_detector_never_waits_for_the_gpu(architecture):
    task = small_detection(architecture).cuda()
    batch = to_device(batch_of(task, SCENES[0], BARE), torch.device("cuda"), channels_last=True)
    expected = task(batch).loss.item()  # constants are copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = task(batch).loss
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.item() == pytest.approx(expected, rel=1e-3)
