"""The options of several files as those of one."""

import yaml

from virtex.config import to_dict
from virtex.options.layers import Layers
from virtex.options.overlay import overlaid
from virtex.pretrain import PretrainConfig, parse_pretrain


def joined(*layers: str) -> dict[str, object]:
    """The options of files, one after the other, as the parser takes them."""
    checker, values = Layers(PretrainConfig), {}
    for layer in layers:
        values = overlaid(PretrainConfig, values, checker.checked(yaml.safe_load(layer)))
    return values


def test_groups_are_joined_and_lists_replaced() -> None:
    values = joined(
        "{run: {num_steps: 9, seed: 2}, optim: {betas: [0.9, 0.98]}}",
        "{run: {seed: 3}, optim: {betas: [0.8, 0.9]}, backbone: {options: {layers: [1]}}}",
        "{backbone: {options: {channels: [8]}}}",
    )
    assert values == {
        "run": {"num_steps": 9, "seed": 3, "num_epochs": None},
        "optim": {"betas": [0.8, 0.9]},
        "backbone": {"options": {"channels": [8]}},
    }


def test_a_choice_of_the_same_class_is_joined_and_another_keeps_what_it_has() -> None:
    head = "task: {name: bicaptioning, head: {hidden_size: 64, dropout: 0.0}, token_weight: 1.0}"
    (same,) = joined(head, "task: {head: {dropout: 0.2}}").values()
    assert same["init_args"]["head"] == {"hidden_size": 64, "dropout": 0.2}
    assert same["init_args"]["token_weight"] == 1.0
    config = parse_pretrain(["--config", head + "\n", "--config", "task: moco\n", "--out", "x"])
    assert "head" not in to_dict(config)["task"]
    config = parse_pretrain(["--config", "task: moco\n", "--config", head + "\n", "--out", "x"])
    assert to_dict(config)["task"]["head"]["hidden_size"] == 64
