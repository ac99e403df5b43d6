"""Options of decoding that cannot work."""

import numpy as np
import pytest

from virtex.errors import ConfigError
from virtex.models.decoding import DecodingConfig

WHOLE = ["num_beams", "per_node_beams", "max_steps", "top_k", "no_repeat_ngram"]
REAL = ["top_p", "temperature", "length_penalty", "backward_weight"]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [2.5, 2.0, "2", None, True])
def test_numbers_of_things_are_whole(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}, must be a whole number"):
        DecodingConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_weights_are_numbers(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*, must be a real number"):
        DecodingConfig(**{name: value})  # type: ignore[arg-type]


def test_options_of_other_types_are_all_named() -> None:
    with pytest.raises(ConfigError) as raised:
        DecodingConfig(num_beams="5", top_p="0.9", original="false")  # type: ignore[arg-type]
    assert all(name in str(raised.value) for name in ("num_beams", "top_p", "original is 'false'"))


def test_numbers_of_numpy_are_numbers() -> None:
    config = DecodingConfig(num_beams=np.int64(3), top_p=np.float32(0.5))  # type: ignore[arg-type]
    assert (config.num_beams, config.top_p) == (3, 0.5)
    assert DecodingConfig(length_penalty=1).length_penalty == 1


@pytest.mark.parametrize("penalty", [15, -15, float("inf"), float("nan")])
def test_a_length_penalty_whose_powers_are_no_numbers_is_refused(penalty: float) -> None:
    with pytest.raises(ConfigError, match=r"length_penalty is .*, must be from -14 to 14"):
        DecodingConfig(length_penalty=penalty)


@pytest.mark.parametrize("number", [2.5, "2", True, 0])
def test_a_number_of_captions_is_whole(number: object) -> None:
    with pytest.raises(ConfigError, match="must be a whole number of at least 1"):
        DecodingConfig("nucleus").num_running(number)  # type: ignore[arg-type]
