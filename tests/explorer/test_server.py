"""The server gives an explorer to who has the token, writes nothing but whole notes, and measures units."""

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from circuitry.explorer import exported_study
from circuitry.explorer.server import Access, explorer_app
from circuitry.runs.files import whole_file
from tests.explorer.made import Answering
from tests.support.torn_writes import tear_writes

HOME = "http://127.0.0.1:8000"
SAME = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    return Path(shutil.copytree(exported, tmp_path / "explorer"))


@pytest.fixture
def access() -> Access:
    return Access()


@pytest.fixture
def stranger(folder: Path, access: Access) -> TestClient:
    return TestClient(explorer_app(folder, access, Answering()), base_url=HOME)


@pytest.fixture
def reader(stranger: TestClient, access: Access) -> TestClient:
    """Who came in with the token."""
    assert stranger.get(f"/?token={access.token}").status_code == 200
    return stranger


def notes_of(folder: Path, **shelf: Any) -> str:
    study = exported_study(folder)
    return json.dumps(
        {
            "format": "circuitry explorer state 1",
            "study": study,
            "title": "t",
            "state": shelf,
        }
    )


def test_the_token_works_once_and_becomes_a_strict_cookie(
    folder: Path, stranger: TestClient, access: Access
) -> None:
    first = stranger.get(f"/?token={access.token}", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert access.token.lower() not in cookie
    assert stranger.get("/").status_code == 200
    another = TestClient(stranger.app, base_url=HOME)
    assert another.get(f"/?token={access.token}").status_code == 403
    assert (
        another.get(
            "/", headers={"Cookie": f"{access.cookie}={access.token}"}
        ).status_code
        == 403
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.html",
        "/data/index.js",
        "/notes",
        "/?token=",
        "/?token=é",
        "/nothing",
    ],
)
def test_strangers_get_nothing(stranger: TestClient, path: str) -> None:
    found = stranger.get(path)
    assert found.status_code == 403
    assert "circuitry" not in found.text
    assert found.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec-Fetch-Site": "none"}, 200),
        ("GET", {"Host": "localhost:8000"}, 200),
        ("GET", {"Host": "evil.example"}, 400),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {}, 403),
        ("POST", {"Origin": "http://127.0.0.1:9999"}, 403),
        ("POST", {**SAME, "Host": "evil.example"}, 400),
        ("POST", SAME, 200),
    ],
)
def test_requests_of_other_sites_are_refused(
    reader: TestClient, method: str, headers: dict[str, str], expected: int
) -> None:
    body = (
        json.dumps({"className": "cat", "units": ["a/1"], "by": "zero"})
        if method == "POST"
        else None
    )
    path = "/effects" if method == "POST" else "/data/index.js"
    assert (
        reader.request(method, path, headers=headers, content=body).status_code
        == expected
    )


@pytest.mark.parametrize(
    "path",
    [
        "/..%2fsecret.txt",
        "/data/%2e%2e/%2e%2e/secret.txt",
        "/link",
        "{encoded}",
        "/.torn-x",
        "/data/%2ex/x",
    ],
)
def test_nothing_outside_the_folder_and_no_dot_file_is_served(
    folder: Path, reader: TestClient, path: str
) -> None:
    (folder / "link").symlink_to(folder.parent / "secret.txt")
    (folder / "data" / ".x").mkdir()
    for hidden in (folder / ".torn-x", folder / "data" / ".x" / "x"):
        hidden.write_text("secret")
    whole = quote(str(folder.parent / "secret.txt"), safe="")
    found = reader.get(path.replace("{encoded}", f"/{whole}"))
    assert found.status_code == 404
    assert "secret" not in found.text


def test_the_page_is_the_same_and_may_ask_its_server(
    folder: Path, reader: TestClient, access: Access
) -> None:
    page = reader.get("/").text
    on_disk = (folder / "index.html").read_text()
    assert '<meta name="served" content="notes live">' in page
    assert "connect-src 'self'" in page
    assert "connect-src" not in on_disk
    assert page.partition("importmap")[2] == on_disk.partition("importmap")[2]
    found = reader.get("/data/index.js")
    assert found.content == (folder / "data" / "index.js").read_bytes()
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
    assert "server" not in found.headers
    alone = TestClient(
        explorer_app(folder, access),
        base_url=HOME,
        cookies={access.cookie: access.secret},
    )
    assert '<meta name="served" content="notes">' in alone.get("/").text
    assert alone.post("/effects", headers=SAME).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/data/index.js", "/new.txt"])
def test_files_are_read_alone(
    folder: Path, reader: TestClient, method: str, path: str
) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert reader.request(method, path, headers=SAME, content="x").status_code == 405
    assert {
        file: file.read_bytes() for file in folder.rglob("*") if file.is_file()
    } == before


def put(reader: TestClient, content: str | bytes, tag: str | None) -> Any:
    return reader.put(
        "/notes",
        content=content,
        headers={**SAME, **({} if tag is None else {"If-Match": tag})},
    )


def test_notes_are_kept_and_the_second_of_two_writers_is_told(
    folder: Path, reader: TestClient
) -> None:
    empty = reader.get("/notes")
    assert empty.content == b""
    mine = notes_of(folder, pins=["a/1"])
    theirs = notes_of(folder, notes={"a/1": "שלום <b>"})
    written = put(reader, mine, empty.headers["etag"])
    assert written.status_code == 204
    assert put(reader, theirs, empty.headers["etag"]).status_code == 412
    assert put(reader, theirs, None).status_code == 412
    assert reader.get("/notes").text == mine
    assert put(reader, theirs, written.headers["etag"]).status_code == 204
    assert [file.read_text() for file in folder.glob("notes-*")] == [theirs]


def test_of_two_servers_of_a_folder_the_second_writer_is_told(
    folder: Path, reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other server is asked to write while this one does."""
    access = Access()
    other = TestClient(
        explorer_app(folder, access),
        base_url=HOME,
        cookies={access.cookie: access.secret},
    )
    tag = reader.get("/notes").headers["etag"]
    said = list[int]()
    second = threading.Thread(
        target=lambda: said.append(
            put(other, notes_of(folder, pins=["a/2"]), tag).status_code
        )
    )

    @contextlib.contextmanager
    def slow(path: Path) -> Iterator[Path]:
        if second.ident is None:
            second.start()
            second.join(0.5)
        with whole_file(path) as temporary:
            yield temporary

    monkeypatch.setattr("circuitry.explorer.server.whole_file", slow)
    assert put(reader, notes_of(folder, pins=["a/1"]), tag).status_code == 204
    second.join(10)
    assert said == [412]
    assert reader.get("/notes").text == notes_of(folder, pins=["a/1"])


@pytest.mark.parametrize(
    "content",
    [
        lambda folder: b"\xff",
        lambda folder: "[]",
        lambda folder: "[" * 100_000,
        lambda folder: notes_of(folder, pins=[])[:-1],
        lambda folder: notes_of(folder, className="cat"),
        lambda folder: notes_of(folder).replace("state 1", "state 0"),
        lambda folder: notes_of(folder).replace('"study": "', '"study": "0'),
        lambda folder: notes_of(folder).encode("utf-16"),
        lambda folder: notes_of(folder).replace('"t"', "NaN"),
        lambda folder: notes_of(folder).replace("{}", '["pins"]'),
        lambda folder: notes_of(folder, pins="a/1"),
        lambda folder: notes_of(folder, pins=["a/1", 2]),
        lambda folder: notes_of(folder, notes=["a/1"]),
        lambda folder: notes_of(folder, labels={"a/1": float("nan")}),
        lambda folder: notes_of(folder, groups=["a/1"]),
        lambda folder: notes_of(folder, groups=[{"name": "g", "units": "a/1"}]),
        lambda folder: notes_of(
            folder, groups=[{"name": "g", "units": ["a/1"], "more": float("nan")}]
        ),
    ],
)
def test_other_notes_are_refused_whole(
    folder: Path, reader: TestClient, content: Callable[[Path], Any]
) -> None:
    tag = put(
        reader, notes_of(folder, pins=["a/1"]), reader.get("/notes").headers["etag"]
    ).headers["etag"]
    assert put(reader, content(folder), tag).status_code == 422
    assert reader.get("/notes").text == notes_of(folder, pins=["a/1"])


def test_notes_are_written_whole_or_not_at_all(
    folder: Path, reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = put(
        reader, notes_of(folder, pins=["a/1"]), reader.get("/notes").headers["etag"]
    ).headers["etag"]

    tear_writes(monkeypatch)
    refused = put(reader, notes_of(folder, pins=[]), tag)
    assert (refused.status_code, "disk" in refused.text) == (507, True)
    assert reader.get("/notes").text == notes_of(folder, pins=["a/1"])
    monkeypatch.undo()
    groups = [{"name": "g", "units": ["a/1"]}]
    assert (
        put(
            reader, notes_of(folder, pins=[], groups=groups, labels={"a/1": "l"}), tag
        ).status_code
        == 204
    )
    assert put(reader, "x" * (5 << 20), tag).status_code == 413
    assert len(list(folder.glob("*notes*"))) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/notes"), ("POST", "/effects"), ("POST", "/image")]
)
def test_a_client_that_leaves_is_no_failure(
    folder: Path, access: Access, method: str, path: str
) -> None:
    said = iter([{"type": "http.request", "body": b"{", "more_body": True}])
    headers = {
        "host": HOME[7:],
        "cookie": f"{access.cookie}={access.secret}",
        "origin": HOME,
    }
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
    }
    scope["headers"] = [
        (name.encode(), value.encode()) for name, value in headers.items()
    ]

    async def receive() -> Any:
        return next(said, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        pass

    with ThreadPoolExecutor(1) as own:  # where no other test's loop runs
        own.submit(
            asyncio.run, explorer_app(folder, access, Answering())(scope, receive, send)
        ).result()


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        (
            "/effects",
            {"className": "cat", "units": ["a/1", "b/2"], "by": "mean"},
            200,
            ["<i>cat", "-0.5"],
        ),
        ("/effects", {"className": "dog", "units": ["a/1"], "by": "one"}, 422, ["one"]),
        ("/effects", {"className": "cat", "by": "mean"}, 422, ["units"]),
        ("/effects", "cat", 422, ["className"]),
        ("/image", b"mine", 200, ["mine: 'cat'", "0.9"]),
        ("/image", b"damaged", 422, ["damaged"]),
        ("/image", bytes((32 << 20) + 1), 413, ["32"]),
    ],
)
def test_the_model_is_asked(
    reader: TestClient, path: str, content: Any, status: int, words: list[str]
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content)
    found = reader.post(path, content=body, headers=SAME)
    assert found.status_code == status
    assert all(word in found.text for word in words)
    assert reader.post(path, content=body).status_code == 403
