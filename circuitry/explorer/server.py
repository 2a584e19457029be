"""Serve the explorer to one user on this machine. A served page can store notes on disk and ask the model.

1. The server listens on 127.0.0.1 only, and refuses requests for any other host than 127.0.0.1 and localhost. So a web
   site cannot reach the server by pointing the site's own name to this machine.
2. The address that is printed contains a token, which works once. The server exchanges the token for a cookie, and
   refuses requests without the cookie. Pages of other sites cannot read or use the cookie. However, the browser sends
   the cookie to every port of 127.0.0.1. If the user visits a server of another user of this machine, that server
   sees the cookie.
3. Requests that a page of another site makes are refused. Requests by a page from another port of this machine are
   refused, too.
4. Only files of the explorer's folder are served. The server writes a single file, the notes on these circuits. A
   request to write replaces the whole file. It is refused unless it names the version of the file that is on disk.

Does not import torch.
"""

import hashlib
import json
import secrets
import socket
import webbrowser
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import uvicorn
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from circuitry.explorer.export import read_about
from circuitry.explorer.template import render_page
from circuitry.explorer.view_files import LiveAnswers
from circuitry.runs.arguments import checked, fitting
from circuitry.runs.errors import InputError, sentence_of
from circuitry.runs.files import file_lock, whole_file

HOST = "127.0.0.1"
STATE_FORMAT = "circuitry explorer state 1"
"""Name and version of the format of the notes. The state files that the page exports have the same format."""
SHELF = {
    "pins": list[str],
    "groups": list[dict[str, Any]],
    "notes": dict[str, str],
    "labels": dict[str, str],
}
"""The fields of notes, with the types of their values. A group has the fields ``name`` and ``units``."""
MOST_SENT = 4 << 20
"""Largest number of bytes of a request without an image."""
MOST_IMAGE = 32 << 20
"""Largest number of bytes of a request with an image."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of the server's answers. Two kinds of answers lack these headers: answers to requests for other hosts, and
answers after an unexpected error. The content security policy for what the page loads is in the page itself."""


@checked
def serve_explorer(
    folder: str | PathLike[str],
    *,
    live: LiveAnswers | None = None,
    port: int = 0,
    open_page: bool = False,
) -> None:
    """Serve an explorer on this machine until the process is interrupted, and print the address of the page.

    Args:
        folder: The folder that `export_explorer` wrote.
        live: A `LiveModel`, which measures effects of units and explains answers for the page (default: the page
            cannot ask a model).
        port: The port to listen on; 0 chooses a free port.
        open_page: Whether to open the page in a browser.

    Raises:
        InputError: if the folder has no explorer, or if the port is in use.

    Example:
        >>> from circuitry.explorer import export_explorer, serve_explorer
        >>> explorer = export_explorer(graphs, "runs/x/explorer")
        >>> serve_explorer("runs/x/explorer", open_page=True)     # doctest: +SKIP
    """
    access = Access()
    app = explorer_app(folder, access, live)
    with _listening(port) as listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}/?token={access.token}"
        print(
            f"explorer: {address}\nThe address works once. Ctrl-C ends the server.",
            flush=True,
        )
        if open_page:
            webbrowser.open(address)
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
        )
        uvicorn.Server(settings).run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    # With this option a port can be used again right after another process has released it.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(
            f"Port {port} cannot be used ({error}): give another one, or 0 for a free one."
        ) from error
    return listening


@dataclass
class Access:
    """Decides which requests the server answers. The first request needs a token, and later requests need a cookie."""

    token: str = field(default_factory=secrets.token_urlsafe)
    """The token in the address that is printed. It works once."""
    secret: str = field(default_factory=secrets.token_urlsafe)
    """The value of the cookie."""
    used: bool = False
    """Whether the token was used."""

    @property
    def cookie(self) -> str:
        """Name of the cookie. Each server has its own name, because browsers send a cookie to all ports of a host."""
        return f"circuitry-{hashlib.sha256(self.secret.encode()).hexdigest()[:8]}"

    def exchange(self, token: str) -> Response | None:
        """Return the answer that sets the cookie, or None if the token is wrong or was used before."""
        # The comparison takes constant time, so that its duration does not tell how much of a guess is right.
        if self.used or not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        self.used = True
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self.secret, httponly=True, samesite="strict")
        return answer

    def refusal(self, request: Request) -> str | None:
        """Return the reason why a request is refused, or None if it is allowed."""
        cookie = request.cookies.get(self.cookie, "")
        if not secrets.compare_digest(cookie.encode(), self.secret.encode()):
            return "Open the address that the server printed; it works once. Start the server again for another one."
        # A browser states in this header which site makes the request. A program does not send the header, but has
        # shown that it knows the cookie.
        headers = request.headers
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "Another site made this request."
        # A page from another port of this machine may send the cookie, but it cannot change the header "origin".
        reads = request.method in ("GET", "HEAD")
        if not reads and headers.get("origin") != f"http://{headers['host']}":
            return "Only the page itself may change something."
        return None

    async def __call__(
        self,
        request: Request,
        go_on: Callable[[Request], Awaitable[Response]],
    ) -> Response:
        """Return the answer to a request: the cookie for a token, the result of ``go_on``, or a refusal.

        Args:
            request: The request.
            go_on: Function that answers an allowed request.
        """
        answer: Response | None = None
        if request.url.path == "/" and "token" in request.query_params:
            answer = self.exchange(request.query_params["token"])
        if answer is None:
            refusal = self.refusal(request)
            if refusal is None:
                answer = await go_on(request)
            else:
                answer = PlainTextResponse(refusal, 403)
        answer.headers.update(HEADERS)
        return answer


def explorer_app(
    folder: str | PathLike[str],
    access: Access,
    live: LiveAnswers | None = None,
) -> Starlette:
    """Return the application that serves an explorer. Any ASGI server can run it; see `serve_explorer`.

    Args:
        folder: The folder that `export_explorer` wrote.
        access: Decides which requests are answered.
        live: A `LiveModel`, or None if the page cannot ask a model.
    """
    path = Path(folder)
    about = read_about(path)
    notes = Notes(path / f"notes-{about['study']}.json", about["study"])
    services = ["notes"] if live is None else ["notes", "live"]
    page = render_page(about["title"], services)
    files = StaticFiles(directory=path)
    not_found = PlainTextResponse("Not Found", 404)

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        # Hidden files, such as the lock of the notes, are not served.
        hidden = "/." in scope["path"]
        await (not_found if hidden else files)(scope, receive, send)

    # The order matters: a path that no other route takes is a file of the folder.
    routes = [
        Route("/", lambda request: HTMLResponse(page)),
        Route("/notes", notes.answer, methods=["GET", "PUT"]),
        *_questions(live),
        Mount("/", shown),
    ]
    hosts = Middleware(
        TrustedHostMiddleware,
        allowed_hosts=[HOST, "localhost"],
        www_redirect=False,
    )
    # Errors become answers whose text the page shows. The three kinds are wrong input, a failing disk, and a reader who
    # has closed the connection.
    failures: dict[Any, Callable[[Request, Any], Response]] = {
        InputError: lambda _, error: PlainTextResponse(str(error), 422),
        OSError: lambda _, error: PlainTextResponse(
            sentence_of(error) or str(error), 507
        ),
        ClientDisconnect: lambda *_: Response(status_code=400),
    }
    return Starlette(
        False,
        routes,
        [hosts, Middleware(BaseHTTPMiddleware, dispatch=access)],
        failures,
    )


async def _body(request: Request, most: int = MOST_SENT) -> bytes:
    content = bytearray()
    # The length that a request claims may be wrong, so bytes are counted as they come.
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise HTTPException(
                413,
                f"Notes have at most {MOST_SENT >> 20} MiB, images {MOST_IMAGE >> 20} MiB.",
            )
    return bytes(content)


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


@dataclass(frozen=True)
class Notes:
    """The file in which the user's notes on circuits are stored: pins, groups, labels and texts."""

    path: Path
    """The file, which may not exist yet."""
    study: str
    """Digest of the circuits that the notes are about."""

    async def answer(self, request: Request) -> Response:
        """Answer a GET request with the file. For a PUT request, replace the file.

        The header ``If-Match`` of a PUT request names the version of the file that the page has read. If the file has
        changed since, the request is refused.
        """
        if request.method != "PUT":
            notes = self._read()
            headers = {"ETag": _tag(notes)}
            return Response(notes, headers=headers, media_type="application/json")
        content = await _body(request)
        if not self._fits(content):
            fields = ", ".join(sorted(SHELF))
            raise HTTPException(
                422,
                f"Expected notes of the study {self.study} as a state file with {fields}.",
            )
        tag = request.headers.get("if-match")
        # This runs in a thread, because waiting for the lock would block all other requests.
        replaced = await to_thread.run_sync(self._replace, content, tag)
        if not replaced:
            raise HTTPException(
                412, "Another tab has written since: read its notes first."
            )
        return Response(status_code=204, headers={"ETag": _tag(content)})

    def _read(self) -> bytes:
        return self.path.read_bytes() if self.path.is_file() else b""

    def _replace(self, content: bytes, tag: str | None) -> bool:
        """Replace the content of the file, unless the file was changed meanwhile. Return whether it was replaced.

        Args:
            content: The new content.
            tag: HTTP entity tag of the version that the page has read. If the file on disk has another tag, it was
                changed.
        """
        # The lock is needed because another server of the same folder may write the file, too.
        with file_lock(self.path.parent, self.path.stem):
            if tag != _tag(self._read()):
                return False
            with whole_file(self.path) as temporary:
                temporary.write_bytes(content)
        return True

    def _fits(self, content: bytes) -> bool:
        """Return whether some content is a state file about these circuits whose only fields are those in `SHELF`."""
        try:
            about = json.loads(content.decode())
            state = about.pop("state")
            for name, value in state.items():
                state[name] = fitting(value, SHELF[name], name)
            fitting(about, dict[str, str], "notes")
            for group in state.get("groups", ()):
                fitting(group["name"], str, "name")
                fitting(group["units"], list[str], "units")
                # A group has no fields besides the name and the units.
                if len(group) > 2:
                    return False
            of_study = about["study"] == self.study
            return bool(of_study and about["format"] == STATE_FORMAT)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False


def _questions(live: LiveAnswers | None) -> list[Route]:
    """Return the routes (addresses of the server) by which the page asks the model.

    The model answers one request at a time.
    """
    # Two runs at the same time would disturb each other, because the hooks of a run act on the whole model.
    one_at_a_time = CapacityLimiter(1)

    async def answer(ask: Callable[..., Any], *given: Any) -> Response:
        answered = await to_thread.run_sync(ask, *given, limiter=one_at_a_time)
        return JSONResponse(answered)

    async def effects(request: Request) -> Response:
        model = _model(live)
        content = await _body(request)
        try:
            question: Any = json.loads(content)
            class_name = str(question["className"])
            units = list(map(str, question["units"]))
            by = question["by"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise HTTPException(
                422, "Expected JSON with className, units and by."
            ) from None
        return await answer(model.effects, class_name, units, by)

    async def look(request: Request) -> Response:
        model = _model(live)
        content = await _body(request, MOST_IMAGE)
        return await answer(model.look, content)

    return [
        Route("/effects", effects, methods=["POST"]),
        Route("/image", look, methods=["POST"]),
    ]


def _model(live: LiveAnswers | None) -> LiveAnswers:
    if live is None:
        raise HTTPException(404, "The server has no model: start it with --with-model.")
    return live
