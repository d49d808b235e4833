"""Hostile CSV and JSON lines, and text in broken encodings."""

from __future__ import annotations

import codecs
import json
from typing import Any

from modeling.core.tables import Budget
from tests.core.hostile_files import CANARY, MIB, add, forever, given

SECRET = CANARY.encode()
SHORT = Budget(decoded_bytes=4 * MIB)
TALK = {"role": "user", "content": CANARY}


def fill() -> None:
    """Put all of them into the corpus."""
    _csv_rows()
    _csv_files()
    _json_rows()
    _json_files()
    _conversations()
    _broken_text()
    _declared()


def _csv_rows() -> None:
    rows = {
        "ragged, one short": (SECRET, "ragged"),
        "ragged, one long": (SECRET + b",1,2", "ragged"),
        "ragged, 100,000 long": (SECRET + b",1" * 100_000, "ragged"),
        "NUL in a cell": (SECRET + b"\x00,1", "nul"),
        "NUL alone": (b"\x00,1", "nul"),
        "NUL in quotes": (b'"' + SECRET + b'\x00",1', "nul"),
        "text after a quote": (b'"' + SECRET + b'"' + SECRET + b",1", "quote"),
        "a quote in quotes": (b'"' + SECRET + b'" "x",1', "quote"),
        "a line of delimiters": (b"," * 50_000, "ragged"),
        "a formula and one cell too many": (b"=cmd|' /C calc'!A0," + SECRET + b",3", "ragged"),
    }
    for case, (row, rule) in rows.items():
        for ends, end in (("", b"\n"), (" and CRLF", b"\r\n")):
            content = end.join([b"a,b", b"1,2", row, b"3,4", b"5,6", b""])
            add(f"csv: {case}{ends}", given(content), rule, row=True)
    add("csv: a stray CR", given(b"a,b\r\n1," + SECRET + b"\rx\r\n3,4\r\n5,6\r\n"), "line_end", row=True)
    add("csv: the last quote is open", given(b'a,b\n1,2\n3,"' + SECRET), "quote_open", row=True)
    add(
        "csv: quotes of another kind open",
        given(b"a,b\n1,2\n3,'" + SECRET),
        "quote_open",
        row=True,
        declared={"quote": "'"},
    )
    mixed = b"a,b\n1,2\r\n" + SECRET + b"\n3,4\r\n"
    add("csv: mixed line ends", given(mixed), "ragged", row=True)
    for many in (1_500, 60_000):
        add(f"csv: {many} bad rows", given(b"a,b\n" + (SECRET + b"\n1,2\n2,3\n") * many), "ragged", row=True)


def _csv_files() -> None:
    add("csv: nothing", given(b""), "empty")
    add("csv: blanks only", given(b" \t\r\n" * 1_000), "empty")
    add("csv: zeros only", given(bytes(100_000)), "empty")
    add("csv: 10 million columns", lambda: [b"column," * 100_000] * 100, "row_too_long")
    add("csv: 10 million columns in a row", lambda: [b"a,b\n", *[b"1," * 100_000] * 100], "row_too_long")
    add(
        "csv: 200,000 columns",
        given(b",".join(b"%x" % n for n in range(170_000)) + b"\n"),
        "too_many_columns",
    )
    add("csv: 1,025 columns", given(b",".join(b"c%d" % n for n in range(1_025)) + b"\n"), "too_many_columns")
    add("csv: a quote never closed", lambda: forever(b"x,y\n" * 50_000, b'a,b\n1,"' + SECRET), "quote_open")
    add("csv: a quote in the header never closed", lambda: forever(b"x,y\n" * 50_000, b'a,"b'), "quote_open")
    add("csv: one line without end", lambda: forever(SECRET * 10_000, b"a,b\n"), "row_too_long")
    add("csv: one cell of 2 MiB", given(b"a,b\n1," + b"x" * 2 * MIB + b"\n"), "row_too_long")
    add("csv: one quoted cell of 2 MiB", given(b'a,b\n1,"' + b"x" * 2 * MIB + b'"\n'), "row_too_long")
    add("csv: a cell of 2 million lines", given(b'a,b\n1,"' + b"\n" * 2 * MIB + b'"\n'), "quote_open")
    add("csv: blank lines without end", lambda: forever(b"\n" * MIB, b"a,b\n1,2\n"), "blank_lines")
    add("csv: blank lines from the start", lambda: forever(b"\r\n" * MIB), "empty")
    add(
        "csv: rows without end",
        lambda: forever((b"1" * 200 + b",2\n") * 2_000, b"a,b\n"),
        "file_too_large",
        budget=SHORT,
    )
    add("csv: too many rows", given(b"a\n" + b"1\n" * 3_000), "file_too_large", budget=Budget(rows=1_000))
    for case, header, rule in (
        ("twice the same name", b"a," + SECRET + b"," + SECRET, "duplicate_column"),
        ("twice the same name but for blanks", b"a, " + SECRET + b"," + SECRET, "duplicate_column"),
        ("no names", b",,,", "column_name"),
        ("one name missing", b"a,,c", "column_name"),
        ("a name of blanks", b"a,  ,c", "column_name"),
        ("a name of 201 characters", b"a," + b"x" * 201, "column_name"),
        ("NUL in a name", b"a,b\x00" + SECRET, "nul"),
        ("text after a quote", b'"a"x,b', "quote"),
    ):
        add(f"csv header: {case}", given(header + b"\n1,2,3\n"), rule)
    add(
        "csv: more bad rows than memory would hold",
        lambda: [b"a,b\n", *[b"1\n" * 100_000] * 10],
        "ragged",
        row=True,
    )


def _json_rows() -> None:
    key = json.dumps(CANARY).encode()
    rows: dict[str, tuple[bytes, str]] = {
        "NaN": (b'{"a": NaN}', "number"),
        "Infinity": (b'{"a": Infinity}', "number"),
        "-Infinity": (b'{"a": -Infinity}', "number"),
        "1e999": (b'{"a": 1e999}', "number"),
        "-1e999": (b'{"a": -1e999}', "number"),
        "1E+400 in a list": (b'{"a": [1, [2, 1E+400]]}', "number"),
        "19 digits": (b'{"a": 1234567890123456789}', "number"),
        "a million digits": (b'{"a": ' + b"9" * 1_000_000 + b"}", "number"),
        "a million digits below zero": (b'{"a": -' + b"9" * 1_000_000 + b"}", "number"),
        "a million digits behind the point": (b'{"a": 0.' + b"1" * 1_000_000 + b"}", "number"),
        "a hexadecimal number": (b'{"a": 0x10}', "json"),
        "a leading zero": (b'{"a": 010}', "json"),
        "a plus sign": (b'{"a": +1}', "json"),
        "no digit before the point": (b'{"a": .5}', "json"),
        "no digit behind the point": (b'{"a": 1.}', "json"),
        "single quotes": (b"{'a': 1}", "json"),
        "no quotes": (b"{a: 1}", "json"),
        "a comma too many": (b'{"a": 1,}', "json"),
        "a comment": (b'{"a": 1} // ' + SECRET, "json"),
        "Python's True": (b'{"a": True}', "json"),
        "undefined": (b'{"a": undefined}', "json"),
        "a bare word": (SECRET, "json"),
        "half an object": (b'{"a": ', "json"),
        "half a string": (b'{"a": "' + SECRET, "json"),
        "half an escape": (b'{"a": "\\u12"}', "json"),
        "an unknown escape": (b'{"a": "\\x41"}', "json"),
        "a tab in a string": (b'{"a": "x\ty"}', "json"),
        "two objects": (b'{"a": 1}{"a": 2}', "json"),
        "a NUL": (b'{"a": "' + SECRET + b'\x00"}', "nul"),
        "an escaped NUL": (b'{"a": "' + SECRET + b'\\u0000"}', "nul"),
        "an escaped NUL in a key": (b'{"a": {"x\\u0000": 1}}', "nul"),
        "a lone surrogate": (b'{"a": "' + SECRET + b'\\ud800"}', "surrogate"),
        "a lone low surrogate": (b'{"a": "\\udc00"}', "surrogate"),
        "surrogates in the wrong order": (b'{"a": "\\udc00\\ud800"}', "surrogate"),
        "a lone surrogate in a key": (b'{"a": {"\\ud800": 1}}', "surrogate"),
        "duplicate keys": (b'{"a": 1, "a": ' + key + b"}", "duplicate_key"),
        "duplicate keys, one escaped": (b'{"a": 1, "\\u0061": 2}', "duplicate_key"),
        "duplicate keys inside": (b'{"a": {' + key + b": 1, " + key + b": 2}}", "duplicate_key"),
        "duplicate keys in a list": (b'{"a": [{"b": 1, "b": 2}]}', "duplicate_key"),
        "deep lists": (b'{"a": ' + b"[" * 500_000 + b"}", "too_deep"),
        "deep and closed lists": (b'{"a": ' + b"[" * 400_000 + b"]" * 400_000 + b"}", "too_deep"),
        "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        "deep in turns": (b'{"a":[' * 90_000 + b"1" + b"]}" * 90_000, "too_deep"),
        "fields of its own": (b'{"a": 1, ' + key + b": 2}", "ragged"),
        "50,000 fields": (json.dumps({f"k{n}": n for n in range(50_000)}).encode(), "ragged"),
        "a list": (b"[1, 2]", "not_an_object"),
        "a text": (key, "not_an_object"),
        "a number": (b"42", "not_an_object"),
        "null": (b"null", "not_an_object"),
        "true": (b"true", "not_an_object"),
    }
    for case, (row, rule) in rows.items():
        content = b'{"a": 1}\n' + row + b'\n{"a": 2}\n{"a": 3}\n'
        add(f"json: {case}", given(content), rule, row=True, name="x.jsonl")


def _json_files() -> None:
    name = "x.jsonl"
    add("json: one list", given(b'[{"a": 1}, {"a": 2}]'), "json_list", name="x.json")
    add("json: a list without end", lambda: forever(b'{"a": 1},' * 9_999, b"["), "json_list", name=name)
    add("json: no object", given(b"42\n" * 3), "not_an_object", name=name)
    add("json: over many lines", given(b'{\n"a": "' + SECRET + b'"\n}\n'), "json", name=name)
    add("json: CSV", given(b"a,b\n" + SECRET + b",2\n"), "json", name=name)
    add("json: an object without fields", given(b"{}\n{}\n"), "column_name", name=name)
    add("json: a name of blanks", given(b'{" ": 1}\n'), "column_name", name=name)
    add(
        "json: a name of 201 characters",
        given(json.dumps({"x" * 201: 1}).encode() + b"\n"),
        "column_name",
        name=name,
    )
    many = json.dumps({f"k{n}": n for n in range(50_000)}).encode() + b"\n"
    add("json: 50,000 columns", given(many), "too_many_columns", name=name)
    add(
        "json: a string without end",
        lambda: forever(b"x" * MIB, b'{"a": "' + SECRET),
        "row_too_long",
        name=name,
    )
    add(
        "json: blank lines without end", lambda: forever(b"\n" * MIB, b'{"a": 1}\n'), "blank_lines", name=name
    )
    add(
        "json: objects without end",
        lambda: forever(b'{"a": "x"}\n' * 50_000),
        "file_too_large",
        name=name,
        budget=SHORT,
    )
    add(
        "json: a mark in the middle",
        given(b'{"a": 1}\n\xef\xbb\xbf{"a": 2}\n{"a": 3}\n'),
        "json",
        row=True,
        name=name,
    )


def _conversations() -> None:
    good = json.dumps({"messages": [TALK, {"role": "assistant", "content": "a"}]})
    turns: dict[str, tuple[Any, str]] = {
        "no turns": ([], "messages"),
        "a text": (CANARY, "messages"),
        "nothing": (None, "messages"),
        "a number": (7, "messages"),
        "a wizard": ([{"role": "wizard", "content": CANARY}], "messages_role"),
        "a turn that is a text": ([CANARY], "messages_role"),
        "a role that is a list": ([{"role": ["user"], "content": CANARY}], "messages_role"),
        "no content": ([TALK, {"role": "assistant"}], "messages_content"),
        "blank content": ([TALK, {"role": "assistant", "content": " \n"}], "messages_content"),
        "content in parts": (
            [{"role": "user", "content": [{"type": "text", "text": CANARY}]}],
            "messages_content",
        ),
        "the user has the last word": ([TALK], "messages_end"),
        "nobody asks": ([{"role": "assistant", "content": CANARY}], "messages_user"),
    }
    for case, (messages, rule) in turns.items():
        content = f"{good}\n{json.dumps({'messages': messages})}\n{good}\n".encode()
        add(f"chat: {case}", given(content), rule, row=True, name="x.jsonl")


def _broken_text() -> None:
    for mark in (
        codecs.BOM_UTF8,
        codecs.BOM_UTF16_LE,
        codecs.BOM_UTF16_BE,
        codecs.BOM_UTF32_LE,
        codecs.BOM_UTF32_BE,
    ):
        add(f"encoding: only the mark {mark.hex()}", given(mark), "empty")
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        mark = "\ufeff".encode(name)
        text = mark + f"a,b\n1,{CANARY}\n".encode(name)
        add(f"encoding: {name} cut in half", given(text[:-1]), "encoding")
        far = mark + ("a,b\n" + "1,2\n" * 100_000).encode(name)
        add(f"encoding: {name} cut in half far away", given(far[:-1]), "encoding")
    bad_utf8 = {
        "overlong NUL": b"\xc0\x80",
        "overlong slash": b"\xc0\xaf",
        "overlong letter": b"\xc1\xa1",
        "overlong slash in three": b"\xe0\x80\xaf",
        "overlong slash in four": b"\xf0\x80\x80\xaf",
        "a surrogate": b"\xed\xa0\x80",
        "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80",
        "far beyond Unicode": b"\xf7\xbf\xbf\xbf",
    }
    for case, data in bad_utf8.items():
        add(f"encoding: {case}", given(b"a,b\n1,2\n" + SECRET + data + b",4\n"), "encoding")
        add(
            f"encoding: {case} far away",
            given(b"a,b\n" + b"1,2\n" * 50_000 + SECRET + data + b",4\n"),
            "encoding",
        )
    add("encoding: a character cut in half", given(b"a,b\n1," + SECRET + b"\xe2\x82"), "encoding")
    add("encoding: mostly UTF-8", given("a,b\né,ü\n".encode() * 9 + SECRET + b",\xff\n"), "encoding")
    add("encoding: Latin-1 far away", given(b"a,b\n" + b"1,2\n" * 100_000 + SECRET + b",\xe9\n"), "encoding")
    halves = {"high": b"\x00\xd8", "low": b"\x00\xdc", "swapped": b"\x00\xdc\x00\xd8"}
    for case, half in halves.items():
        little = f"\ufeffa,b\n1,{CANARY}".encode("utf-16-le") + half + "\n".encode("utf-16-le")
        add(f"encoding: a lone {case} surrogate in utf-16-le", given(little), "encoding")
        big = b"".join(little[at : at + 2][::-1] for at in range(0, len(little), 2))
        add(f"encoding: a lone {case} surrogate in utf-16-be", given(big), "encoding")
    for case, code in {"a surrogate": 0xD800, "beyond Unicode": 0x110000, "all ones": 0xFFFFFFFF}.items():
        for name, order in (("utf-32-le", "little"), ("utf-32-be", "big")):
            wide = f"\ufeffa,b\n1,{CANARY}".encode(name) + code.to_bytes(4, order)  # type: ignore[arg-type]
            add(f"encoding: {case} in {name}", given(wide), "encoding")


def _declared() -> None:
    for name in (
        "rot13",
        "zip",
        "hex",
        "base64",
        "bz2",
        "idna",
        "punycode",
        "unicode_escape",
        "utf-7",
        "undefined",
    ):
        add(f"encoding: declared {name}", given(b"a,b\n1,2\n"), "encoding", declared={"encoding": name})
    for name in ("../../etc/passwd", "A" * 5_000, "utf-8\0", "é", "os.system", "no-such"):
        case = f"encoding: declared {name[:20]!a}"
        add(case, given(b"a,b\n1,2\n"), "encoding", declared={"encoding": name})
    broken = {
        "ascii": b"\xe9",
        "utf-8": b"\xe9",
        "shift_jis": b"\x81\x20",
        "gb18030": b"\x81\xff",
        "big5": b"\xa1\x20",
        "euc_jp": b"\xa1\x20",
        "euc_kr": b"\xa1\x20",
        "cp1252": b"\x81",
        "cp949": b"\x81\x20",
        "iso2022_jp": b"\x1b$B\xff",
        "hz": b"~{\xff",
        "utf-16": b"\x00",
        "utf-32": b"\x00",
        "johab": b"\xd9\x20",
    }
    for name, data in broken.items():
        text = f"a,b\n1,{CANARY}".encode(name if not name.startswith("utf-8") else "utf-8")
        add(f"encoding: broken {name}", given(text + data), "encoding", declared={"encoding": name})
    for mark in ("", ",,", "\n", "\0"):
        if mark:
            add(f"delimiter: {mark!a}", given(b"a,b\n1,2\n"), "delimiter", declared={"delimiter": mark})
            add(f"quote: {mark!a}", given(b"a,b\n1,2\n"), "quote", declared={"quote": mark})
    same = {"delimiter": "'", "quote": "'"}
    add("delimiter: the quotation mark", given(b"a'b\n1'2\n"), "delimiter", declared=same)
    add("format: Parquet, said of CSV", given(b"a,b\n1,2\n"), "format", declared={"format": "parquet"})
    add("format: JSON, said of CSV", given(b"a,b\n" + SECRET + b",2\n"), "json", declared={"format": "jsonl"})
