"""A real browser: upload, train, watch the charts move without a reload; by keyboard, under the strict policy."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
from django.db import connections
from django.utils.html import escape
from playwright.sync_api import Browser, BrowserContext, Page, WebSocketRoute, expect, sync_playwright

from modeling.actions import running, training
from modeling.actions.inspection import inspect_file
from modeling.models import File, Job
from saas.lib.markup import pattern
from saas.processes import free_port
from tenants.models import Tenant
from tenants.scope import scope
from tests.core.tiny_text import make_base
from tests.make import PASSWORD, People

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip("Chromium is not installed: the browser journeys are left out", allow_module_level=True)

PLACES = (
    "",
    "data/",
    "training/",
    "models/",
    "endpoints/",
    "predictions/",
    "playground/",
    "batches/",
    "batches/new/",
    "privacy/",
    "team/",
    "keys/",
    "audit/",
    "billing/",
)
LABELS = ("routine", "urgent", "unclear")
WORDS = ("a cough that stays", "a pain in the chest with sweat", "something that is hard to name")
ROWS = 900
T = TypeVar("T")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Runs database work in another thread: Playwright's loop holds this one."""
    with ThreadPoolExecutor(1) as thread:

        def run(work: Callable[..., T], *args: Any) -> T:
            return thread.submit(work, *args).result()

        yield run
        run(connections.close_all)


@pytest.fixture(scope="module")
def site(database: None) -> Iterator[str]:
    """The whole site with its WebSockets, in a thread."""
    from saas.asgi import application

    port = free_port(8700)
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://localhost:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's browser; stopped with the module, since its event loop would disturb other tests."""
    assert CHROMIUM, "Chromium is not installed"
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, settings: Any) -> None:
    """A base model of a few thousand parameters, so that the runs take seconds."""
    make_base(tmp_path / "models")
    settings.MODELS_DIR = tmp_path / "models"


@pytest.fixture
def cast(elsewhere: Callable[..., Any]) -> People:
    """The people of this test, made in the other thread."""
    made = People()
    elsewhere(lambda: (made.acme, made.globex))
    return made


@pytest.fixture
def window(
    chromium: Browser, site: str, cast: People, elsewhere: Callable[..., Any]
) -> Iterator[tuple[Page, list[str]]]:
    """Alice's window, signed in by the form; whatever the console complains about is collected."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page, complaints = _listened(context)
    page.goto(f"{site}/accounts/login/")
    page.fill("input[name=login]", elsewhere(lambda: cast.user("alice").email))
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/t/{cast.acme.slug}/")
    yield page, complaints
    context.close()


def _listened(context: BrowserContext) -> tuple[Page, list[str]]:
    page, complaints = context.new_page(), []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def _table(folder: Path) -> Path:
    file = folder / "triage.csv"
    lines = [f"p{n},patient reports {WORDS[n % 3]} since {n} days,{LABELS[n % 3]}" for n in range(ROWS)]
    file.write_text("\n".join(["patient_id,note,triage", *lines]) + "\n")
    return file


def _inspect(tenant: Tenant) -> None:
    with scope(tenant):
        waiting = list(
            File.objects.of(tenant).filter(status=File.Status.UPLOADED).values_list("pk", flat=True)
        )
    for file_id in waiting:
        inspect_file(tenant.pk, file_id)


def _work(tenant: Tenant) -> None:
    """What the training worker does with the tenant's queued job."""
    with scope(tenant):
        job_id = Job.objects.of(tenant).filter(state=Job.State.QUEUED).values_list("pk", flat=True)[0]
    lease = running.claim(tenant.pk, job_id, worker="browser test")
    assert lease is not None
    training.run(lease, is_stopping=lambda: False)


def test_upload_train_and_watch_without_a_reload(
    window: tuple[Page, list[str]], site: str, cast: People, elsewhere: Callable[..., Any], tmp_path: Path
) -> None:
    page, complaints = window
    home = f"{site}/t/{cast.acme.slug}/"
    page.goto(f"{home}data/upload/")
    page.set_input_files("#file", _table(tmp_path))
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/data/file-*/")
    elsewhere(_inspect, cast.acme)
    page.wait_for_url("**/data/ds-*/")
    page.get_by_role("link", name="Train on this").click()
    expect(page.locator("#quote")).to_contain_text("epsilon 8.0 per patient")
    page.get_by_text("Balanced (epsilon 3)").click()
    expect(page.locator("#quote")).to_contain_text("epsilon 3.0 per patient")
    page.get_by_text("Accurate (epsilon 8)").click()
    expect(page.locator("#quote")).to_contain_text("epsilon 8.0 per patient")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/training/ftjob-*/")
    expect(page.locator("[data-connection]")).to_have_text("Live")
    page.evaluate(
        "window.unloaded = false; addEventListener('beforeunload', () => { window.unloaded = true; })"
    )
    before = _watch(page)
    elsewhere(_work, cast.acme)
    expect(page.locator("[data-events]")).to_contain_text("is ready and answers as", timeout=20_000)
    expect(page.locator("#job-head .pill")).to_have_text("succeeded")
    expect(page.locator("#job-summary")).to_contain_text("The model is ready.")
    expect(page.locator("[data-connection]")).to_have_text("")  # the socket is closed once all has come
    seen = page.evaluate("window.seen")
    assert seen == list(range(before + 1, before + 1 + len(seen)))  # nothing missed, nothing twice
    assert page.evaluate("window.unloaded") is False
    assert page.locator("#chart-epsilon canvas").count() == 1
    points = page.locator("#chart-epsilon tbody tr").count()
    assert points >= 2
    assert page.locator("#chart-accuracy tbody tr").count() >= 1

    page.reload()  # the first paint of the server says the same as the live page did
    assert page.locator("#chart-epsilon tbody tr").count() == points
    page.get_by_role("link", name="Open the model").click()
    expect(page.locator("#privacy")).to_contain_text("zero-out")
    assert complaints == []


def test_a_break_in_the_connection_loses_nothing(
    window: tuple[Page, list[str]], site: str, cast: People, elsewhere: Callable[..., Any], tmp_path: Path
) -> None:
    page, complaints = window
    sockets: list[WebSocketRoute] = []
    page.route_web_socket("**/ws/**", lambda socket: _unreliable(socket, sockets))
    page.goto(f"{site}/t/{cast.acme.slug}/data/upload/")
    page.set_input_files("#file", _table(tmp_path))
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/data/file-*/")
    elsewhere(_inspect, cast.acme)
    page.wait_for_url("**/data/ds-*/")
    page.goto(f"{site}/t/{cast.acme.slug}/training/new/")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/training/ftjob-*/")
    expect(page.locator("[data-connection]")).to_have_text("Live")
    before = _watch(page)
    elsewhere(_work, cast.acme)
    expect(page.locator("[data-events]")).to_contain_text("is ready and answers as", timeout=30_000)
    expect(page.locator("#job-head .pill")).to_have_text("succeeded")
    seen = page.evaluate("window.seen")
    assert len(sockets) >= 3  # it did break, twice
    assert seen == list(range(before + 1, before + 1 + len(seen)))
    assert complaints == []


def _unreliable(socket: WebSocketRoute, sockets: list[WebSocketRoute]) -> None:
    """Passes messages on; the first two connections swallow their third message and break."""
    sockets.append(socket)
    server = socket.connect_to_server()
    breaks, passed = len(sockets) <= 2, [0]

    def pass_on(message: str | bytes) -> None:
        passed[0] += 1
        if breaks and passed[0] >= 3:
            socket.close()
        else:
            socket.send(message)

    server.on_message(pass_on)


def _watch(page: Page) -> int:
    """Collect the numbers of applied events in window.seen; returns the last number of the first paint."""
    page.evaluate(
        "window.seen = []; document.querySelector('[data-job]')"
        ".addEventListener('cloister:event', (event) => window.seen.push(event.detail.seq))"
    )
    return int(page.locator("[data-job]").get_attribute("data-last-seq") or 0)


def test_no_page_breaks_the_policy_or_scrolls_sideways(
    window: tuple[Page, list[str]], site: str, cast: People
) -> None:
    page, complaints = window
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for place in PLACES:
            page.goto(f"{site}/t/{cast.acme.slug}/{place}")
            page.wait_for_load_state()
            wide = page.evaluate(
                "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            )
            assert not wide, (place, width)
    assert complaints == []


def test_the_keyboard_reaches_everything(window: tuple[Page, list[str]], site: str, cast: People) -> None:
    page, _complaints = window
    page.goto(f"{site}/t/{cast.acme.slug}/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    reached = set()
    page.reload()
    for _step in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName")
        )
    base = f"/t/{cast.acme.slug}/"
    assert {base, f"{base}data/", f"{base}privacy/", f"{base}audit/", f"{base}data/upload/"} <= reached
    assert "BUTTON" in reached


def test_a_word_to_type_is_checked_before_it_is_sent(window: tuple[Page, list[str]]) -> None:
    page, complaints = window
    for name in ("prod", "northgate-clinic-icd10", "a.csv (1) [x]", "naïve|{2}^$/+*?"):
        page.set_content(f'<input pattern="{escape(pattern(name))}">')
        for typed, is_right in ((name, True), (f"{name}x", False), ("wrong", False)):
            page.fill("input", typed)
            assert page.evaluate("document.querySelector('input').validity.valid") is is_right, typed
    assert complaints == []


def test_the_drawer_of_a_phone_works_without_scripts(
    chromium: Browser, window: tuple[Page, list[str]], site: str, cast: People
) -> None:
    page, _complaints = window
    context = chromium.new_context(
        viewport={"width": 390, "height": 844},
        java_script_enabled=False,
        storage_state=page.context.storage_state(),
    )
    plain = context.new_page()
    plain.goto(f"{site}/t/{cast.acme.slug}/")
    rail = plain.locator("#rail")
    expect(rail).not_to_be_visible()
    plain.get_by_text("Menu", exact=True).click()
    expect(rail).to_be_visible()
    plain.get_by_role("link", name="Privacy").click()
    plain.wait_for_url("**/privacy/")
    context.close()
