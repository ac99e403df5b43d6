import csv
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.sources.layouts import contents, jpeg, message_of, write
from virtex.data.sources.table import TableSource
from virtex.errors import ConfigError, DataError

ROWS = [
    ("b.jpg", 'a cat, "old"'),
    ("sub/a.jpg", "a dog\non two lines"),
    ("b.jpg", "the same cat"),
]
GATHERED = {"b.jpg": (ROWS[0][1], ROWS[2][1]), "sub/a.jpg": (ROWS[1][1],)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "b.jpg", jpeg())
    write(tmp_path / "sub" / "a.jpg", jpeg())
    return tmp_path


def write_csv(path: Path, rows: list[Any], header: tuple[str, ...] = ("image", "caption")) -> Path:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return write(path, "\n".join(lines))


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_rows_of_the_same_image_are_merged(root: Path, name: str) -> None:
    source = TableSource(write_csv(root / name, ROWS))
    assert contents(source) == GATHERED
    assert source[1].image == root / "sub" / "a.jpg"


def test_blank_lines_are_no_rows(root: Path) -> None:
    path = write(root / "t.csv", "image,caption\n\nb.jpg,x\n\n")
    assert contents(TableSource(path)) == {"b.jpg": ("x",)}


def test_jsonl_may_hold_lists_of_captions(root: Path) -> None:
    rows = [{"filepath": "b.jpg", "captions": ["x", "y"]}, {"filepath": "b.jpg", "captions": "z"}]
    assert contents(TableSource(write_jsonl(root / "t.jsonl", rows))) == {"b.jpg": ("x", "y", "z")}


def test_parquet_is_read_with_text_and_with_lists(root: Path) -> None:
    names, captions = zip(*ROWS, strict=True)
    path = write_parquet(root / "t.parquet", {"path": list(names), "text": list(captions)})
    assert contents(TableSource(path)) == GATHERED
    path = write_parquet(root / "u.parquet", {"path": ["b.jpg"], "captions": [["x", "y"]]})
    assert contents(TableSource(path)) == {"b.jpg": ("x", "y")}


def test_parquet_without_pyarrow_names_the_extra(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "t.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        TableSource(root / "t.parquet")


def test_columns_are_chosen_by_name(root: Path) -> None:
    header = ("image", "caption", "thumbnail", "german")
    path = write_csv(root / "t.csv", [("x.jpg", "no", "b.jpg", "Katze")], header)
    source = TableSource(path, image_column="thumbnail", caption_column="german")
    assert contents(source) == {"b.jpg": ("Katze",)}
    others = [
        TableSource(path, image_column="thumbnail"),
        TableSource(path, image_column="thumbnail", with_captions=False),
    ]
    identities = [one.identity() for one in (source, *others)]
    assert identities[0]["caption_column"] == "german"
    assert len({tuple(one.items()) for one in identities}) == 3


def test_image_root_may_lie_elsewhere_and_paths_may_be_absolute_in_it(root: Path) -> None:
    (root / "tables").mkdir()
    path = write_csv(root / "tables" / "t.csv", [(str(root / "b.jpg"), "x"), ("sub/a.jpg", "y")])
    assert contents(TableSource(path, image_root=root)) == {"b.jpg": ("x",), "sub/a.jpg": ("y",)}


def test_captions_are_not_read_unless_requested(root: Path) -> None:
    path = write_csv(root / "t.csv", [("b.jpg",)], header=("image",))
    assert contents(TableSource(path, with_captions=False)) == {"b.jpg": ()}


def test_a_pickled_source_gives_the_same_examples(root: Path) -> None:
    source = TableSource(write_csv(root / "t.csv", ROWS))
    assert contents(pickle.loads(pickle.dumps(source))) == GATHERED
    assert source.identity()["captions"] == 3


def test_all_problems_of_a_csv_are_reported_at_once(root: Path) -> None:
    rows = [
        ("b.jpg", "fine"),
        ("b.jpg", " "),
        ("", "no path"),
        ("../secret.jpg", "x"),
        ("/etc/passwd", "x"),
        ("gone.jpg", "x"),
        ("b.jpg", "one", "too many"),
    ]
    message = message_of(TableSource, write_csv(root / "t.csv", rows))
    for part in (
        "rows that cannot be read: 1 (row 8: 3 fields, not 2). Correct or remove them.",
        "rows without an image path: 1 (row 4)",
        "image paths that lead elsewhere: 2 (row 5: ../secret.jpg, row 6: /etc/passwd). Paths must",
        "rows with an empty caption, or none: 1 (row 3). Write or remove them.",
        "images listed but absent: 1 (gone.jpg). Put them below",
        "--data.image_root",
    ):
        assert part in message


def test_all_problems_of_a_jsonl_are_reported_at_once(root: Path) -> None:
    rows = [
        {"image": "b.jpg", "caption": "fine"},
        {"image": "b.jpg"},
        {"image": "b.jpg", "caption": []},
        {"image": "b.jpg", "caption": ["x", ""]},
        {"image": {"bytes": "x"}, "caption": "x"},
        "{broken",
        "[]",
    ]
    message = message_of(TableSource, write_jsonl(root / "t.jsonl", rows))
    for part in (
        "rows that cannot be read: 2 (row 6: Expecting property name",
        "row 7: not an object)",
        "rows without an image path: 1 (row 5)",
        "empty caption, or none: 3 (row 2, row 3, row 4)",
    ):
        assert part in message


def test_a_table_without_the_columns_lists_those_it_has(root: Path) -> None:
    path = write_csv(root / "t.csv", [("b.jpg", "x")], header=("picture", "words"))
    message = message_of(TableSource, path)
    assert "no column image or filepath or path or file_name or" in message
    assert "among picture, words" in message
    assert "--data.image_column" in message
    message = message_of(TableSource, path, image_column="picture", caption_column="alt")
    assert "no column alt among picture, words: name one with --data.caption_column" in message


def test_a_quote_that_never_ends_does_not_swallow_the_table(root: Path) -> None:
    path = write(root / "t.tsv", 'image\tcaption\nb.jpg\t"never ends\nb.jpg\tnext\n')
    assert contents(TableSource(path)) == {"b.jpg": ('"never ends', "next")}
    path = write(root / "t.csv", 'image,caption\nb.jpg,"never ends\nb.jpg,"next, last"\n')
    message = message_of(TableSource, path)
    assert "It cannot be read: row 3: ',' expected after '\"'; close each quote" in message


@pytest.mark.parametrize(("name", "part"), [("t.xlsx", ".csv, .tsv, .txt"), ("t.csv", "no such")])
def test_a_file_of_the_wrong_kind_is_named(root: Path, name: str, part: str) -> None:
    assert part in message_of(TableSource, root / name)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_without_rows_is_a_problem(root: Path, name: str) -> None:
    write(root / name, "image,caption\n" if name == "t.csv" else "")
    assert "It has no rows" in message_of(TableSource, root / name)


def test_a_missing_image_root_is_a_problem(root: Path) -> None:
    path = write_csv(root / "t.csv", ROWS)
    assert "--data.image_root" in message_of(TableSource, path, image_root=root / "nowhere")


@pytest.fixture(scope="module")
def wild_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wild")
    write(root / "b.jpg", jpeg())
    names = ["b.jpg"] * 20
    write_parquet(root / "good.parquet", {"path": names, "text": ["a caption"] * 20})
    return root


@settings(max_examples=100, deadline=None)
@given(
    ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]),
    head=st.sampled_from([b"", b"image,caption\n", b"image\tcaption\nb.jpg", b'{"image": "b.jpg"']),
    noise=st.binary(max_size=60),
)
def test_corrupt_bytes_raise_only_a_data_error(
    wild_root: Path, ending: str, head: bytes, noise: bytes
) -> None:
    path = write(wild_root / f"wild{ending}", head + noise)
    try:
        TableSource(path)
    except DataError as error:
        assert str(error).replace("\n", "").isprintable()  # noqa: PT017


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_corrupt_parquet_file_raises_only_a_data_error(
    wild_root: Path, place: int, value: int
) -> None:
    data = bytearray((wild_root / "good.parquet").read_bytes())
    data[place % len(data)] = value
    path = write(wild_root / "spoiled.parquet", bytes(data))
    try:
        TableSource(path)
    except DataError as error:
        assert "spoiled.parquet" in str(error)  # noqa: PT017
