"""The routes of the pages: `/` and `/stack`, their files, what a key opens of them, and a request for one version."""

import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtest.generator.load import Load, Plan
from tests.support.stack import Stack, start_stack, wait_until
from tests.support.transformer import DIGITS, Transformer, make_key, start_transformer
from tests.support.versions import Build, write
from transformer.rest.playground import FILES

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JPEG = {"Content-Type": "image/jpeg"}
PAGES = ("/", "/stack")
ROW = [6.3, 3.3, 6.0, 2.5]


@pytest.fixture(scope="module")
def without_docs(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    log = tmp_path_factory.mktemp("without-docs") / "log"
    with start_transformer(
        f"127.0.0.1:{stack.triton_grpc_port}", log, variables={"TRANSFORMER_DOCS": "false"}
    ) as transformer:
        yield transformer


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (HTML["Accept"], "text/html"),
        ("application/json;q=0.5, TEXT/HTML", "text/html"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0", "application/json"),
        ("text/html; q=0.0, */*", "application/json"),
    ],
)
def test_home_is_a_page_only_where_the_client_accepts_html(stack: Stack, accept: str, media_type: str) -> None:
    response = stack.http.get("/", headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"].split(";")[0]) == (200, media_type)
    assert response.headers["vary"] == "Accept", "no cache gives a client of KServe the page"
    if media_type == "application/json":
        assert response.json() == {"status": "alive"}


@pytest.mark.parametrize("path", [*PAGES, "/playground/style.css"])
def test_page_has_its_head_and_is_not_sent_again(stack: Stack, path: str) -> None:
    whole = stack.http.get(path, headers=HTML)
    head = stack.http.head(path, headers=HTML)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert whole.headers["cache-control"] == "no-cache"
    again = stack.http.get(path, headers={**HTML, "If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert stack.http.head(path).status_code == 200


@pytest.mark.parametrize("path", [*PAGES, "/playground/style.css", "/status", "/openapi.json", "/unknown"])
def test_policy_lets_a_page_load_nothing_from_elsewhere_and_nothing_inline(stack: Stack, path: str) -> None:
    (policy,) = stack.http.get(path, headers=HTML).headers.get_list("content-security-policy")
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert "http" not in policy


def test_page_of_the_api_has_what_it_needs_inline(stack: Stack) -> None:
    response = stack.http.get("/docs", headers=HTML)
    assert "script-src 'self' 'unsafe-inline'" in response.headers["content-security-policy"]
    assert "<script>" in response.text
    for file in re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css))"', response.text):
        assert stack.http.get(file).status_code == 200, file


@pytest.mark.parametrize("path", sorted(str(file.relative_to(FILES)) for file in FILES.rglob("*") if file.is_file()))
def test_file_is_served_with_its_type_through_the_filter_of_system_calls(stack: Stack, path: str) -> None:
    response = stack.http.get(f"/playground/{path}")
    assert (response.status_code, response.content) == (200, (FILES / path).read_bytes())
    expected = {".js": "javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg"}.get(
        Path(path).suffix
    )
    assert (expected or "") in response.headers["content-type"]


@pytest.mark.parametrize(
    "path",
    [
        "/playground/../rest/app.py",
        "/playground/%2e%2e/rest/app.py",
        "/playground/..%2frest%2fapp.py",
        "/playground/..%5crest%5capp.py",
        "/playground//etc/passwd",
        "/playground/%2fetc/passwd",
        "/playground/%00",
        "/playground/" + "a" * 3000,
        "/playground/",
        "/playground/no-such-file.js",
    ],
)
def test_nothing_outside_of_the_folder_is_served(stack: Stack, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.http_port, timeout=30)
    connection.request("GET", path)  # as it is: httpx would resolve the dots
    response = connection.getresponse()
    assert (response.status, b"route_not_found" in response.read()) == (404, True)
    connection.close()


def test_nothing_of_the_pages_is_served_without_docs(without_docs: Transformer) -> None:
    home = without_docs.http.get("/", headers=HTML)
    assert (home.status_code, home.json()) == (200, {"status": "alive"})
    for path in ("/stack", "/playground/style.css", "/docs", "/openapi.json"):
        assert without_docs.http.get(path, headers=HTML).status_code == 404, path
    assert without_docs.http.post("/predict/iris/versions/1", json=ROW).status_code == 200


@pytest.mark.parametrize(
    ("keyless", "page", "liveness"),
    [("", 200, 200), ("health metrics", 200, 200), ("docs", 401, 401), ("playground", 200, 200)],
)
def test_pages_are_open_where_keyless_says_so(
    stack: Stack, tmp_path: Path, keyless: str, page: int, liveness: int
) -> None:
    """`/` is open by either word, for it is liveness too; what the page loads is open by `playground` alone."""
    variables = {"TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys.txt")}
    key = make_key("alice", tmp_path / "keys.txt")
    if keyless:
        variables["TRANSFORMER_KEYLESS"] = keyless
    files = 200 if keyless in {"", "playground"} else 401
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as guarded:
        assert guarded.http.get("/", headers=HTML).status_code == page
        assert guarded.http.get("/").status_code == liveness
        for path in ("/stack", "/playground/style.css"):
            assert guarded.http.get(path, headers=HTML).status_code == files, path
            assert guarded.http.get(path, headers={"X-API-Key": key}).status_code == 200, path
        for path in ("/v2/models", "/predict/iris/versions/1", "/playgroundx", "/stack/x"):
            assert guarded.http.get(path).status_code == 401, path


def test_one_version_of_a_model_infers(stack: Stack) -> None:
    image = stack.http.post("/predict/digit-finder/versions/1", content=DIGITS, headers=JPEG).raise_for_status().json()
    assert (image["model"]["version"], bool(image["predictions"])) == ("1", True)
    drawn = stack.http.post("/predict/digit-finder/versions/1", content=DIGITS, headers={**JPEG, "Accept": "image/png"})
    assert drawn.content.startswith(b"\x89PNG")
    rows = stack.http.post("/predict/iris/versions/1", json=ROW).raise_for_status().json()
    assert rows["predictions"][0]["class"] == "virginica"


@pytest.mark.parametrize("version", ["2", "0", "x", "99999999999999999999"])
def test_version_that_is_unknown_is_named(stack: Stack, version: str) -> None:
    response = stack.http.post(f"/predict/iris/versions/{version}", json=ROW)
    assert response.status_code in {400, 404}
    assert version in response.json()["error"]


def test_version_is_described(stack: Stack) -> None:
    described = stack.http.get("/openapi.json").json()["paths"]["/predict/{model}/versions/{version}"]["post"]
    assert {each["name"] for each in described["parameters"] if each["in"] == "path"} == {"model", "version"}
    assert "/stack" not in stack.http.get("/openapi.json").json()["paths"]


def test_version_that_is_pinned_serves_while_a_newer_one_is_loaded(tmp_path: Path) -> None:
    """Two versions serve; each is named while a third replaces the first."""
    repository = tmp_path / "repository"
    for number in (1, 2):
        write(repository, "rows", Build(1), number=number)
    config = repository / "rows" / "config.pbtxt"
    config.write_text(config.read_text() + "\nversion_policy { latest { num_versions: 2 } }\n")
    with start_stack(repository, tmp_path / "log", variables={"POLL_S": "0.5"}) as stack:
        url = f"localhost:{stack.http_port}"
        wait_until(lambda: serving(stack.http) == ["1", "2"], log=stack.log)
        with Load(Plan(url, f"localhost:{stack.grpc_port}", "rows", row=[1.0] * 4, pause_s=0.01)) as load:
            assert named(stack.http, "1") == named(stack.http, "2") == 200
            write(repository, "rows", Build(1), number=3)
            seen = {named(stack.http, "2")}
            while serving(stack.http) != ["2", "3"]:
                seen.add(named(stack.http, "2"))
            result = load.stop()
        assert seen <= {200}
        assert result.failures == []
        assert named(stack.http, "2") == named(stack.http, "3") == 200
        assert named(stack.http, "1") == 404


def serving(client: httpx.Client) -> list[str]:
    versions: list[str] = client.get("/status").json()["models"]["rows"]["serving"]
    return versions


def named(client: httpx.Client, version: str) -> int:
    """The status of a request for one version, whose response has that version where it succeeds."""
    response = client.post(f"/predict/rows/versions/{version}", json=[1.0] * 4)
    assert not response.is_success or response.json()["model"]["version"] == version
    return response.status_code
