"""What a validation shows of the images."""

import pytest
import torch
from torch import Tensor, nn

from tests.engine.toy import ToyTask, toy_batch
from virtex.engine.image_probe import MAX_BATCHES, ImageProbe, exchanged, spread
from virtex.engine.run import RunConfig
from virtex.tasks.base import Batch, TaskOutput

CPU, RUN = torch.device("cpu"), RunConfig(batch_size=8)


class Pooling(nn.Module):
    """A backbone whose pooled features are the means of the colors."""

    def forward(self, images: Tensor) -> Tensor:
        return images

    def pooled(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


class Brightness(ToyTask):
    """A task that reads the target off the image, or knows none but their mean."""

    def __init__(self, *, uses_image: bool) -> None:
        super().__init__(dropout=0.0)
        self.backbone, self.uses_image = Pooling(), uses_image  # type: ignore[assignment]

    def forward(self, batch: Batch) -> TaskOutput:
        found = batch["image"].float().mean((1, 2, 3)) / 255 if self.uses_image else 0.5
        return TaskOutput((found - batch["target"]).square().mean())


def batches(number: int) -> list[Batch]:
    return [toy_batch(3 * step, batch_size=8) for step in range(number)]


@pytest.mark.parametrize("number", [1, 2, 3, 9, 40])
def test_it_keeps_a_few_batches_from_all_parts(number: int) -> None:
    probe, given = ImageProbe(number), batches(number)
    assert list(probe.keep(iter(given))) == given
    assert 0 < len(probe.kept) <= MAX_BATCHES
    kept = [next(i for i, batch in enumerate(given) if batch is one) for one in probe.kept]
    assert kept[0] == 0
    assert number - kept[-1] <= 2 * max(1, number // MAX_BATCHES)


def test_each_image_is_exchanged_for_that_of_a_far_example() -> None:
    given = batches(4)
    changed = list(exchanged(given))
    for index, batch in enumerate(changed):
        assert torch.equal(batch["image"], given[(index + 2) % 4]["image"])
        assert torch.equal(batch["target"], given[index]["target"])
    alone = next(iter(exchanged(given[:1])))["image"]
    assert torch.equal(alone, given[0]["image"].roll(4, 0))


def test_images_of_several_sizes_are_exchanged_within_a_batch() -> None:
    given = [toy_batch(0, batch_size=4), {"image": torch.zeros(2, 3, 4, 4).byte()}]
    assert torch.equal(next(iter(exchanged(given)))["image"], given[0]["image"].roll(1, 0))


@pytest.mark.parametrize("uses_image", [True, False])
def test_the_loss_rises_with_other_images_if_they_are_used(uses_image: bool) -> None:
    probe = ImageProbe(4)
    list(probe.keep(batches(4)))
    numbers = probe.numbers(Brightness(uses_image=uses_image), run=RUN, device=CPU)
    assert (numbers["shuffled_rise"] > 1e-5) == uses_image
    assert set(numbers) == {"shuffled_rise", "feature_spread", "effective_rank"}


def test_the_probe_leaves_training_mode_and_weights_as_they_are() -> None:
    task = Brightness(uses_image=True).train()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    probe = ImageProbe(2)
    list(probe.keep(batches(2)))
    probe.numbers(task, run=RUN, device=CPU)
    assert task.training
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())


def test_spread_and_rank_of_features() -> None:
    equal = spread(torch.ones(16, 8))
    assert equal["feature_spread"] == pytest.approx(0, abs=1e-6)
    line = spread(torch.outer(torch.linspace(-1, 1, 16), torch.ones(8)) + torch.eye(8)[0])
    assert line["effective_rank"] < 3
    free = spread(torch.eye(8).repeat(2, 1) * torch.tensor([1.0, -1]).repeat_interleave(8)[:, None])
    assert free["feature_spread"] == pytest.approx(1)
    assert free["effective_rank"] == pytest.approx(8)
