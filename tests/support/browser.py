"""A headless Chromium for tests: what a page shows once its scripts have run, and what it complained about.

Speaks the DevTools protocol over a pair of pipes, so it needs nothing but the browser and POSIX.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
    ),
)
QUIET = """new Promise(done => {
    let timer = setTimeout(done, 300);
    new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, 300); }).observe(
        document, {subtree: true, childList: true, attributes: true});
})"""
MARKS = """Object.fromEntries([...document.querySelectorAll('.plotly-graph-div')].map(figure => [
    figure.id, [...figure.querySelectorAll('g.mlayer :is(image, text, path)')].filter(
        mark => mark.tagName != 'path' || ![null, '', 'M0,0Z'].includes(mark.getAttribute('d'))).length]))"""
"""A mark is a point, bar, line or area, the image of a heatmap, or a label; axes, grids and legends do not count."""


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Page:
    path: Path
    dom: str
    """The document as HTML, as it stands after loading."""
    marks: dict[str, int]
    """How much plotly drew inside the axes of every figure, by the id of its div."""
    console_errors: tuple[str, ...]
    """Uncaught exceptions, console.error and failed requests, in order."""
    requests: tuple[str, ...]
    """What the page asked for from outside itself: every URL but its own and those of data."""

    def screenshot(
        self, path: Path, width: int = 1200, height: int | None = None
    ) -> Path:
        with _open(self.path, width, height or 900) as session:
            picture = session.call(
                "Page.captureScreenshot", captureBeyondViewport=height is None
            )
            path.write_bytes(base64.b64decode(picture["data"]))
        return path


def load(path: Path, width: int = 1200, height: int = 900) -> Page:
    """Open the HTML file, wait until it has stopped changing, and tell what it shows."""
    with _open(path, width, height) as session:
        dom = session.evaluate("document.documentElement.outerHTML")
        return Page(
            path,
            dom,
            session.evaluate(MARKS),
            tuple(session.errors),
            tuple(session.requests),
        )


class _Session:
    """One tab, driven by messages that end in a zero byte."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to = process.stdin
        self._from = process.stdout
        self._received = bytearray()
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.errors: list[str] = []
        self.requests: list[str] = []

    def attach(self) -> None:
        tab = next(
            t
            for t in self.call("Target.getTargets")["targetInfos"]
            if t["type"] == "page"
        )
        self._session = self.call(
            "Target.attachToTarget", targetId=tab["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, url: str, width: int, height: int) -> None:
        screen = {
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": False,
        }
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._read()
        self.evaluate(QUIET)
        self.requests = [
            r
            for r in self.requests
            if r != url and not r.startswith(("data:", "blob:"))
        ]

    def evaluate(self, expression: str) -> Any:
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        return answer["result"].get("value")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while (end := self._received.find(b"\0")) < 0:
            more = os.read(self._from.fileno(), 1 << 20)
            if not more:
                raise RuntimeError(
                    "The browser went away, or did not answer within a minute."
                )
            self._received += more
        message: dict[str, Any] = json.loads(self._received[:end])
        del self._received[: end + 1]
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(
                details.get("exception", {}).get("description", details["text"])
            )
        elif event == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "assert",
        ):
            self.errors.append(
                " ".join(
                    str(a.get("value", a.get("description"))) for a in params["args"]
                )
            )
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(
                f"{params['entry']['text']} {params['entry'].get('url', '')}".strip()
            )
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def _open(path: Path, width: int, height: int) -> Iterator[_Session]:
    browser = find_browser()
    if browser is None:
        raise RuntimeError(f"No browser was found, looked for {', '.join(BROWSERS)}.")
    # DevTools reads from descriptor 3 and writes to 4; the shell puts our two pipes there.
    shell = [
        "sh",
        "-c",
        'exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null',
        browser,
        *SWITCHES,
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [*shell, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        alarm = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
        alarm.start()
        try:
            session = _Session(process)
            session.attach()
            session.open(path.resolve().as_uri(), width, height)
            yield session
        finally:
            alarm.cancel()
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
