"""Decoded lines of a file of unknown origin, counted, within the budget of decoded bytes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from modeling.core.file_errors import Budget, FileRefused, refuse
from modeling.core.text_encodings import find_encoding

PREFIX_BYTES = 1 << 16
BLANK_CHARACTERS = 1 << 14


def guess_newline(text: str) -> str:
    """The line end the beginning of the file uses: "\\r\\n", "\\n", or "\\r" when there is no other."""
    at = text.find("\n")
    if at < 0:
        return "\r" if "\r" in text[:-1] else "\n"
    return "\r\n" if text[at - 1 : at] == "\r" else "\n"


class Lines:
    """Decoded lines with their ends, counted from 1, within the budget of decoded bytes."""

    def __init__(self, chunks: Iterable[bytes], declared: str, budget: Budget) -> None:
        self._chunks = iter(chunks)
        self._budget = budget
        held = b""
        for chunk in self._chunks:
            held += chunk
            if len(held) >= PREFIX_BYTES:
                break
        if not held.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
            raise refuse("empty", "The file is empty. Upload a CSV with a header and rows, or JSON lines.")
        found = find_encoding(held[:PREFIX_BYTES], declared)
        self.encoding = found.name
        self.encoding_why = found.why
        self._decoder = codecs.getincrementaldecoder(self.encoding)("strict")
        self.number = 0  # of the line last handed out
        self._decoded_bytes = 0
        self._rest = ""
        self._ended = False
        first = self._decode(held)
        self.mark = (
            "\ufeff" if first.startswith("\ufeff") else ""
        )  # the byte order mark, written back on rebuilding
        first = first[len(self.mark) :]
        self.prefix = first[:PREFIX_BYTES]
        self.newline = guess_newline(self.prefix)
        self._split = "\r" if self.newline == "\r" else "\n"
        self._ready: Iterator[str] = self._cut(first)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._ready, None)
        while line is None:
            if self._ended:
                raise StopIteration
            self._more()
            line = next(self._ready, None)
        self.number += 1
        return line

    def take(self) -> bytes:
        """All whole lines at hand in UTF-8, not yet counted; reads on when there are none; b"" at the end."""
        data = "".join(self._ready).encode(errors="surrogatepass")
        while not data and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._more()
                return "".join(self._ready).encode(errors="surrogatepass")
            data, self._rest = self._whole_lines(chunk)
            self._check_rest(data.count(self._split.encode()))
        return data

    def _whole_lines(self, chunk: bytes) -> tuple[bytes, str]:
        """(whole lines in UTF-8, the rest) of what was left over and a chunk."""
        held = self._rest.encode(errors="surrogatepass")
        if self.encoding == "utf-8":  # checked, and kept as it is but for a character cut in two
            before = self._decoder.getstate()[0]
            self._decode(chunk)
            after = len(self._decoder.getstate()[0])
            held += before + chunk
            held = held[: len(held) - after]
        else:
            held += self._decode(chunk).encode(errors="surrogatepass")
        cut = held.rfind(self._split.encode()) + 1
        return held[:cut], held[cut:].decode(errors="surrogatepass")

    def hand_back(self, lines: Iterator[str], taken: int) -> None:
        """Go on with these lines, after `taken` of what `take` gave were used."""
        self.number += taken
        self._ready = lines

    def keep_blank(self, blank: str) -> str:
        """The blank lines before a row, as given; raises FileRefused when there are too many to be an accident."""
        if len(blank) > BLANK_CHARACTERS:
            raise refuse("blank_lines", "Remove the run of blank lines that ends here.", line=self.number)
        return blank

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._ready = self._cut(self._decode(chunk))
            return
        self._ended = True
        last = self._rest + self._decode(b"", final=True)
        self._rest = ""
        self._ready = iter([last] if last else [])

    def _cut(self, text: str) -> Iterator[str]:
        parts = (self._rest + text).split(self._split)
        self._rest = parts.pop()
        self._check_rest(len(parts))
        end = self._split
        return iter([part + end for part in parts])

    def _check_rest(self, pending: int) -> None:
        if len(self._rest) > self._budget.row_bytes:
            fix = f"Keep each row under {self._budget.row_bytes:,} characters."
            raise refuse("row_too_long", fix, line=self.number + pending + 1, column=1)

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise self._undecodable(error) from None
        except UnicodeError:  # of the codecs with states, such as iso2022 and hz
            raise refuse("encoding", self._fix(), line=self.number + 1) from None
        self._decoded_bytes += (
            len(text.encode("utf-8", "surrogatepass")) if self.encoding != "utf-8" else len(data)
        )
        if self._decoded_bytes > self._budget.decoded_bytes:
            raise refuse(
                "file_too_large",
                f"Split the file: one may hold {self._budget.decoded_bytes:,} bytes of text.",
            )
        return text

    def _undecodable(self, error: UnicodeDecodeError) -> FileRefused:
        """Where the first byte is that this encoding has no character for."""
        split = getattr(self, "_split", "\n")
        good = self._rest + error.object[: error.start].decode(self.encoding, "replace")
        pending = list(getattr(self, "_ready", ()))
        line = self.number + len(pending) + good.count(split) + 1
        column = len(good) - good.rfind(split)
        return refuse("encoding", self._fix(), line=line, column=column)

    def _fix(self) -> str:
        return f"This is not {self.encoding}. Save the file as UTF-8, or say which encoding it is in."
