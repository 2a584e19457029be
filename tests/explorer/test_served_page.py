"""The served page in a browser: notes reach the disk, two tabs are told apart, the model is asked."""

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from circuitry.explorer.server import Access, explorer_app
from tests.explorer.made import ATTACK, Answering
from tests.support.browser import find_browser

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine"
)


@dataclass
class Served:
    folder: Path
    address: str
    context: Any
    complaints: list[str]

    def _hear(self, said: Any) -> None:
        if said.type == "error" and not any(
            status in said.text for status in ("412", "422")
        ):  # listed by the browser
            self.complaints.append(said.text)

    def tab(self, path: str = "/") -> Any:
        tab = self.context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.goto(self.address + path)
        tab.wait_for_selector(".page[data-loaded]")
        return tab

    def notes(self) -> dict[str, Any]:
        (file,) = self.folder.glob("notes-*.json")
        found: dict[str, Any] = json.loads(file.read_text())["state"]
        return found


@contextlib.contextmanager
def running(folder: Path, access: Access) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = explorer_app(folder, access, Answering())
        settings = uvicorn.Config(
            app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture
def served(browser: Any, exported: Path, tmp_path: Path) -> Iterator[Served]:
    folder = Path(shutil.copytree(exported, tmp_path / "explorer"))
    access = Access()
    with running(folder, access) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        served = Served(folder, address, context, [])
        served.tab(f"/?token={access.token}").close()
        yield served
        context.close()
    assert served.complaints == []


def test_notes_reach_the_disk_and_the_second_tab_is_told(served: Served) -> None:
    one = served.tab()
    two = served.tab()
    assert "token" not in one.url
    one.keyboard.press("]")
    unit = one.evaluate("circuitry.state().selected")
    with one.expect_response(lambda found: found.request.method == "PUT"):
        one.fill("#note", ATTACK)
    assert served.notes() == {"notes": {unit: ATTACK}}
    two.keyboard.press("]")
    with two.expect_response(lambda found: found.status == 412):
        two.keyboard.press("p")
    two.wait_for_selector("#keep-mine")
    assert served.notes() == {"notes": {unit: ATTACK}}
    two.click("#take-theirs")
    two.wait_for_selector("#notes li")
    assert two.evaluate("circuitry.state().pins") == []
    with two.expect_response(lambda found: found.request.method == "PUT"):
        two.keyboard.press("p")
    with one.expect_response(lambda found: found.status == 412):
        one.fill("#note", "mine")
    with one.expect_response(lambda found: found.status == 204):
        one.click("#keep-mine")
    assert served.notes() == {"notes": {unit: "mine"}}
    assert served.tab().evaluate("circuitry.state().notes") == {unit: "mine"}


def test_another_address_keeps_the_notes(served: Served) -> None:
    tab = served.tab()
    tab.keyboard.press("]")
    unit = tab.evaluate("circuitry.state().selected")
    with tab.expect_response(lambda found: found.request.method == "PUT"):
        tab.fill("#note", "mine")
    tab.evaluate(
        "location.hash = encodeURIComponent(JSON.stringify({className: 'cat', pins: ['a/1']}))"
    )
    tab.wait_for_selector(".page[data-loaded='cat']")
    tab.wait_for_timeout(600)  # longer than the page waits before it writes
    assert tab.evaluate("circuitry.state().notes") == {unit: "mine"}
    assert served.notes() == {"notes": {unit: "mine"}}


def test_units_and_groups_are_measured(served: Served) -> None:
    tab = served.tab()
    tab.select_option("#class", "cat")
    tab.keyboard.press("]")
    tab.click(".card .measure")
    assert tab.inner_text(".card .effects-of tbody tr").split() == [
        "<i>cat",
        "−0.25",
        "0.5",
        "6",
    ]
    tab.keyboard.press("j")
    assert tab.locator(".card .effects-of").count() == 0
    for key in ("p", "j", "p", "g"):
        tab.keyboard.press(key)
    tab.fill("#group-name", "both")
    tab.keyboard.press("Enter")
    tab.click("#groups .measure")
    assert "−0.5" in tab.inner_text("#groups .effects-of tbody tr")


def test_an_own_image_is_looked_at(served: Served) -> None:
    def give(tab: Any, said: str) -> None:
        file = {"name": "mine.png", "mimeType": "image/png", "buffer": said.encode()}
        tab.set_input_files("#own-image", [file])

    tab = served.tab()
    tab.select_option("#class", "cat")
    tab.wait_for_selector(".page[data-loaded='cat']")
    give(tab, "mine")
    tab.wait_for_selector(".said")
    said = ["<i>mine: 'cat' (75%)", "After removing 2 units: 0.5"]
    assert tab.locator(".said p").all_inner_texts() == said
    # Units at sites that the circuits do not have are not listed.
    assert tab.locator(".fired li button").all_inner_texts() == ["b/2", "a/1"]
    assert "effects on the answer" in tab.inner_text(".fired h4")
    tab.click(".fired li button:has-text('b/2')")
    assert tab.evaluate("circuitry.state().selected") == "b/2"
    give(tab, "damaged")
    assert "damaged" in tab.inner_text(".own .error")
    assert tab.locator(".said").count() == 0
    drop = """() => {
        const data = new DataTransfer();
        data.items.add(new File(["dropped"], "other.png", {type: "image/png"}));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    tab.evaluate(drop)
    tab.locator(".said", has_text="dropped: 'cat'").wait_for()
    tab.click(".images .of:nth-child(1) button.pick")
    tab.wait_for_selector(".said", state="detached")
    tab.click(".own button.pick")
    assert "dropped: 'cat'" in tab.inner_text(".said")
    tab.click(".own button.small")
    assert tab.locator(".said, .fired").count() == 0
