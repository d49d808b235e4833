"""A real browser uploads in slices: paused, cut off, its tab closed; it goes on where it stopped, same bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from modeling.models import File, Upload
from modeling.views import uploads
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope
from tests.journeys.test_browser import cast, chromium, elsewhere, site, window
from tests.make import People

__all__ = ["cast", "chromium", "elsewhere", "site", "window"]
pytestmark = pytest.mark.browser
SLICE = 64 << 10
SLICES = 12
SIZE = SLICES * SLICE - 1_000
BEFORE_THE_CUT = 5


class Line:
    """The connection of a page: counts slices, and is cut after so many."""

    def __init__(self, page: Page, lasts: int = 1_000_000) -> None:
        self.sent = 0
        self.lasts = lasts
        page.route("**/parts/", self._pass_on)

    def _pass_on(self, route: Route) -> None:
        if self.sent >= self.lasts:
            route.abort("connectionreset")
        else:
            self.sent += 1
            route.continue_()


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SLICE_BYTES", SLICE)


@pytest.fixture
def place(site: str, cast: People) -> str:
    return f"{site}/t/{cast.acme.slug}/data/upload/"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "clinic.csv"
    made.write_bytes(random.Random(5).randbytes(SIZE))
    return made


def content_of(tenant: Tenant) -> str:
    """SHA-256 of what lies in the vault for the tenant's only file."""
    with scope(tenant):
        stored = File.objects.of(tenant).select_related("object").get().object
        assert stored is not None
        return hashlib.sha256(vault.get(stored)).hexdigest()


def arrives(page: Page, tenant: Tenant, elsewhere: Callable[..., Any], file: Path) -> None:
    """The page went on to the file's own, and the vault holds the same bytes."""
    page.wait_for_url("**/data/file-*/")
    assert elsewhere(content_of, tenant) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_cut_line_a_closed_tab_and_another_file(
    window: tuple[Page, list[str]], place: str, cast: People, elsewhere: Callable[..., Any], file: Path
) -> None:
    page, _complaints = window
    page.goto(place)
    line = Line(page, lasts=BEFORE_THE_CUT)
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("[data-upload-words]")).to_contain_text("The connection was lost")
    assert line.sent == BEFORE_THE_CUT
    page.close()

    page = window[0].context.new_page()
    page.goto(place)
    row = page.locator("[data-upload-unfinished]")
    expect(row).to_contain_text("clinic.csv")
    expect(row).to_contain_text("of 785 kB")
    expect(row).to_contain_text("Choose the same file to go on.")
    stranger, changed = file.with_name("other.csv"), file.with_name("changed") / "clinic.csv"
    stranger.write_bytes(b"a,b\n")
    changed.parent.mkdir()
    changed.write_bytes(b"X" + file.read_bytes()[1:])
    for wrong, says in ((stranger, "This is another file"), (changed, "its content differs")):
        with page.expect_file_chooser() as chooser:
            row.get_by_role("button", name="Continue…").click()
        chooser.value.set_files(wrong)
        expect(page.locator("[data-upload-error]")).to_contain_text(says)
    line = Line(page)
    with page.expect_file_chooser() as chooser:
        row.get_by_role("button", name="Continue…").click()
    chooser.value.set_files(file)
    arrives(page, cast.acme, elsewhere, file)
    assert line.sent == SLICES - BEFORE_THE_CUT  # nothing was sent twice
    page.close()


def test_a_lost_connection_is_tried_again(
    window: tuple[Page, list[str]], place: str, cast: People, elsewhere: Callable[..., Any], file: Path
) -> None:
    page, _complaints = window
    page.goto(place)
    line = Line(page, lasts=BEFORE_THE_CUT)
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("[data-upload-words]")).to_contain_text("Trying again")
    line.lasts = 1_000_000
    page.evaluate("window.dispatchEvent(new Event('online'))")
    arrives(page, cast.acme, elsewhere, file)


def test_pause_continue_and_cancel(
    window: tuple[Page, list[str]], place: str, cast: People, elsewhere: Callable[..., Any], file: Path
) -> None:
    page, complaints = window
    page.goto(place)
    page.route("**/parts/", lambda _route: None)
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Upload", exact=True).click()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("[data-upload-words]")).to_contain_text("Paused at 0 B of 785 kB")
    page.unroute("**/parts/")
    page.get_by_role("button", name="Continue").click()
    arrives(page, cast.acme, elsewhere, file)
    assert [one for one in complaints if "ERR_" not in one] == []

    page.goto(place)
    page.route("**/parts/", lambda route: None)
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("[data-upload-words]")).not_to_be_empty()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel the upload").click()
    expect(page.get_by_text("The upload was cancelled.")).to_be_visible()

    def states() -> list[str]:
        with scope(cast.acme):
            return list(Upload.objects.of(cast.acme).order_by("id").values_list("status", flat=True))

    assert elsewhere(states) == ["completed", "cancelled"]
