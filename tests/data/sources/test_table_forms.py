"""Tables as other programs write them: encodings, separators, quotes, columns and paths."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.data.sources.layouts import contents, jpeg, message_of, write
from virtex.data.source import SourceConfig, open_source
from virtex.data.sources import table_parquet, table_text
from virtex.data.sources.table import TableSource
from virtex.errors import ConfigError, DataError

PLAIN = {"a/1.jpg": ("a cat d'été",), "a/2.jpg": ("a dog",)}
CSV = "image,caption\na/1.jpg,a cat d'été\na/2.jpg,a dog\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in PLAIN:
        write(tmp_path / name, jpeg())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("bom.csv", CSV, "utf-8-sig"),
        ("crlf.csv", CSV.replace("\n", "\r\n"), "utf-8-sig"),
        ("cr.csv", CSV.replace("\n", "\r"), "utf-8"),
        ("utf16.csv", CSV, "utf-16"),
        ("utf16.tsv", CSV.replace(",", "\t"), "utf-16"),
        ("utf32.csv", CSV, "utf-32"),
        ("semicolon.csv", CSV.replace(",", ";"), "utf-8"),
        ("tab.csv", CSV.replace(",", "\t"), "utf-8"),
        ("comma.tsv", CSV, "utf-8"),
        ("pipe.csv", CSV.replace(",", "| "), "utf-8"),
        ("spaces.csv", CSV.replace(",", ", "), "utf-8"),
        ("text.txt", CSV, "utf-8"),
        ("upper.CSV", CSV.replace("image,caption", "Image,Caption"), "utf-8"),
        ("names.csv", CSV.replace("image,caption", "image_name,comment"), "utf-8"),
        ("quoted.csv", '"image","caption"\n"a/1.jpg","a cat d\'été"\na/2.jpg,a dog\n', "utf-8"),
        ("back.csv", CSV.replace("a/", "a\\"), "utf-8"),
        ("padded.csv", CSV.replace(".jpg", ".jpg "), "utf-8"),
        ("dots.csv", CSV.replace("a/", "./a/"), "utf-8"),
    ],
)
def test_a_table_whose_meaning_is_plain_is_read(
    root: Path, name: str, text: str, encoding: str
) -> None:
    source = TableSource(write(root / name, text.encode(encoding)))
    assert contents(source) == PLAIN
    assert all(isinstance(one.image, Path) and one.image.is_file() for one in source)


def test_a_path_in_two_forms_is_one_image(root: Path) -> None:
    path = write(root / "t.csv", "image,caption\na\\1.jpg,one\na/1.jpg,two\n")
    assert contents(TableSource(path)) == {"a/1.jpg": ("one", "two")}


BARE = ['"red" ball', 'a sign says "open', '"never closed', 'go "now"', 'say ""hi""', "plain"]


def test_bare_quotes_are_text_where_each_line_is_a_row(root: Path) -> None:
    rows = "".join(f"{caption}\ta/1.jpg\n" for caption in BARE)
    path = write(root / "t.tsv", f"caption\tfilepath\n{rows}")
    assert contents(TableSource(path)) == {"a/1.jpg": tuple(BARE)}


def test_quotes_that_would_join_rows_are_text(root: Path) -> None:
    path = write(root / "t.tsv", 'image\tcaption\na/1.jpg\t"open\na/2.jpg\tx"\n')
    assert contents(TableSource(path)) == {"a/1.jpg": ('"open',), "a/2.jpg": ('x"',)}
    path = write(root / "t.csv", 'image,caption\na/1.jpg,"two\nlines, one row"\na/2.jpg,x\n')
    assert contents(TableSource(path)) == {"a/1.jpg": ("two\nlines, one row",), "a/2.jpg": ("x",)}


def test_long_fields_are_read(root: Path) -> None:
    long = "word " * 100_000
    path = write(root / "t.csv", f'image,caption\na/1.jpg,{long}\na/2.jpg,"{long}, x"\n')
    assert contents(TableSource(path)) == {"a/1.jpg": (long,), "a/2.jpg": (f"{long}, x",)}


def test_a_json_list_of_objects_is_a_table(root: Path) -> None:
    rows = [{"file_name": name, "captions": list(texts)} for name, texts in PLAIN.items()]
    assert contents(TableSource(write(root / "t.json", json.dumps(rows)))) == PLAIN
    for document, part in (
        ('{"a": 1}', "it is not a JSON list of objects"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[1" + "0" * 5000 + "]", "It cannot be read: Exceeds the limit"),
        ('[{"image": "a/1.jpg", "caption": "x"}, 3]', "row 2: not an object"),
    ):
        assert part in message_of(TableSource, write(root / "u.json", document))


def test_json_lines_may_hold_images_as_hugging_face_writes_them(root: Path) -> None:
    rows = [
        {"image": {"bytes": None, "path": name}, "text": texts[0]} for name, texts in PLAIN.items()
    ]
    path = write(root / "t.jsonl", "\n".join(map(json.dumps, rows)).encode("utf-8-sig"))
    assert contents(TableSource(path)) == PLAIN


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_another_encoding_is_named_and_can_be_given(root: Path, name: str) -> None:
    rows = [{"image": path, "caption": texts[0]} for path, texts in PLAIN.items()]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = write(root / name, (CSV if name == "t.csv" else lines).encode("cp1252"))
    message = message_of(TableSource, path)
    assert f"rows with bytes that are not UTF-8: 1 (row {2 if name == 't.csv' else 1})" in message
    assert "name its encoding with --data.encoding" in message
    config = SourceConfig(source="table", root=path, encoding="cp1252")
    source = open_source(config, split="train")
    assert source is not None
    assert contents(source) == PLAIN
    assert source.identity()["encoding"] == "cp1252"


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "\0", "zlib"])
def test_what_is_no_encoding_of_text_is_refused(encoding: str) -> None:
    config = SourceConfig(source="table", root=Path("x.csv"), encoding=encoding)
    with pytest.raises(ConfigError, match=r"--data\.encoding must be a text encoding"):
        open_source(config, split="train")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("caption\thttp://x/1.jpg\na\thttp://x/2.jpg\n", "the first row must name the columns"),
        ("image,caption,caption\na/1.jpg,,x\n", "2 columns are named caption: rename the others"),
        ("image,caption\nhttps://x/1.jpg,x\n", "paths that are URLs: 1 (row 2: https://x/1.jpg)"),
        ("image,caption\nfile:///a/1.jpg,x\n", "paths that are URLs: 1"),
        ("image,caption\nC:\\data\\1.jpg,x\n", "paths that lead elsewhere: 1 (row 2: C:\\data"),
        ("image,caption\n..\\..\\1.jpg,x\n", "images listed but absent: 1"),
        ("image,caption\na/1.jpg,x,y\n", "rows that cannot be read: 1 (row 2: 3 fields, not 2)"),
    ],
)
def test_what_is_not_plain_is_one_message_with_row_reason_and_remedy(
    root: Path, text: str, part: str
) -> None:
    assert part in message_of(TableSource, write(root / "t.csv", text))


def test_a_folder_is_no_table(root: Path) -> None:
    write(root / "t.parquet" / "part-0.parquet", b"")
    assert "It is a folder. Name one table" in message_of(TableSource, root / "t.parquet")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_a_file_without_line_breaks_does_not_fill_the_memory(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_text, "MAX_LINE", 1000)
    path = write(root / name, "image,caption\n" + "x" * 3000)
    message = message_of(TableSource, path)
    assert "line 2 has more than 1,000 characters" in message or name == "t.json"


def test_deeply_nested_json_lines_are_named(root: Path) -> None:
    lines = ['{"image": "a/1.jpg", "caption": "x"}', '{"image": ' * 50_000, "[" * 100_000]
    message = message_of(TableSource, write(root / "t.jsonl", "\n".join(lines)))
    assert "rows that cannot be read: 2 (row 2: maximum recursion depth" in message


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_types_that_mean_the_same_are_read_alike(root: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    names, captions = list(PLAIN), [list(texts) for texts in PLAIN.values()]
    for images in (
        names,
        pa.array(names, pa.large_string()),
        pa.array(names).dictionary_encode(),
        [{"bytes": None, "path": name} for name in names],
        [{"path": name} for name in names],
    ):
        for texts in (
            captions,
            pa.array(captions, pa.large_list(pa.large_string())),
            [one[0] for one in captions],
        ):
            path = write_parquet(root / "t.parquet", {"image": images, "captions": texts})
            assert contents(TableSource(path)) == PLAIN


def test_lists_of_captions_may_be_empty_or_null(root: Path) -> None:
    columns = {"image": ["a/1.jpg"] * 4, "captions": [["x"], None, [], ["y", "z"]]}
    path = write_parquet(root / "t.parquet", columns, row_group_size=3)
    assert "none: 2 (row 2, row 3)" in message_of(TableSource, path)
    source = TableSource(path, missing_caption_limit=0.5)
    assert contents(source) == {"a/1.jpg": ("x", "y", "z")}


@pytest.mark.parametrize("images", [[b"GIF"], [{"bytes": b"GIF", "path": "a/1.jpg"}]])
def test_images_inside_a_parquet_file_are_named(root: Path, images: list[Any]) -> None:
    path = write_parquet(root / "t.parquet", {"image": images, "text": ["x"]})
    message = message_of(TableSource, path)
    assert "its column image holds images, not their paths: write the images to files" in message


@pytest.mark.parametrize(
    ("captions", "kind"),
    [
        ([{"raw": "a cat"}], "struct<raw: string>"),
        ([[{"raw": "a cat"}]], "list<element: struct<raw: string>>"),
        ([{"path": "a cat"}], "struct<path: string>"),
    ],
)
def test_parquet_captions_that_are_records_are_named(
    root: Path, captions: list[Any], kind: str
) -> None:
    path = write_parquet(root / "t.parquet", {"image": ["a.jpg"], "captions": captions})
    message = message_of(TableSource, path)
    assert f"its column captions is of the type {kind}, and must hold text" in message


def test_a_parquet_file_that_decodes_into_gigabytes_is_refused(root: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    num_rows = 3000
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), ["x" * 1_000_000])
    columns = {"image": ["a/1.jpg"] * num_rows, "caption": texts}
    path = write_parquet(root / "t.parquet", columns, compression="zstd")
    assert path.stat().st_size < 20_000
    assert "rows are far too large for its size" in message_of(TableSource, path)


@pytest.mark.parametrize(
    ("limit", "value"),
    [("MAX_ROW_GROUP_BYTES", 99), ("MAX_ROW_GROUP_VALUES", 99), ("FREE_CHARACTERS", 99)],
)
def test_a_row_group_that_is_too_large_is_refused(
    root: Path, limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_parquet, limit, value)
    monkeypatch.setattr(table_parquet, "MAX_EXPANSION", 0)
    columns = {"image": ["a/1.jpg"] * 100, "caption": [f"caption {i}" for i in range(100)]}
    path = write_parquet(root / "t.parquet", columns)
    assert "row group 0 decodes into 100 values" in message_of(TableSource, path)


def test_a_long_text_that_lists_repeat_is_refused(root: Path) -> None:
    columns = {"image": ["a/1.jpg"] * 10, "caption": [["x" * 2_000_000] * 5] * 10}
    path = write_parquet(root / "t.parquet", columns, compression="zstd")
    assert "too many for its size; write it with smaller" in message_of(TableSource, path)


def test_metadata_on_which_pyarrow_aborts_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table = pyarrow.table({"image": ["a.png"], "caption": ["a cat"]})
    pyarrow.parquet.write_table(table, path)
    content = path.read_bytes()
    byte_array, number = b"\x15\x0c\x25", b"\x15\x08\x25"  # types of a column in the schema
    assert byte_array in content
    path.write_bytes(content.replace(byte_array, number, 1))
    with pytest.raises(DataError, match="its metadata are damaged"):
        TableSource(path)
