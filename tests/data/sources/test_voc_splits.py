import pytest

from virtex.data.sources.voc_splits import YearSplit, overlap, parse_splits


def test_a_name_gives_splits_with_and_without_years() -> None:
    assert parse_splits("2007_trainval+2012_train") == (
        YearSplit("2007", "trainval"),
        YearSplit("2012", "train"),
    )
    assert parse_splits("my_2007_val") == (YearSplit(None, "my_2007_val"),)


@pytest.mark.parametrize("text", ["trainval", "2007_trainval+2012_trainval", "", "2012_", "a+"])
def test_split_names_come_back_as_they_were(text: str) -> None:
    assert "+".join(map(str, parse_splits(text))) == text


@pytest.mark.parametrize(
    ("train", "val", "pairs"),
    [
        ("train", "val", []),
        ("trainval", "test", []),
        ("trainval", "val", [("trainval", "val")]),
        ("val", "trainval", [("val", "trainval")]),
        ("2007_trainval+2012_trainval", "2007_test", []),
        ("2007_trainval+2012_trainval", "test", []),
        ("2007_trainval+2012_trainval", "val", [("2007_trainval", "val")]),
        ("2012_trainval", "val", []),
        ("2007_trainval+2007_test", "2007_test", [("2007_test", "2007_test")]),
    ],
)
def test_splits_that_share_images_are_found(
    train: str, val: str, pairs: list[tuple[str, str]]
) -> None:
    assert [(str(one), str(other)) for one, other in overlap(train, val)] == pairs
