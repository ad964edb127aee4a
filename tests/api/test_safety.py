"""What a page that anybody can reach must not do: every rule tried against a running one."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from generation.events import Running
from generation.parsing import parse_request
from history.store import History
from jobs import JobView, Runner
from lora_registry.registry import Registry
from tests.api.browser import Browser, Said
from tests.process.playground import KEY, Playground, playground
from tests.standins.fal_process import FalProcess
from ui.routes import routes
from ui.visitor import COOKIE, Visitors, new_token

SMALL = {"width": 64, "height": 64}
MIB = 2**20


@pytest.fixture(scope="module")
def public(fal: FalProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """In front of a room: visitors apart, each with a key of their own."""
    directory = tmp_path_factory.mktemp("public")
    with playground(directory, fal.environment, {"PLAYGROUND_MODE": "public"}) as running:
        yield running
    assert "Traceback" not in running.log()


def ask(
    page: Playground,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, bytes, dict[str, str]]:
    """One request as it is written here: no client tidies its target or its headers."""
    host = urlsplit(page.url).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    sent = {"Host": host, **(headers or {})}
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in sent:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


# -- what Gradio leaves open ---------------------------------------------------

CLOSED = [
    "/gradio_api/file=http://{there}/secret",
    "/gradio_api/file=https://{there}/secret",
    "/gradio_api/file=HTTP://{there}/secret",
    "/gradio_api/file=hTTps://{there}/secret",
    "/gradio_api/file%3Dhttp://{there}/secret",
    "/gradio_api/file%3dHTTP%3A%2F%2F{there}%2Fsecret",
    "/gradio_api/%66%69%6ce=%68ttp://{there}/secret",
    "/gradio_api/file/http://{there}/secret",
    "/gradio_api/file/HTTPS%3A//{there}/secret",
    "/gradio_api//file=http://{there}/secret",
    "/gradio_api/proxy=http://{there}/secret",
    "/gradio_api/proxy=https://x.hf.space/secret",
    "/gradio_api/%70roxy%3Dhttps://x.hf.space/secret",
    "/gradio_api/PROXY=https://x.hf.space/secret",
    "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/deep%5Flink?session_hash=x",
    "/gradio_api/Deep_Link?session_hash=x",
    "/pwa_icon",
    "/pwa_icon/20000",
    "/pwa%5ficon/20000",
    "/monitoring",
    "/monitoring/summary",
    "/monitoring/guess",
    "/%6Donitoring",
    "/gradio_api/process_recording",
    "/gradio_api/dev/reload",
]


@pytest.mark.parametrize("target", CLOSED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_closed(method: str, target: str, page: Playground, fal: FalProcess) -> None:
    status, body, _ = ask(page, method, target.format(there=urlsplit(fal._control).netloc))
    assert status == 404
    assert body in (b"", b"Not available.")
    assert fal.ledger().mentioning("/secret") == []


def test_run_history_is_off(page: Playground) -> None:
    assert ask(page, "GET", "/gradio_api/run-history/records")[0] == 404
    assert ask(page, "GET", "/config")[1].count(b'"run_history":false') == 1


def test_every_answer_says_not_to_guess_types(page: Playground) -> None:
    for target in ("/", "/config", "/media/x/0", "/gradio_api/info", "/nowhere", "/pwa_icon"):
        headers = ask(page, "GET", target)[2]
        assert headers["x-content-type-options"] == "nosniff", target


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "data.xml"])
def test_an_uploaded_page_is_not_shown_as_one(name: str, page: Playground) -> None:
    script = b"<script>alert(document.domain)</script>"
    with page.http() as http_client:
        (path,) = http_client.post("/gradio_api/upload", files={"files": (name, script)}).json()
        answer = http_client.get(f"/gradio_api/file={path}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


def test_a_range_of_a_file_does_not_repeat_the_request(page: Playground) -> None:
    with page.http() as http_client:
        files = {"files": ("a.png", b"\x89PNG" + b"0" * 99)}
        (path,) = http_client.post("/gradio_api/upload", files=files).json()
        private = {"Cookie": f"{COOKIE}=visitor", "Authorization": "Key a:b"}
        headers = {**private, "Range": "bytes=0-3"}
        answer = http_client.get(f"/gradio_api/file={path}", headers=headers)
    assert (answer.status_code, answer.content) == (206, b"\x89PNG")
    assert "cookie" not in answer.headers and "authorization" not in answer.headers


def test_signing_in_is_offered_only_where_there_is_a_provider(public: Playground) -> None:
    with Browser(public) as browser:
        shown = browser.fire(browser.opening(), ["demo", {}]).json()["data"][0]
        assert 'id="open-key"' in shown and 'id="sign-in"' not in shown
        assert browser.http.post("/login/huggingface").status_code in (404, 405)
        assert browser.http.get("/login/callback").status_code == 404


# -- who asks, and from where --------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "[",
        "",
    ],
)
def test_unknown_host(host: str, page: Playground) -> None:
    status, body, _ = ask(page, "GET", "/config", {"Host": host})
    assert status == 400
    assert b"components" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "[::1]:7860", "192.168.1.5:7860"])
def test_known_host(host: str, page: Playground) -> None:
    assert ask(page, "GET", "/config", {"Host": host})[0] == 200


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": "file://"},
    {"Origin": "http://["},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
WRITES = [
    "/recipe",
    "/gradio_api/upload",
    "/gradio_api/queue/join",
    "/gradio_api/run/predict",
    "/gradio_api/call/generate",
    "/gradio_api/call/v2/generate",
    "/gradio_api/component_server/",
    "/gradio_api/cancel",
    "/login",
]


@pytest.mark.parametrize("headers", FOREIGN, ids=repr)
def test_a_foreign_write_is_refused(headers: dict[str, str], page: Playground) -> None:
    json = {**headers, "Content-Type": "application/json"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for target in WRITES:
            status, body, _ = ask(page, method, target, json, b'{"prompt": "x", "data": ["x"]}')
            assert (status, body) == (403, b"Refused: this request came from another site.")


def test_nothing_comes_of_a_foreign_write(page: Playground, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    for headers in FOREIGN:
        ask(page, "POST", "/gradio_api/call/v2/generate", headers, b'{"prompt": "foreign"}')
    with Browser(page) as browser:
        assert browser.history(query="foreign") == []
    assert len(fal.ledger().posts()) == before


def test_a_write_of_our_own_page_is_taken(page: Playground) -> None:
    own = {"Origin": page.url, "Sec-Fetch-Site": "same-origin"}
    assert ask(page, "POST", "/recipe", own, b"no image")[0] == 422
    behind_a_proxy = {"Origin": "https://space.example", "X-Forwarded-Host": "space.example"}
    assert ask(page, "POST", "/recipe", behind_a_proxy, b"no image")[0] == 422
    assert ask(page, "POST", "/recipe", {}, b"no image")[0] == 422


def test_no_other_site_may_read_an_answer(page: Playground) -> None:
    evil = {"Origin": "https://evil.example"}
    for target in ("/config", "/gradio_api/info"):
        headers = ask(page, "GET", target, evil)[2]
        assert headers.get("access-control-allow-origin") not in ("*", evil["Origin"])
    preflight = {**evil, "Access-Control-Request-Method": "POST"}
    answer = ask(page, "OPTIONS", "/gradio_api/call/v2/generate", preflight)[2]
    assert answer.get("access-control-allow-origin") not in ("*", evil["Origin"])


# -- how much ------------------------------------------------------------------


@pytest.mark.parametrize("target", WRITES[:-1])
def test_a_declared_large_body_is_refused_unread(target: str, page: Playground) -> None:
    headers = {"Content-Length": str(70 * MIB)}
    status, body, _ = ask(page, "POST", target, headers)
    assert (status, body) == (413, b"Refused: more than 65 MiB.")


@pytest.mark.parametrize(
    ("target", "kind", "status"),
    [
        ("/gradio_api/upload", "multipart/form-data; boundary=B", 413),
        ("/gradio_api/component_server/", "multipart/form-data; boundary=B", 413),
        ("/gradio_api/call/v2/generate", "application/json", 413),
        ("/gradio_api/queue/join", "application/json", 413),
        ("/recipe", "image/png", 422),
    ],
)
def test_a_chunked_large_body_is_refused(
    target: str, kind: str, status: int, page: Playground
) -> None:
    def body() -> Iterator[bytes]:
        # A field without a file name: Gradio's own limit is for files.
        yield b'--B\r\nContent-Disposition: form-data; name="files"\r\n\r\n'
        for _ in range(300):
            yield b" " * MIB

    before = peak_memory(page)
    with page.http() as http_client:
        answer = http_client.post(target, content=body(), headers={"Content-Type": kind})
    assert answer.status_code == status
    assert "MiB" in answer.text
    assert ask(page, "GET", "/config")[0] == 200
    assert peak_memory(page) - before < 250 * MIB


def peak_memory(page: Playground) -> int:
    """Bytes, so far."""
    status = Path(f"/proc/{page.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# -- names of files ------------------------------------------------------------


@pytest.fixture(scope="module")
def job(page: Playground) -> str:
    """A job of the private page with one image."""
    with Browser(page) as browser:
        browser.call("generate", prompt="a file of ours", image_size=SMALL)
        (row,) = browser.history(query="a file of ours")
    return str(row["id"])


MEDIA = [
    "/media/../../../../etc/passwd",
    "/media/%2e%2e/0",
    "/media/..%2f..%2f..%2fetc%2fpasswd/0",
    "/media/..%5c..%5chistory.sqlite3/0",
    "/media/history.sqlite3/0",
    "/media/%2fetc%2fpasswd/0",
    "/media/{job}/-1",
    "/media/{job}/1",
    "/media/{job}/99999999999999999999999",
    "/media/{job}/0%2f..%2f..",
    "/media/{job}%00/0",
    "/media/{job}%0a/0",
    "/media/{job}%25/0",
    "/media/{upper}/0",
    "/media/{job}/live",
    "/media/{job}/0/preview/../../../history.sqlite3",
]


@pytest.mark.parametrize("target", MEDIA)
def test_media_gives_images_and_nothing_else(target: str, page: Playground, job: str) -> None:
    status, body, _ = ask(page, "GET", target.format(job=job, upper=job.upper()))
    assert (status, len(body)) == (404, len(body)), body[:80]
    assert b"root:" not in body and b"SQLite" not in body


FILES = [
    "{data}/history.sqlite3",
    "{data}/images/{month}/{job}-0.png",
    "{data}/playground.lock",
    "/etc/passwd",
    "/proc/self/environ",
    "../../../../../../etc/passwd",
    "app.py",
    ".env",
    "file:///etc/passwd",
    "{temp}/../data/history.sqlite3",
    "{temp}/%2e%2e/data/history.sqlite3",
]


@pytest.mark.parametrize("name", FILES)
def test_gradio_serves_nothing_of_ours(name: str, page: Playground, job: str) -> None:
    month = next((page.data_dir / "images").iterdir()).name
    path = name.format(data=page.data_dir, temp=page.temp_dir, job=job, month=month)
    for target in (f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/static/{path}"):
        assert ask(page, "GET", target)[0] in (403, 404), target
    with Browser(page) as browser, pytest.raises(Said):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        browser.call("restore", image=file)


def test_the_images_themselves_are_there(page: Playground, job: str) -> None:
    for target in (f"/media/{job}/0", f"/media/{job}/0/preview", f"/media/{job}/0?download=1"):
        status, body, headers = ask(page, "GET", target)
        assert status == 200 and body[:4] in (b"\x89PNG", b"RIFF")
        assert headers["content-type"] in ("image/png", "image/webp")


# -- visitors ------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(public: Playground) -> Iterator[Browser]:
    """A visitor with a key, an image and a favourite."""
    with Browser(public) as browser:
        browser.serve("account", "set_key", {"key": KEY})
        browser.call("generate", prompt="our secret garden", image_size=SMALL)
        browser.act("favourite", browser.history()[0]["id"])
        yield browser


@pytest.fixture
def other(public: Playground) -> Iterator[Browser]:
    with Browser(public) as browser:
        yield browser


def test_every_visitor_is_named_once(ours: Browser, other: Browser) -> None:
    names = [browser.http.cookies[COOKIE] for browser in (ours, other)]
    assert names[0] != names[1] and all(len(name) == 43 for name in names)
    assert "set-cookie" not in other.http.get("/config").headers


def test_a_visitor_finds_their_own(ours: Browser) -> None:
    (row,) = ours.history()
    assert row["prompt"] == "our secret garden" and row["favourite"] is True
    assert [found["id"] for found in ours.changes()["jobs"]] == [row["id"]]
    assert ours.http.get(f"/media/{row['id']}/0").status_code == 200


def test_no_route_shows_a_visitor_what_is_anothers(ours: Browser, other: Browser) -> None:
    (row,) = ours.history()
    for target in ("0", "0/preview", "0?download=1", "live", "live?v=1"):
        assert other.http.get(f"/media/{row['id']}/{target}").status_code == 404
    assert other.history() == other.history(query="garden") == other.history(before=row["id"]) == []
    assert other.changes()["jobs"] == [] and other.changes()["spent"] == "$0.0000"
    for asked in ({}, {"query": "garden"}, {"before": row["id"]}, {"favourites": True}):
        gallery = other.serve("gallery", "list_jobs", asked).text
        assert row["id"] not in gallery and "garden" not in gallery


ACTIONS = ("stop", "check", "dismiss", "retry", "vary", "favourite", "delete", "undelete")


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("elem_id", ["live", "gallery"])
def test_no_button_works_on_anothers_job(
    elem_id: str, action: str, ours: Browser, other: Browser, fal: FalProcess
) -> None:
    before, posts = ours.history(), len(fal.ledger().posts())
    answer = other.act(action, before[0]["id"], elem_id)
    assert answer["cause"] == "There is no such job in your history."
    assert ours.history() == before
    assert len(fal.ledger().posts()) == posts


@pytest.mark.parametrize("elem_id", ["live", "gallery"])
def test_settings_of_anothers_job_are_not_restored(
    elem_id: str, ours: Browser, other: Browser
) -> None:
    job = ours.history()[0]["id"]
    (handler,) = ours.events(elem_id, "restore")
    assert "our secret garden" in ours.fire(handler, [], {"job": job}).text
    assert "garden" not in other.fire(handler, [], {"job": job}).text


def test_a_key_is_its_visitors_alone(ours: Browser, other: Browser, fal: FalProcess) -> None:
    posts = len(fal.ledger().posts())
    with pytest.raises(Said, match="The hosted endpoint needs a fal key"):
        other.call("generate", prompt="at your expense", image_size=SMALL, backend="hosted")
    assert len(fal.ledger().posts()) == posts
    assert "Your key" in ours.serve("account", "set_key", {"key": KEY}).text


def test_a_file_that_was_returned_is_found_by_nobody_who_was_not_told(
    ours: Browser, other: Browser, public: Playground
) -> None:
    """Gradio serves what it returned to whoever names it; the name holds the image's hash."""
    images, _receipt = ours.call("generate", prompt="told", image_size=SMALL)
    path = str(images[0]["path"])
    assert re.search(r"/[0-9a-f]{64}/[0-9a-f]{38}-0\.png$", path)
    parts = path.split("/")
    for guess in (public.temp_dir, "/".join(parts[:-1]), "/".join([*parts[:-2], parts[-1]])):
        assert other.http.get(f"/gradio_api/file={guess}").status_code in (403, 404)


def cookie_of(headers: dict[str, str]) -> dict[str, str]:
    """The cookie's attributes in lower case; its value under its own name."""
    parts = headers["set-cookie"].split("; ")
    pairs = (part.partition("=") for part in parts)
    return {name if name == COOKIE else name.lower(): value for name, _, value in pairs}


def test_the_cookie_is_for_this_page_alone(public: Playground) -> None:
    cookie = cookie_of(ask(public, "GET", "/")[2])
    assert "httponly" in cookie and cookie["path"] == "/" and cookie["samesite"] == "Lax"
    assert not {"secure", "domain"} & cookie.keys() and int(cookie["max-age"]) > 0


def test_behind_https_the_cookie_is_secure_and_lives_in_a_frame(public: Playground) -> None:
    cookie = cookie_of(ask(public, "GET", "/", {"X-Forwarded-Proto": "https"})[2])
    assert {"secure", "httponly", "partitioned"} <= cookie.keys() and cookie["samesite"] == "None"


def test_a_visitor_stays_the_same_among_strange_cookies(public: Playground) -> None:
    name = new_token()
    for cookies in (f"a=1; {COOKIE}={name}", f'x={{"y":1}}; bad cookie; {COOKIE}={name}; b="'):
        assert "set-cookie" not in ask(public, "GET", "/config", {"Cookie": cookies})[2]


@pytest.mark.parametrize("token", ["", "short", "x" * 44, "local", "../../local"])
def test_a_name_that_we_never_gave_is_replaced(token: str, public: Playground) -> None:
    headers = {"Cookie": f"{COOKIE}={token}"}
    assert len(cookie_of(ask(public, "GET", "/config", headers)[2])[COOKIE]) == 43


def test_a_private_page_names_nobody(page: Playground) -> None:
    assert all("set-cookie" not in ask(page, "GET", t)[2] for t in ("/", "/config", "/media/x/0"))


def test_a_live_preview_is_for_its_owner(history: History, tmp_path: Path) -> None:
    """In front of a board of our own: the hosted endpoint has no previews."""
    runner, visitors, token = Runner(history, {}), Visitors("public"), new_token()
    parsed = parse_request({"prompt": "being made"})
    job = history.create(f"visitor:{token}", "demo", parsed.request)
    runner.board.show(JobView(job, live=Running(1, 8, preview=b"preview")))
    site = TestClient(Starlette(routes=routes(runner, Registry(tmp_path), visitors)))
    seen = {}
    for name, cookies in (
        ("owner", {COOKIE: token}),
        ("other", {COOKIE: new_token()}),
        ("nobody", {}),
        ("nonsense", {COOKIE: "local"}),
    ):
        site.cookies = cookies
        seen[name] = site.get(f"/media/{job.id}/live").status_code
    assert seen == {"owner": 200, "other": 404, "nobody": 404, "nonsense": 404}


# -- what the page itself asks for ---------------------------------------------


class Fetched(HTMLParser):
    """Addresses that a browser asks for by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"link": "href"}.get(tag, "src")
        self.addresses += [value for name, value in attrs if name == wanted and value]


def test_the_page_asks_nobody_else(page: Playground) -> None:
    with page.http() as http_client:
        html = http_client.get("/").text
        fetched = Fetched()
        fetched.feed(html)
        styles = [a for a in fetched.addresses if a.endswith(".css")]
        css = [http_client.get(a).text for a in (*styles, "/theme.css")]
        config = http_client.get("/config").json()
    assert styles and all(not urlsplit(address).netloc for address in fetched.addresses)
    assert config["stylesheets"] == []
    for text in (*css, config["css"], html):
        assert not re.search(r"(url\(\s*['\"]?|@import\s+['\"]?)(https?:)?//", text)
        assert "fonts.googleapis" not in text and "cdnjs" not in text
