"""A reader of the explorer's page in a browser, who sees every complaint and every request."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

SWITCHES = "no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync"
CAT: dict[str, Any] = {"className": "cat", "domains": ["real", "sketch"]}


class Reader:
    def __init__(self, browser: Any, folder: Path) -> None:
        self.folder = folder
        self.tab = browser.new_context(
            viewport={"width": 1280, "height": 800}, offline=True
        ).new_page()
        self.tab.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", self._hear)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("dialog", self._close)
        self.tab.on("request", lambda request: self.requests.append(request.url))

    def _close(self, dialog: Any) -> None:
        self.complaints.append("a script of a name ran")
        dialog.dismiss()

    def _hear(self, said: Any) -> None:
        if said.type == "error":
            self.complaints.append(said.text)

    def open(self, **state: Any) -> "Reader":
        self.tab.goto("about:blank")
        fragment = "#" + quote(json.dumps(state)) if state else ""
        self.tab.goto((self.folder / "index.html").as_uri() + fragment)
        return self.wait()

    def wait(self) -> "Reader":
        self.tab.wait_for_selector(
            ".page[data-loaded]"
        )  # the page's policy forbids to wait for a function
        return self

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.tab.evaluate("circuitry.state()")
        return found

    def press(self, keys: str) -> None:
        for key in keys.split():
            self.tab.keyboard.press(key)

    def table(self) -> dict[str, list[str]]:
        self.tab.click("#view-table")
        rows = self.tab.eval_on_selector_all(
            "#units tbody tr",
            "rows => rows.map(r => [...r.querySelectorAll('th, td')].map(c => c.textContent.trim()))",
        )
        return {row[0]: row[1:] for row in rows}

    def drop(self, content: str, name: str = "state.json") -> str:
        if self.tab.locator(".message[role=status] button").count():
            self.tab.click(".message[role=status] button")
        self.tab.evaluate(
            """([text, name]) => { const data = new DataTransfer(); data.items.add(new File([text], name));
            document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})); }""",
            [content, name],
        )
        return str(self.tab.inner_text(".message[role=status]"))

    def click_export(self, kind: str) -> None:
        if not self.tab.locator("#export[open]").count():
            self.tab.click("#export > summary")
        self.tab.click(
            f"#export [data-kind='{kind}']" if kind != "state" else "#save-state"
        )

    def export(self, kind: str) -> str:
        """The text of an exported file, caught before the browser takes it: a download takes a second."""
        (text,) = self.exports(kind, 1).values()
        return text

    def exports(self, kind: str, files: int) -> dict[str, str]:
        """The texts of several exported files by name."""
        self.tab.evaluate(CAUGHT, files)
        self.click_export(kind)
        return dict(self.tab.evaluate("globalThis.caught"))


CAUGHT = """files => { globalThis.caught = new Promise(done => {
    const { createObjectURL } = URL, { click } = HTMLAnchorElement.prototype;
    const texts = [], names = [];
    URL.createObjectURL = blob => { texts.push(blob.text()); return "blob:caught"; };
    HTMLAnchorElement.prototype.click = function () {
        names.push(this.download);
        if (names.length < files) return;
        Object.assign(URL, { createObjectURL });
        Object.assign(HTMLAnchorElement.prototype, { click });
        Promise.all(texts).then(all => done(all.map((text, i) => [names[i], text])));
    };
}); return 0; }"""
