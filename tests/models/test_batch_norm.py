"""BatchNorm over several processes, and its statistics estimated after training."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from tests.tasks.two_processes import check_gradients, in_one_process, in_two_processes
from virtex import distributed
from virtex.errors import ConfigError, DataError
from virtex.models.batch_norm import HostSyncBatchNorm, estimate_statistics, synchronize
from virtex.tasks.base import Batch, Task, TaskOutput

CPU = torch.device("cpu")


class NormedTask(Task):
    """Two convolutions, each followed by BatchNorm, that regress a number; plain at first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(  # type: ignore[assignment]
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=None), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 1))

    def forward(self, batch: Batch) -> TaskOutput:
        features = self.backbone(batch["image"]).mean((2, 3))
        error = self.head(features)[:, 0] - batch["target"]
        return TaskOutput(error.square().mean())


def normed_task(*, synchronized: bool) -> tuple[Task, Batch]:
    """In training, with a batch whose halves differ much."""
    task = NormedTask().train()
    if synchronized:
        synchronize(task, CPU)
        kinds = {type(part) for part in task.modules()}
        assert (HostSyncBatchNorm in kinds) is (distributed.world_size() > 1)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 8, 8, generator=generator)
    images[4:] = 3 * images[4:] + 2
    return task, {"image": images, "target": images.mean((1, 2, 3))}


def test_one_and_two_processes_give_the_same_losses_gradients_and_statistics(tmp_path: Path):
    make = partial(normed_task, synchronized=True)
    one, two = in_one_process(make), in_two_processes(make, tmp_path)
    assert sum(step["loss"] for step in two) / 2 == pytest.approx(one["loss"], rel=1e-5)
    for step in two:
        assert step["state"].keys() == one["state"].keys()
        check_gradients(step["gradients"], one["gradients"])
        for name, value in one["state"].items():
            torch.testing.assert_close(step["state"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in two[0]["state"].items():
        assert torch.equal(two[1]["state"][name], value), name


def test_without_it_they_differ(tmp_path: Path):
    make = partial(normed_task, synchronized=False)
    one, two = in_one_process(make), in_two_processes(make, tmp_path)
    assert sum(step["loss"] for step in two) / 2 != pytest.approx(one["loss"], rel=1e-2)


def in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there is another process."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)


def test_a_layer_keeps_its_parameters_names_and_mode(monkeypatch):
    in_two(monkeypatch)
    task = NormedTask().train()
    task.backbone[1].eval()
    before, parameters = task.state_dict(), dict(task.named_parameters())
    synchronize(task, CPU)
    assert type(task.backbone[1]) is nn.BatchNorm2d  # at rest: frozen
    assert type(task.backbone[4]) is HostSyncBatchNorm
    assert task.backbone[4].momentum is None
    assert task.state_dict().keys() == before.keys()
    assert all(parameters[name] is value for name, value in task.named_parameters())
    synchronize(task, CPU)
    assert all(map(torch.equal, task.state_dict().values(), before.values()))


def test_a_gpu_has_torchs_synchronized_layer(monkeypatch):
    in_two(monkeypatch)
    task = NormedTask().train()
    synchronize(task, torch.device("cuda"))
    assert [type(task.backbone[place]) for place in (1, 4)] == [nn.SyncBatchNorm] * 2


def test_in_evaluation_a_synchronized_layer_is_a_plain_one(monkeypatch):
    plain, task = NormedTask().train(), NormedTask().train()
    _, batch = normed_task(synchronized=False)
    plain(batch)
    in_two(monkeypatch)
    synchronize(task, CPU)
    task.load_state_dict(plain.state_dict())
    expected, loss = plain.eval()(batch).loss, task.eval()(batch).loss
    assert torch.equal(loss, expected)


def test_a_layer_with_more_than_batchnorm_in_it_is_refused(monkeypatch):
    in_two(monkeypatch)
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(BatchNormAct2d(3)))
    with pytest.raises(ConfigError, match=r"1\.0 are BatchNormAct2d.*run\.sync_batch_norm to"):
        synchronize(module, CPU)
    assert type(module[0]) is nn.BatchNorm2d
    synchronize(module.eval(), CPU)  # it would not learn statistics anyway


class Counted(nn.Module):
    """A normalized convolution, a frozen norm, dropout, and a count of forward passes."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4)
        self.unused = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout()
        self.register_buffer("count", torch.zeros(()))

    def train(self, mode: bool = True) -> "Counted":
        super().train(mode)
        self.frozen.training = False
        return self

    def forward(self, images: Tensor) -> Tensor:
        self.count += 1
        return self.frozen(self.dropout(self.norm(self.convolution(images))))


def image_batches(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(4, 3, 9, 9, generator=generator) + place for place in range(number)]


def test_estimated_statistics_are_the_means_of_the_batches_own():
    module, batches = Counted(), image_batches(5)
    number = estimate_statistics(module, iter(batches), module)
    convolved = [module.convolution(batch).transpose(0, 1).flatten(1) for batch in batches]
    means = sum(values.mean(1) for values in convolved) / 5
    variances = sum(values.var(1) for values in convolved) / 5
    assert number == 5
    torch.testing.assert_close(module.norm.running_mean, means)
    torch.testing.assert_close(module.norm.running_var, variances)


def test_estimating_twice_gives_the_same_bits_and_changes_nothing_else():
    module, batches = Counted().eval(), image_batches(4)
    module(batches[0])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.dropout.train()
    estimate_statistics(module, batches, module)
    first = {name: value.clone() for name, value in module.state_dict().items()}
    estimate_statistics(module, batches, module)
    changed = {name for name, value in first.items() if not torch.equal(value, before[name])}
    assert changed == {"norm.running_mean", "norm.running_var"}
    assert all(torch.equal(value, first[name]) for name, value in module.state_dict().items())
    assert module.norm.momentum == 0.1
    assert [module.training, module.norm.training, module.dropout.training] == [False, False, True]
    assert all(parameter.grad is None for parameter in module.parameters())


def test_no_more_batches_are_read_than_requested():
    module, endless = Counted(), itertools.cycle(image_batches(3))
    assert estimate_statistics(module, endless, module, num_batches=2) == 2
    twin = Counted()
    estimate_statistics(twin, image_batches(2), twin)
    assert torch.equal(module.norm.running_mean, twin.norm.running_mean)
    left = next(endless)
    assert torch.equal(left, image_batches(3)[2])


def test_a_failure_leaves_all_as_it_was():
    module = Counted()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RuntimeError):
        estimate_statistics(module, [*image_batches(2), torch.zeros(1)], module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.norm.momentum == 0.1


def test_no_batch_is_an_error_and_no_norm_reads_none():
    module = Counted()
    with pytest.raises(DataError, match="no batch"):
        estimate_statistics(module, [], module)
    linear = nn.Linear(2, 2)
    assert estimate_statistics(linear, [torch.zeros(1, 2)], pytest.fail) == 0


def estimated() -> tuple[Task, Batch]:
    """A task whose statistics were estimated from three batches, shared by all processes."""
    task, batch = normed_task(synchronized=False)
    share = [distributed.world_size(), distributed.rank()]
    batches = [{name: 2.0**n * value.chunk(share[0])[share[1]] for name, value in batch.items()}
               for n in range(3)]  # fmt: skip
    used = estimate_statistics(task, batches, task)
    assert used == 3 * share[0]
    return task.eval(), batch


def test_two_processes_estimate_the_same_statistics(tmp_path: Path):
    one, two = in_one_process(estimated), in_two_processes(estimated, tmp_path)
    for name, value in two[0]["state"].items():
        assert torch.equal(two[1]["state"][name], value), name
    first = "backbone.1.running_mean"  # a mean of halves' means is the mean of the whole
    torch.testing.assert_close(two[0]["state"][first], one["state"][first])
    assert not torch.equal(one["state"][first], torch.zeros(4))
