import pytest
import torch
from torch.nn.functional import linear as expected_linear

from virtex.models.linear import Linear, linear


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (0, 5)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape, with_bias):
    generator = torch.Generator().manual_seed(0)
    sizes = [shape, (4, 5), (4,)][: 2 + with_bias]
    ours = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    theirs = [value.detach().clone().requires_grad_() for value in ours]
    weights = torch.randn(*shape[:-1], 4, generator=generator)
    output, expected = linear(*ours), expected_linear(*theirs)
    torch.testing.assert_close(output, expected)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for value, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value.grad, other.grad)


def test_rows_that_are_strided_in_memory_are_read_right():
    inputs, weight = torch.randn(2, 5, 3), torch.randn(4, 5)
    strided = inputs.transpose(1, 2)
    torch.testing.assert_close(linear(strided, weight), expected_linear(strided, weight))


def test_autocast_still_lowers_the_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(5, 4)(torch.randn(2, 5)).dtype == torch.bfloat16


def test_double_precision_stays_double():
    assert Linear(5, 4).double()(torch.randn(2, 5).double()).dtype == torch.float64
