"""How files are read: every encoding that Python names, any delimiter and quote, gzip and zip, and guesses."""

from __future__ import annotations

import codecs
import encodings
import gzip
import io
import pkgutil
import zipfile
from typing import Any

import pytest

from modeling.core.tables import Findings, Layout, Reading, open_table
from modeling.core.text_encodings import NOT_FOR_TABLES, codec_name
from tests.core.test_tables import read, rebuilt, refusal

SAMPLE = "name,note\nana,one two\nbo,three\n"


def every_codec() -> list[str]:
    """The names of all text encodings that Python ships."""
    found = set()
    for module in pkgutil.iter_modules(encodings.__path__):
        try:
            found.add(codec_name(module.name))
        except LookupError:
            continue
    return sorted(found)


def test_all_of_pythons_text_encodings_are_there() -> None:
    assert len(every_codec()) > 95
    assert not set(every_codec()) & NOT_FOR_TABLES


@pytest.mark.parametrize(
    "name", ["rot13", "zip", "hex", "idna", "punycode", "unicode_escape", "utf-7", "no such", "a\0b", "é"]
)
def test_what_is_no_encoding_of_tables_is_refused(name: str) -> None:
    with pytest.raises(LookupError):
        codec_name(name)
    assert refusal(SAMPLE.encode(), encoding=name).rule == "encoding"


def test_every_encoding_is_read_and_written_again() -> None:
    for name in every_codec():
        content = SAMPLE.encode(name)
        table, rows, findings = read(content, encoding=name)
        assert [row.values for row in rows] == [["ana", "one two"], ["bo", "three"]], name
        assert not findings.kept
        if name not in ("utf-16", "utf-32", "utf-8-sig"):
            assert rebuilt(table, rows) == content, name
        assert table.layout.found["encoding"] == "declared"


LETTERS = {
    "cp1252": "id;name\n1;Müller\n2;Schäfer aus Köln\n3;Größe\n",
    "cp1250": "id,tekst\n1,Zażółć gęślą jaźń proszę\n2,Łódź i Kraków są piękne\n",
    "cp1251": "id,текст\n1,Пациент жалуется на головную боль\n2,Назначено лечение\n",
    "koi8-r": "id,текст\n1,Пациент жалуется на головную боль\n2,Назначено лечение\n",
    "gb18030": "编号,内容\n1,患者主诉头痛三天伴有发热\n2,建议复查血常规\n",
    "big5": "編號,內容\n1,患者主訴頭痛三天伴有發熱\n2,建議複查血常規\n",
    "cp932": "番号,内容\n1,患者は三日前から頭痛を訴えている\n2,血液検査をお願いします\n",
    "euc_jp": "番号,内容\n1,患者は三日前から頭痛を訴えている\n2,血液検査をお願いします\n",
    "cp949": "번호,내용\n1,환자는 사흘 전부터 두통을 호소하고 있다\n2,혈액 검사가 필요합니다\n",
    "cp1253": "α,κείμενο\n1,Ο ασθενής παραπονιέται για πονοκέφαλο\n",
}


@pytest.mark.parametrize("name", LETTERS)
def test_letters_tell_the_encoding_which_is_called_a_guess(name: str) -> None:
    table, rows, _ = read(LETTERS[name].encode(name))
    expected, _, _ = read(LETTERS[name].encode())
    assert table.layout.columns == expected.layout.columns
    assert (table.layout.encoding, table.layout.found["encoding"]) == (codecs.lookup(name).name, "likely")
    assert expected.layout.found["encoding"] == "utf8"
    assert rebuilt(table, rows) == LETTERS[name].encode(name)


@pytest.mark.parametrize("mark", ["^", "~", ":", "\x1f", " ", "é", "·"])
def test_any_delimiter(mark: str) -> None:
    content = f"a{mark}b\n1{mark}x\n".encode()
    table, rows, _ = read(content, delimiter=mark)
    assert rows[0].values == ["1", "x"]
    assert rebuilt(table, rows) == content


def test_single_quotes_are_guessed_or_declared() -> None:
    content = b"a,b\n'x, y',1\n'it''s',2\n'z',3\n" + b"'q',4\n" * 20
    table, rows, _ = read(content)
    assert (table.layout.quote, table.layout.found["quote"]) == ("'", "likely")
    assert rows[0].values == ["x, y", "1"]
    assert rows[1].values == ["it's", "2"]
    assert rebuilt(table, rows) == content
    few, _, _ = read(b"a,b\n'tis,1\nx,2\n")
    assert (few.layout.quote, few.layout.found["quote"]) == ('"', "default")


def test_quotes_can_mean_nothing() -> None:
    content = b'a,b\n"x,1\ny",2\n'
    table, rows, findings = read(content, quote="none")
    assert [row.values for row in rows] == [['"x', "1"], ['y"', "2"]]
    assert not findings.kept
    assert rebuilt(table, rows) == content


def test_a_layout_from_before_reads_as_it_did() -> None:
    old = {"format": "csv", "encoding": "utf-8", "newline": "\n", "columns": ["a"], "delimiter": ","}
    assert Layout.from_json(old).quote == '"'


def packed(content: bytes, how: str, **zip_settings: Any) -> bytes:
    """The content in gzip or zip."""
    if how == "gzip":
        return gzip.compress(content)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../etc/notes.jsonl" if zip_settings.get("slip") else "notes.csv", content)
    return sink.getvalue()


@pytest.mark.parametrize("how", ["gzip", "zip"])
def test_packed_files_are_read_as_what_is_inside(how: str) -> None:
    table, rows, _ = read(packed(SAMPLE.encode(), how), f"notes.csv.{how}")
    assert [row.values for row in rows] == [["ana", "one two"], ["bo", "three"]]
    assert table.layout.found["packed"] == how
    assert rebuilt(table, rows) == SAMPLE.encode()


def test_gzip_in_several_members_and_filled_up_with_zeros() -> None:
    halves = gzip.compress(SAMPLE[:9].encode()) + gzip.compress(SAMPLE[9:].encode()) + bytes(512)
    assert [row.values for row in read(halves, "x.csv.gz")[1]] == [["ana", "one two"], ["bo", "three"]]


class Unseekable(io.RawIOBase):
    """A sink that cannot be sought in, so that zipfile writes data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_zip_that_says_its_sizes_afterwards(is_wide: bool) -> None:
    sink = Unseekable()
    with (
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(zipfile.ZipInfo("notes.csv"), "w", force_zip64=is_wide) as place,
    ):
        place.write(SAMPLE.encode())
    # ZipInfo of its own stores: deflate it as archivers do
    deflated = Unseekable()
    info = zipfile.ZipInfo("notes.csv")
    info.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(deflated, "w") as archive,
        archive.open(info, "w", force_zip64=is_wide) as place,
    ):
        place.write(SAMPLE.encode())
    assert len(read(bytes(deflated.data), "x.zip")[1]) == 2
    assert refusal(bytes(sink.data), "x.zip").rule == "archive_method"


def test_what_macos_adds_to_a_zip_is_passed_over() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/", b"")
        archive.writestr("data/notes.csv", SAMPLE)
        archive.writestr("__MACOSX/data/._notes.csv", b"\x00\x05\x16\x07")
    assert len(read(sink.getvalue(), "x.zip")[1]) == 2


def test_the_name_inside_counts_by_its_ending_only() -> None:
    content = b'{"a": 1}\n{"a": 2}\n'
    table, rows, _ = read(packed(content, "zip", slip=True), "x.zip")
    assert (table.layout.format, table.layout.found["format"], len(rows)) == ("jsonl", "beginning", 2)


def test_a_declared_format_wins() -> None:
    content = b'{"a";"b"\n1;2\n'
    findings = Findings()
    table = open_table([content], Reading("x", format="csv", quote="none"), findings)
    assert table.layout.columns == ('{"a"', '"b"')
    assert refusal(b"a,b\n1,2\n", format="parquet").rule == "format"
