"""Whether a higher or a lower number is better."""

import pytest

from virtex.transfer.directions import direction_of, is_in_nats


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            "mAP knn_mAP top1 voc07_AP50 CIDEr-D BLEU-4 text_to_image_R@1 AP/dog",
            "higher",
        ),
        ("loss val_loss image_to_text_median_rank repeated_trigram empty_captions", "lower"),
        ("num_train num_bad cost mean_words vocabulary chance_top1", "neither"),
        ("blind_loss blind_CIDEr-D blind_BLEU-4", "neither"),
    ],
)
def test_a_number_s_name_says_what_is_better(numbers: str, expected: str) -> None:
    assert {direction_of(number) for number in numbers.split()} == {expected}


def test_losses_and_their_differences_are_in_nats() -> None:
    numbers = ("loss", "blind_loss", "image_gain", "top1", "error", "CIDEr-D", "median_rank")
    assert [number for number in numbers if is_in_nats(number)] == list(numbers[:3])
