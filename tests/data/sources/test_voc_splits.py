import pytest

from virtex.data.sources.voc_splits import YearSplit, parse_splits


def test_a_name_gives_splits_with_and_without_years() -> None:
    assert parse_splits("2007_trainval+2012_train") == (
        YearSplit("2007", "trainval"),
        YearSplit("2012", "train"),
    )
    assert parse_splits("my_2007_val") == (YearSplit(None, "my_2007_val"),)


@pytest.mark.parametrize("text", ["trainval", "2007_trainval+2012_trainval", "", "2012_", "a+"])
def test_split_names_come_back_as_they_were(text: str) -> None:
    assert "+".join(map(str, parse_splits(text))) == text
