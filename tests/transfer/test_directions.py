"""Whether a higher or a lower number is better."""

import pytest

from virtex.transfer.directions import direction_of


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            "mAP knn_mAP top1 voc07_AP50 CIDEr-D BLEU-4 text_to_image_R@1 AP/dog",
            "higher",
        ),
        ("loss blind_loss image_to_text_median_rank repeated_trigram empty_captions", "lower"),
        ("num_train num_bad cost mean_words vocabulary", "neither"),
    ],
)
def test_a_number_s_name_says_what_is_better(numbers: str, expected: str) -> None:
    assert {direction_of(number) for number in numbers.split()} == {expected}
