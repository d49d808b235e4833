"""Template tags and filters of every page: icons, times, numbers, epsilon, money, the current rail link."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from django import template
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils import formats
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

register = template.Library()

RULES = {
    "ragged": gettext_lazy("Wrong number of fields"),
    "empty": gettext_lazy("Nothing in it"),
    "line_end": gettext_lazy("Broken line end"),
    "quote": gettext_lazy("Text after a closing quote"),
    "quote_open": gettext_lazy("A quote is never closed"),
    "messages": gettext_lazy("Not a conversation"),
    "messages_role": gettext_lazy("Unknown role in a conversation"),
    "messages_user": gettext_lazy("Conversation without a user"),
    "not_an_object": gettext_lazy("Not a JSON object"),
    "too_deep": gettext_lazy("Nested too deeply"),
    "number": gettext_lazy("Number cannot be kept exactly"),
    "nul": gettext_lazy("Contains a NUL character"),
    "column_name": gettext_lazy("Column name missing or repeated"),
    "encoding": gettext_lazy("Characters of another encoding"),
    "not_text": gettext_lazy("Not a text file"),
    "json_list": gettext_lazy("One JSON list instead of lines"),
    "archive": gettext_lazy("Damaged archive"),
    "archive_bomb": gettext_lazy("Unpacks to far more than its size"),
    "archive_encrypted": gettext_lazy("Encrypted archive"),
    "archive_members": gettext_lazy("Several files in one archive"),
    "archive_method": gettext_lazy("Packed in a rare way"),
    "archive_nested": gettext_lazy("An archive in an archive"),
    "parquet": gettext_lazy("Damaged Parquet file"),
    "nested": gettext_lazy("Nested column"),
    "date": gettext_lazy("Date out of range"),
    "format": gettext_lazy("Another format than declared"),
}
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


@register.simple_tag
def icon(name: str) -> SafeString:
    """A decorative 18 px line icon from the sprite; the word beside it carries the meaning."""
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        static("img/icons.svg"),
        name,
    )


@register.simple_tag
def icon_url(name: str) -> str:
    """The address of a picture in the sprite, for <use href>."""
    return f"{static('img/icons.svg')}#{name}"


@register.simple_tag
def when(value: datetime | None, style: str = "time", empty: str = "–") -> SafeString:
    """A <time> in UTC that app.js rewrites into the reader's zone; style is time, date or ago."""
    if value is None:
        return format_html("{}", empty)
    at = value.astimezone(UTC)
    pattern = "j M Y" if style == "date" else "j M Y, H:i"
    words = formats.date_format(at, pattern) + ("" if style == "date" else " UTC")
    return format_html(
        '<time datetime="{}" data-when="{}" title="{} UTC">{}</time>',
        at.isoformat(),
        style,
        at.strftime("%Y-%m-%d %H:%M:%S"),
        words,
    )


@register.filter
def count(value: float | None) -> str:
    """A whole number with thin grouping: 21607 -> 21,607; None -> an en dash."""
    return "–" if value is None else f"{int(value):,}"


@register.filter
def data_size(value: float | None) -> str:
    """Bytes in decimal units: 1450000 -> 1.5 MB."""
    if value is None:
        return "–"
    size, unit = float(value), 0
    while size >= 1000 and unit < len(BYTE_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {BYTE_UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {BYTE_UNITS[unit]}"


@register.filter
def epsilon(value: float | str | None) -> str:
    """Epsilon rounded up, so that a page never prints less than was spent: 7.981 -> 7.99, 8 -> 8.0."""
    if value is None or value == "":
        return "–"
    number = float(value)
    if math.isinf(number):
        return _("no bound")
    text = f"{math.ceil(round(number * 100, 6)) / 100:.2f}"
    return text.removesuffix("0")


@register.filter
def epsilon_left(value: float | None) -> str:
    """What is left of a budget, rounded down, never below zero."""
    return "–" if value is None else f"{math.floor(max(0.0, value) * 100) / 100:.2f}"


@register.filter
def plus(value: float | None, other: float | None) -> float:
    """value + other, None counting as zero."""
    return float(value or 0) + float(other or 0)


@register.filter
def plain_number(value: float | None) -> str:
    """At most four significant decimals, grouped: 0.88473 -> 0.8847, 12000.0 -> 12,000."""
    if value is None:
        return "–"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


@register.filter
def pattern(value: str) -> str:
    """A text as an HTML pattern attribute that matches only itself; browsers read it with the flag v."""
    return re.sub(r"[!-/:-@\[-^`{-~]", lambda mark: rf"\u{{{ord(mark[0]):x}}}", value)


@register.filter
def delta(value: float | None) -> str:
    """Delta in scientific form: 1e-05 -> 1.0e-5."""
    if value is None:
        return "–"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@register.filter
def percent(value: float | None) -> str:
    """A share 0..1 as a percentage with one decimal: .8847 -> 88.5 %."""
    return "–" if value is None else f"{100 * float(value):.1f} %"


@register.filter
def points(value: float | None) -> str:
    """A share 0..1 as percentage points with one decimal: .004 -> 0.4."""
    return "–" if value is None else f"{100 * float(value):.1f}"


@register.filter
def money(cents: float | None) -> str:
    """Cents as US dollars: 4900 -> $49.00."""
    return "–" if cents is None else f"${cents / 100:,.2f}"


@register.filter
def small_money(cents: float | None) -> str:
    """Cents as US dollars, small amounts to two digits that count: .0132 -> $0.00013, 4900 -> $49.00."""
    if cents is None or not 0 < abs(cents) < 100:
        return money(cents)
    places = max(2, 1 - math.floor(math.log10(abs(cents) / 100)))
    return f"${cents / 100:.{places}f}"


@register.filter
def milliseconds(seconds: float | None) -> str:
    """Seconds as a latency is read, three digits that count: .0234 -> 23.4 ms, 1.524 -> 1.52 s."""
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds in the two largest units: 200 -> 3 min 20 s."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return _("%(s)s s") % {"s": whole if whole or not seconds else "< 1"}
    if whole < 3600:
        return _("%(m)d min %(s)d s") % {"m": whole // 60, "s": whole % 60}
    if whole < 86400:
        return _("%(h)d h %(m)d min") % {"h": whole // 3600, "m": whole % 3600 // 60}
    return ngettext("%(n)d day", "%(n)d days", whole // 86400) % {"n": whole // 86400}


@register.filter
def share(value: float | None, whole: float | None) -> str:
    """value / whole as an SVG width between 0% and 100%: for meters and bars, where inline style is forbidden."""
    if not value or not whole or whole <= 0:
        return "0%"
    return f"{max(0.0, min(100.0, 100 * float(value) / float(whole))):.2f}%"


@register.filter
def json_number(value: float | None) -> str:
    """A number for a data attribute, never localised; None -> empty."""
    return "" if value is None else repr(float(value))


@register.filter
def pick(mapping: dict[str, object], key: str) -> object:
    """mapping[key], or empty: for tables whose columns are data."""
    return mapping.get(key, "")


@register.simple_tag(takes_context=True)
def current(context: template.Context, prefix: str) -> str | SafeString:
    """aria-current="page" when the request is for prefix or below it."""
    request: HttpRequest | None = context.get("request")
    if request is None:
        return ""
    path = request.path
    exact = prefix.count("/") == 3 and prefix.startswith("/t/")  # Home is the parent of every page
    matches = path == prefix if exact else path.startswith(prefix)
    return SafeString('aria-current="page"') if matches else ""


@register.filter
def rule_words(value: str) -> str:
    """The rule that a row or file broke, in words; unknown ones by their name."""
    return str(RULES.get(value, str(value).replace("_", " ").capitalize()))


@register.filter
def says(value: str | Promise | None) -> str:
    """A stored English sentence in the reader's language."""
    return _(str(value)) if value else ""
