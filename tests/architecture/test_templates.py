"""Templates keep the strict content-security policy and speak through gettext."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "templates").rglob("*.html"))
SCRIPTS = sorted((ROOT / "saas" / "static" / "js").glob("*.js"))
STYLES = sorted((ROOT / "saas" / "static" / "css").glob("*.css"))
DATA = r'type="application/json"'
RULES = {
    "an inline script": rf"<script(?![^>]*\bsrc=)(?![^>]*{DATA})",
    "an inline style": r"<style|\sstyle\s*=",
    "an event handler": r"\son[a-z]+\s*=\s*[\"']",
    "htmx that needs eval": r"hx-on|hx-vars|[\"']js:|hx-trigger=\"[^\"]*\[",
    "an address outside": r"(?:src|href|action)=\"(?:https?:)?//",
}
# What a reader sees between tags, outside of gettext: variables, tags and comments are taken out first.
_TAGS = re.compile(r"{%\s*comment\s*%}.*?{%\s*endcomment\s*%}|{#.*?#}", re.DOTALL)
_TRANSLATED = re.compile(r"{%\s*blocktrans(?:late)?\b.*?{%\s*endblocktrans(?:late)?\s*%}", re.DOTALL)
_CODE = re.compile(r"{%.*?%}|{{.*?}}", re.DOTALL)
_MARKUP = re.compile(r"<(?:\"[^\"]*\"|'[^']*'|[^>\"'])*>", re.DOTALL)
NAMES = {"Cloister", "Cloister ·", "·", "API", "CSV", "JSONL", "plain--wide"}


def _read(file: Path) -> str:
    return file.read_text()


def violations(text: str) -> set[str]:
    """Names of the rules that a template breaks."""
    return {name for name, pattern in RULES.items() if re.search(pattern, text)}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_template_needs_what_the_policy_forbids(file: Path) -> None:
    if file.parts[-2] != "emails":
        assert violations(_read(file)) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("<script>alert(1)</script>", "an inline script"),
        ('<p style="color:red">', "an inline style"),
        ('<button onclick="go()">', "an event handler"),
        ('<div hx-on:click="x">', "htmx that needs eval"),
        ('<img src="https://elsewhere.example/x.png">', "an address outside"),
    ],
)
def test_the_rules_find_what_they_are_for(text: str, rule: str) -> None:
    assert violations(text) == {rule}


def untranslated(text: str) -> list[str]:
    """Words outside of gettext, as a reader would see them."""
    text = _MARKUP.sub("\n", _CODE.sub("\x00", _TRANSLATED.sub("", _TAGS.sub("", text))))
    parts = [part.strip() for part in re.split(r"[\n\x00]", text)]
    return [part for part in parts if re.search(r"[A-Za-z]{3,}", part) and part not in NAMES]


OURS = [
    file
    for file in PAGES
    if file.relative_to(ROOT / "templates").parts[0] in ("modeling", "partials", "base.html", "plain.html")
]


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(ROOT)))
def test_words_pass_through_gettext(file: Path) -> None:
    assert untranslated(_read(file)) == []


def test_untranslated_words_are_found() -> None:
    assert untranslated('<p class="x">Hello there {{ name }}</p>') == ["Hello there"]


@pytest.mark.parametrize("file", SCRIPTS + STYLES, ids=lambda file: file.name)
def test_scripts_and_styles_are_small_and_stay_at_home(file: Path) -> None:
    text = _read(file)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "eval(" not in text
    assert "innerHTML" not in text
    assert len(text.splitlines()) <= 420
