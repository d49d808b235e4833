"""CSV and JSON lines to rows: what is read, what is refused, where, and that content never shows in an error."""

from __future__ import annotations

import random
from typing import Any

import pytest

from modeling.core.tables import FileRefused, Findings, Reading, RowError, Table, open_table, render


def read(content: bytes, name: str = "x.csv", **declared: Any) -> tuple[Table, list[Any], Findings]:
    """Parse in small chunks, as they come from a pipe."""
    findings = Findings()
    chunks = [content[at : at + 7] for at in range(0, len(content), 7)]
    table = open_table(chunks, Reading(name, **declared), findings)
    return table, list(table), findings


def values(content: bytes, name: str = "x.csv", **declared: Any) -> list[Any]:
    """The values of all rows."""
    return [row.values for row in read(content, name, **declared)[1]]


def errors(content: bytes, name: str = "x.csv") -> list[tuple[int, int, str]]:
    """(line, column, rule) of the rows that were left out."""
    return [(error.line, error.column, error.rule) for error in read(content, name)[2].kept]


def refusal(content: bytes, name: str = "x.csv", **declared: Any) -> RowError:
    """The error of a file that is refused as a whole."""
    with pytest.raises(FileRefused) as caught:
        read(content, name, **declared)
    return caught.value.error


def rebuilt(table: Table, rows: list[Any]) -> bytes:
    """The file as it is written again from its rows."""
    texts = [row.raw if row.raw is not None else render(table.layout, row.values) for row in rows]
    return "".join([table.layout.lead, *texts, table.tail]).encode(table.layout.encoding)


def test_it_works() -> None:
    table, rows, findings = read(b'id,text\n1,"a, ""b"""\n2,c\n')
    assert table.layout.columns == ("id", "text")
    assert [(row.line, row.values) for row in rows] == [(2, ["1", 'a, "b"']), (3, ["2", "c"])]
    assert not findings.kept


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_guessed(delimiter: str) -> None:
    content = delimiter.join(["a", "b", "c"]) + "\n" + delimiter.join(["1", "x y", "z"]) + "\n"
    table, rows, _ = read(content.encode())
    assert table.layout.delimiter == delimiter
    assert rows[0].values == ["1", "x y", "z"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_are_guessed(encoding: str) -> None:
    assert values("name,city\nZoë,Łódź\n".encode(encoding)) == [["Zoë", "Łódź"]]


def test_what_is_not_utf_8_is_guessed_and_said_to_be_a_guess() -> None:
    content = "name\nZoë\n".encode("latin-1")
    assert values(content, encoding="latin-1") == [["Zoë"]]
    table, rows, _ = read(content)
    assert rows[0].values == ["Zoë"]
    assert (table.layout.encoding, table.layout.found["encoding"]) == ("cp1252", "likely")
    error = refusal(content, encoding="utf-8")
    assert (error.line, error.column, error.rule) == (2, 3, "encoding")


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b"a,b\r\n1,2\r\n",
        b"a,b\n1,2",
        b"a;b\n\n\n1;2\n\n3;4\n\n",
        b'"a","b"\n"1","2"\n',
        b'a,b\n"x\ny",2\n3," 4 "\n5,six "quoted"\n',
        "a,b\né,ü\n".encode("utf-8-sig"),
        "a,b\né,ü\n".encode("utf-16"),
        "a,b\n€,ü\n".encode("utf-16-be"),
        b"a\rb\rc\r",
        b'{"a": 1, "b": "x"}\n{"b": "y", "a": 2.50}\n\n{"a":null,"b":"z"}\n',
        b'{"a":1,"b":"\\u00e9"}\r\n{"a":1e3,"b":[1,{"c":true}]}\r\n',
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}',
    ],
)
def test_the_file_can_be_written_again_to_the_byte(content: bytes) -> None:
    table, rows, findings = read(content, "x.jsonl" if b"{" in content else "x.csv")
    assert not findings.kept
    assert rebuilt(table, rows) == content


def test_random_files_can_be_written_again() -> None:
    source = random.Random(7)
    pieces = ["a", "é", ",", ";", '""', "\n", " ", "\t", "42", "€", "'"]
    for _ in range(300):
        lines = ["x,y\n"]
        for _ in range(source.randrange(1, 6)):
            cells = []
            for _ in range(2):
                text = "".join(source.choices(pieces, k=source.randrange(0, 5)))
                quoted = source.random() < 0.3 or any(mark in text for mark in ',\n"\t;')
                cells.append(f'"{text}"' if quoted else text)
            lines.append(",".join(cells) + source.choice(["\n", "\n", "\r\n"]))
        content = "".join(lines).encode()
        table, rows, findings = read(content)
        assert not findings.kept, content
        assert rebuilt(table, rows) == content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2\n3\n4,5\n", (3, 2, "ragged")),
        (b"a,b\n1,2,3\n", (2, 3, "ragged")),
        (b"a,b\n1,x\x00y\n", (2, 2, "nul")),
        (b'a,b\n"x"y,2\n', (2, 4, "quote")),
        (b'a,b\n1,2\n3,"open\n', (3, 3, "quote_open")),
        (b'a,b\n"x\ny"z,2\n', (2, 3, "quote")),
        (b"a,b\r\n1,x\ry\r\n", (2, 0, "line_end")),
    ],
)
def test_bad_csv_rows_are_placed(content: bytes, expected: tuple[int, int, str]) -> None:
    assert errors(content) == [expected]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'a,b\n1,2\n3,"open\n', "opened here."),
        (b'a,b\n1,2\n3,"open\n4,5\n', "the line after it was taken"),
        (b'a,b\n1,2\n3,"open\n' + b"4,5\n" * 1_200, "the 1,200 lines after it were taken"),
    ],
)
def test_an_open_quote_tells_how_many_lines_it_swallowed(content: bytes, words: str) -> None:
    _table, _rows, findings = read(content)
    assert words in findings.kept[0].fix


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": NaN}', (2, 7, "number")),
        (b'{"a": -Infinity}', (2, 7, "number")),
        (b'{"a": 1e999}', (2, 7, "number")),
        (b'{"a": 123456789012345678901234567890}', (2, 7, "number")),
        (b'{"a": "NaN", "a": 1}', (2, 14, "duplicate_key")),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', (2, 24, "duplicate_key")),
        (b'{"a": "x\\u0000y"}', (2, 9, "nul")),
        (b'{"a": "\\ud800"}', (2, 8, "surrogate")),
        (b'{"a": "x\x00y"}', (2, 9, "nul")),
        (b'{"a": 1', (2, 8, "json")),
        (b"{'a': 1}", (2, 2, "json")),
        (b"[1, 2]", (2, 1, "not_an_object")),
        (b'{"a": ' + b"[" * 50_000 + b"}", (2, 1, "too_deep")),
        (b'{"b": 1}', (2, 0, "ragged")),
    ],
)
def test_bad_json_rows_are_placed(line: bytes, expected: tuple[int, int, str]) -> None:
    assert errors(b'{"a": 1}\n' + line + b'\n{"a": 2}\n', "x.jsonl") == [expected]


@pytest.mark.parametrize(
    ("messages", "rule"),
    [
        ("[]", "messages"),
        ('"hi"', "messages"),
        ('[{"role": "wizard", "content": "x"}]', "messages_role"),
        ('[{"role": "user", "content": ""}]', "messages_content"),
        ('[{"role": "user", "content": "x"}]', "messages_end"),
        ('[{"role": "assistant", "content": "x"}]', "messages_user"),
    ],
)
def test_bad_conversations_are_named(messages: str, rule: str) -> None:
    good = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    content = (good + '{"messages": ' + messages + "}\n").encode()
    assert errors(content, "x.jsonl") == [(2, 0, rule)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (0, 0, "empty")),
        (b"\xef\xbb\xbf \r\n", (0, 0, "empty")),
        (b"a,a\n1,2\n", (1, 2, "duplicate_column")),
        (b"a,,c\n1,2,3\n", (1, 2, "column_name")),
        (b'[{"a": 1}]', (1, 1, "json_list")),
        (b"a,b\n" + b"1,2\n" * 5 + b"3,\xc3\xa9\n4,\xff\n", (8, 3, "encoding")),
        (b"a,b\n1,\xe2\x82", (2, 3, "encoding")),
    ],
)
def test_refused_files_are_placed(content: bytes, expected: tuple[int, int, str]) -> None:
    error = refusal(content, "x")
    assert (error.line, error.column, error.rule) == expected


def test_errors_are_counted_and_the_first_thousand_kept() -> None:
    _, rows, findings = read(b"a,b\n" + b"1\n" * 1_500 + b"1,\x00\n1,2\n")
    assert len(findings.kept) == 1_000
    assert findings.by_rule == {"ragged": 1_500, "nul": 1}
    assert len(rows) == 1


def test_errors_never_repeat_a_cell() -> None:
    secret = "Tr0ubadour"
    lines = [
        f'a,b\n"{secret}"{secret},1\n{secret}\n{secret},"{secret}\n',
        f'{{"a": 1}}\n{{"{secret}": 1}}\n{{"a": {secret}}}\n{{"a": "{secret}", "a": "{secret}"}}\n',
    ]
    for name, content in zip(("x.csv", "x.jsonl"), lines, strict=True):
        _, _, findings = read(content.encode(), name)
        assert findings.kept
        assert secret not in str(findings.kept)
