"""Which text encoding a file is in: declared, told by its first bytes, or guessed with a reason that can be shown."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from modeling.core.file_errors import refuse

# Text by name, but no way to write a table: escapes, names of hosts, and UTF-7, which hides ASCII in ASCII.
NOT_FOR_TABLES = frozenset(
    {
        "charmap",
        "idna",
        "mbcs",
        "oem",
        "punycode",
        "raw-unicode-escape",
        "undefined",
        "unicode-escape",
        "utf-7",
    }
)
# What is told apart by its letters when neither mark nor UTF-8 says it; where two fit alike, the first is taken.
CANDIDATES = (
    "cp1252", "cp1250", "cp1251", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1253", "cp1254", "cp1255",
    "cp1256", "cp1257", "iso8859_2", "iso8859_5", "koi8_r", "tis_620", "mac_roman", "cp850", "cp866",
)  # fmt: skip
MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEQUENCE = re.compile(rb"[\xc0-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf7][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x19\x7f]")
_KANA, _HANGUL = re.compile("[\u3041-\u30ff]"), re.compile("[\uac00-\ud7a3]")
_HALF_WIDTH = re.compile("[\uff61-\uff9f]")
_ABOUT_ALIKE = 0.11


@dataclass(frozen=True)
class Encoding:
    """A codec's name and why: declared | mark | zeros | utf8 | likely (a guess from the letters)."""

    name: str
    why: str


def codec_name(declared: str) -> str:
    """Python's name of a text encoding, "" for ""; raises LookupError for what is none, or no encoding of tables."""
    if not declared:
        return ""
    if not declared.isascii() or len(declared) > 40 or "\0" in declared:
        raise LookupError("unknown encoding")
    info = codecs.lookup(declared.strip())
    if not getattr(info, "_is_text_encoding", True) or info.name in NOT_FOR_TABLES:
        raise LookupError("not an encoding of tables")
    return info.name


def prepare(declared: str) -> None:
    """Load every codec that may be needed: the limited child opens no file once its door is closed."""
    import charset_normalizer  # noqa: F401

    for name in (
        *CANDIDATES,
        *(name for _, name in MARKS),
        "utf-8-sig",
        "utf-16",
        "utf-32",
        "latin-1",
        "cp437",
    ):
        codecs.getincrementaldecoder(name)
    try:
        codecs.getincrementaldecoder(codec_name(declared) or "utf-8")
    except LookupError:
        return  # refused when the file is opened


def find_encoding(prefix: bytes, declared: str) -> Encoding:
    """The encoding of a file that begins with `prefix`; raises FileRefused for a name that is none."""
    try:
        name = codec_name(declared)
    except LookupError:
        raise refuse("encoding", "Declare a text encoding by its name, such as utf-8 or cp1252.") from None
    marked = next((found for mark, found in MARKS if prefix.startswith(mark)), "")
    if name in ("utf-8", "utf-8-sig"):
        return Encoding("utf-8", "declared")  # a byte order mark is kept apart by Lines
    if name in ("utf-16", "utf-32"):
        return Encoding(marked if marked.startswith(name) else f"{name}-le", "declared")
    if name:
        return Encoding(name, "declared")
    if marked:
        return Encoding(marked, "mark")
    return _by_zeros(prefix[:4096]) or _by_letters(prefix)


def _by_zeros(prefix: bytes) -> Encoding | None:
    even, odd = prefix[::2].count(0), prefix[1::2].count(0)
    half = max(1, len(prefix) // 2)
    if odd > 0.4 * half and even < 0.05 * half:
        return Encoding("utf-16-le", "zeros")
    return Encoding("utf-16-be", "zeros") if even > 0.4 * half and odd < 0.05 * half else None


def _by_letters(prefix: bytes) -> Encoding:
    """UTF-8 when all of it is, or most of what is not ASCII has its form: then the rest is damage, to be placed."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(prefix)
    except UnicodeDecodeError:
        in_form = sum(map(len, _SEQUENCE.findall(prefix)))
        if 2 * in_form >= len(_HIGH.findall(prefix)) or _CONTROL.search(prefix) or b"\0" in prefix:
            return Encoding("utf-8", "utf8")
        return Encoding(_likely(prefix[: prefix.rfind(b"\n") + 1] or prefix) or "utf-8", "likely")
    return Encoding("utf-8", "utf8")


def _likely(sample: bytes) -> str:
    """The candidate whose letters make the most sense, or "" when none does."""
    from charset_normalizer import from_bytes

    fits: list[tuple[float, float, str]] = []
    for match in from_bytes(sample, cp_isolation=list(CANDIDATES), preemptive_behaviour=False):
        for name in match.could_be_from_charset:
            penalty = _strangeness(name, str(match))
            if name in CANDIDATES and penalty is not None:
                fits.append((match.chaos + penalty, -match.coherence, name))
    if not fits:
        return ""
    best = min(fits)
    alike = [
        name
        for chaos, incoherence, name in fits
        if chaos <= best[0] + _ABOUT_ALIKE and incoherence <= best[1] + _ABOUT_ALIKE
    ]
    return codecs.lookup(min(alike, key=CANDIDATES.index)).name


def _strangeness(name: str, text: str) -> float | None:
    """A bonus for Japanese with its own letters; None for East Asian text without the letters that it always has."""
    beyond = sum(mark > "\x7f" for mark in text) or 1
    if name in ("cp932", "euc_jp"):
        is_real = len(_KANA.findall(text)) > 0.1 * beyond and len(_HALF_WIDTH.findall(text)) < 0.3 * beyond
        return -0.3 if is_real else None
    if name == "cp949":
        return 0.0 if len(_HANGUL.findall(text)) > 0.5 * beyond else None
    return 0.0
