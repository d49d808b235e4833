"""Where the engines are: a socket, another host over mutual TLS, or an OpenAI-compatible server, base by base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from modeling.core.bases import BASES

ALL = "*"  # the place of every base that is not named
SPLIT_BASES = tuple(base.id for base in BASES.values() if base.files)  # tables need no engine of their own
_OPENAI = "openai+"


class BadAddress(ValueError):
    """The setting ENGINES cannot be used; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """An engine of ours on this machine."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TlsAddress:
    """An engine of ours on another host; both sides show certificates."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tls://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class OpenAIAddress:
    """Another program that speaks OpenAI's chat completions.

    `model` is what it calls the base, `adapters` a folder in memory through which it is given LoRA adapters (vLLM's
    protocol; without it no tuned model goes there), `key_file` holds its API key.
    """

    url: str
    model: str = ""
    adapters: Path | None = None
    key_file: Path | None = None

    def __str__(self) -> str:
        return f"{_OPENAI}{self.url}"


Address = UnixAddress | TlsAddress | OpenAIAddress
Places = Mapping[str, tuple[Address, ...]]


def parse_address(text: str) -> Address:
    """`unix:/path`, `tls://host:port` or `openai+http(s)://host:port/v1?model=…`; raises BadAddress."""
    if text.startswith("unix:/"):
        return UnixAddress(Path(text.removeprefix("unix:")))
    try:
        parts = urlsplit(text.removeprefix(_OPENAI))
        port = parts.port
    except ValueError as error:
        raise BadAddress(f"ENGINES: {text!r} is not an address ({error}).") from error
    if parts.scheme == "tls" and parts.hostname and port and not parts.path.strip("/"):
        return TlsAddress(parts.hostname, port)
    if text.startswith(_OPENAI) and parts.scheme in ("http", "https") and parts.hostname:
        return _openai_address(text, parts.query)
    raise BadAddress(
        f"ENGINES: {text!r} is none of unix:/path, tls://host:port and openai+http(s)://host:port/v1; "
        "an engine is never spoken to over plain TCP, for data keys travel in its frames."
    )


def _openai_address(text: str, query: str) -> OpenAIAddress:
    known = dict(parse_qsl(query))
    unknown = set(known) - {"model", "adapters", "key_file"}
    if unknown:
        raise BadAddress(f"ENGINES: {text!r} has an unknown part {min(unknown)!r}.")
    url = text.removeprefix(_OPENAI).partition("?")[0].rstrip("/")
    paths = {name: Path(known[name]) for name in ("adapters", "key_file") if known.get(name)}
    return OpenAIAddress(url, known.get("model", ""), paths.get("adapters"), paths.get("key_file"))


def parse_places(text: str) -> Places:
    """`base=address,base=address,…` (a base named twice has two replicas) or JSON {base: address or list}."""
    text = text.strip()
    if text.startswith("{"):
        pairs = _json_pairs(text)
    else:
        parts = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
        pairs = [(base, address) for base, _, address in parts]
    found: dict[str, tuple[Address, ...]] = {}
    for base, address in pairs:
        if not base or not address:
            raise BadAddress("ENGINES: each entry is base=address.")
        parsed = parse_address(address)
        if parsed not in found.setdefault(base, ()):
            found[base] = (*found[base], parsed)
    return found


def _json_pairs(text: str) -> list[tuple[str, str]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadAddress(f"ENGINES is not JSON: {error}.") from error
    pairs = []
    for base, addresses in value.items():
        for address in [addresses] if isinstance(addresses, str) else addresses:
            if not isinstance(address, str):
                raise BadAddress(f"ENGINES: {base} needs an address or a list of addresses.")
            pairs.append((base, address))
    return pairs


@lru_cache(maxsize=16)
def settings_places(text: str, socket: Path, is_split: bool) -> Places:
    """What ENGINES names; what it does not goes to the one socket, or to that of the base. Raises BadAddress."""
    named = parse_places(text)
    if not is_split:
        return {ALL: (UnixAddress(socket),), **named}
    own: Places = {base: (UnixAddress(split_socket(socket, base)),) for base in SPLIT_BASES}
    return {ALL: own[SPLIT_BASES[0]], **own, **named}


def split_socket(socket: Path, base: str) -> Path:
    """The socket of a base's own engine, beside that of an engine for all."""
    return socket.with_name(f"{socket.stem}-{base}{socket.suffix}")
