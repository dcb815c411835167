"""The page of the stack, over a real one: swaps, faults, traffic, keys, and a server that stops, as seen there."""

import re
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.stack import PATIENCE_S, Stack, start_shipped, start_stack
from tests.support.transformer import DIGITS, make_key, start_transformer
from tests.support.versions import Build, corrupt_sealed, write
from tests.support.watched import Watch, find_barriers, shot

OpenPage = Callable[..., Page]
JPEG = {"Content-Type": "image/jpeg"}
PATIENCE_MS = PATIENCE_S * 1000
# Bounds of nereid_request_seconds in ms: a quantile is within the bucket of what was measured, or the one beside it.
BOUNDS_MS = (0, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write(tmp_path / "repository", "rows", Build(1))
    return tmp_path / "repository"


@pytest.fixture
def served(repository: Path) -> Iterator[Stack]:
    with start_stack(repository, repository.parent / "log", variables={"POLL_S": "0.5"}) as running:
        yield running


def url(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.http_port}"


def version(model: str, number: int) -> str:
    return f'[data-model="{model}"] [data-version="{number}"]'


def milliseconds(text: str) -> float:
    value, unit = text.split()
    return float(value) * (1000 if unit == "s" else 1)


def test_page_shows_the_models_that_are_shipped_without_barriers(page: Page) -> None:
    page.goto("/stack")
    for model in ("digit-finder", "iris"):
        expect(page.locator(version(model, 1))).to_contain_text("serving", timeout=PATIENCE_MS)
    expect(page.locator("#is-ready")).to_have_text("yes")
    expect(page.locator("#listing")).to_contain_text("succeeds, last at")
    expect(page.locator("#per-second")).to_have_text(re.compile(r"^\d"), timeout=15_000)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert find_barriers(page) == []
        shot(page, f"stack-{scheme}")


@pytest.mark.parametrize("width", [320, 768])
def test_page_fits_a_small_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    page.goto("/stack")
    expect(page.locator(version("iris", 1))).to_contain_text("serving", timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert find_barriers(page) == []
    shot(page, f"stack-{width}")


def test_swap_and_rejection_are_seen_without_a_reload(served: Stack, open_page: OpenPage, repository: Path) -> None:
    page = open_page(url(served))
    page.goto("/stack")
    page.evaluate("() => { window.sameDocument = true }")
    expect(page.locator(version("rows", 1))).to_contain_text("serving", timeout=PATIENCE_MS)
    expect(page.locator("#no-events")).to_be_visible()
    write(repository, "rows", Build(2))
    expect(page.locator(version("rows", 2))).to_contain_text("serving", timeout=PATIENCE_MS)
    expect(page.locator(version("rows", 1))).to_contain_text("available")
    expect(page.locator("#events .fresh", has_text="rows 2 serves")).to_be_visible()
    expect(page.locator("#events", has_text="rows 1 is retired")).to_be_visible()
    shot(page, "stack-swap")
    spoiled = write(repository.parent / "made", "rows", Build(3), number=3)
    corrupt_sealed(spoiled)
    shutil.copytree(spoiled, repository / "rows" / "3")
    expect(page.locator(version("rows", 3))).to_contain_text("rejected", timeout=PATIENCE_MS)
    reason = served.http.get("/status").json()["models"]["rows"]["versions"]["3"]["reason"]
    expect(page.locator(version("rows", 3))).to_contain_text(reason)
    expect(page.locator(version("rows", 3))).to_contain_text("Correct it and publish it as a new version")
    assert find_barriers(page) == []
    shot(page, "stack-rejected")
    shutil.rmtree(repository / "rows" / "2")
    expect(page.locator("#events", has_text="rows 2 is no longer in the repository")).to_be_visible(timeout=PATIENCE_MS)
    assert page.evaluate("window.sameDocument")


def test_triton_that_is_killed_is_seen_and_its_return(served: Stack, open_page: OpenPage) -> None:
    page = open_page(url(served))
    page.goto("/stack")
    expect(page.locator("#triton")).to_contain_text("responds since", timeout=PATIENCE_MS)
    triton = served.part("tritonserver")
    triton.suspend()  # it hangs, for longer than the supervisor needs to start another
    expect(page.locator("#triton")).to_contain_text("does not respond since", timeout=PATIENCE_MS)
    expect(page.locator("#is-ready")).to_have_text("no: Triton does not respond")
    assert find_barriers(page) == []
    shot(page, "stack-triton-away")
    triton.kill()
    expect(page.locator("#triton")).to_contain_text(re.compile("^responds since"), timeout=PATIENCE_MS)
    expect(page.locator("#events", has_text="Triton responds again")).to_be_visible()
    expect(page.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)


def test_rate_and_latency_are_those_of_the_client(open_page: OpenPage, tmp_path: Path) -> None:
    with start_shipped(tmp_path, "digit-finder") as stack:
        page = open_page(url(stack))
        page.goto("/stack")
        expect(page.locator("#p50")).to_have_text("no requests", timeout=PATIENCE_MS)
        expect(page.locator("#stages")).to_have_text("No requests.")
        shot(page, "stack-no-requests")
        took_ms, began = [], time.monotonic()
        while time.monotonic() - began < 20:
            at = time.monotonic()
            stack.http.post("/predict/digit-finder", content=DIGITS, headers=JPEG).raise_for_status()
            took_ms.append((time.monotonic() - at) * 1000)
            page.wait_for_timeout(20)  # the page's events are handled meanwhile
        rate = len(took_ms) / (time.monotonic() - began)
        expect(page.locator("#stages [data-model=digit-finder]")).to_be_visible()
        p50, p99 = (milliseconds(page.locator(f"#{name}").inner_text()) for name in ("p50", "p99"))
        shown = float(page.locator("#per-second").inner_text())
        assert abs(bucket(p50) - bucket(statistics.median(took_ms))) <= 1, (p50, statistics.median(took_ms))
        assert bucket(p99) <= bucket(max(took_ms)) + 1
        # The window of the page begins a poll before the first request, and ends up to two before now.
        assert rate * 0.7 < shown < rate * 1.2, (rate, shown)
        assert find_barriers(page) == []
        shot(page, "stack-traffic")
        page.close()


def bucket(ms: float) -> int:
    return sum(ms > bound for bound in BOUNDS_MS)


def test_rejected_requests_are_counted_by_reason(open_page: OpenPage, tmp_path: Path) -> None:
    variables = {"TRANSFORMER_MAX_WAITING": "1", "TRANSFORMER_MAX_IN_FLIGHT": "1"}
    with start_shipped(tmp_path, "digit-finder", variables=variables) as stack, ThreadPoolExecutor(8) as pool:
        page = open_page(url(stack))
        page.goto("/stack")
        expect(page.locator("#errors")).to_have_text("None.", timeout=PATIENCE_MS)
        ended = threading.Event()

        def flood() -> int:
            rejected = 0
            with httpx.Client(base_url=url(stack)) as client:
                while not ended.is_set():
                    rejected += client.post("/predict/digit-finder", content=DIGITS, headers=JPEG).status_code == 429
            return rejected

        floods = [pool.submit(flood) for _ in range(8)]
        expect(page.locator("#errors")).to_contain_text("429the queue was full", timeout=PATIENCE_MS)
        expect(page.locator("#waiting")).to_have_text("1", timeout=PATIENCE_MS)
        shot(page, "stack-overload")
        ended.set()
        rejected = sum(each.result() for each in floods)
        row = page.locator("#errors tr", has_text="429").locator("td").nth(2)
        expect(row).to_have_text(str(rejected), timeout=10_000)
        assert find_barriers(page) == []
        page.close()


@pytest.mark.parametrize("keyless", ["health metrics playground", "health status playground", "playground"])
def test_key_is_typed_in_and_forgotten(
    open_page: OpenPage, watch: Watch, stack: Stack, tmp_path: Path, keyless: str
) -> None:
    watch.allow("401|403")
    key = make_key("alice", tmp_path / "keys.txt")
    variables = {
        "TRANSFORMER_API_KEYS_FILE": str(tmp_path / "keys.txt"),
        "TRANSFORMER_KEYLESS": keyless,
        "TRANSFORMER_SYNC_URL": stack.sync,
    }
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log", variables=variables) as guarded:
        page = open_page(f"http://127.0.0.1:{guarded.http_port}")
        page.goto("/stack")
        for route, problem in (("metrics", "#traffic-problem"), ("status", "#models-problem")):
            if route in keyless:
                expect(page.locator(problem)).to_be_hidden()
            else:
                expect(page.locator(problem)).to_contain_text("Type your API key in at the top")
        if "status" in keyless:
            expect(page.locator(version("iris", 1))).to_contain_text("serving")
        assert find_barriers(page) == []
        shot(page, f"stack-key-{'-'.join(keyless.split())}")
        page.get_by_label("API key").fill("another")
        page.get_by_role("button", name="Use").click()
        expect(page.locator("#traffic-problem, #models-problem").filter(visible=True).first).to_be_visible()
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator(version("iris", 1))).to_contain_text("serving")
        expect(page.locator("#in-flight")).to_have_text(re.compile(r"^\d"))
        expect(page.locator("#traffic-problem")).to_be_hidden()
        assert key not in page.content()
        page.get_by_role("button", name="Forget").click()
        expect(page.locator("#traffic-problem, #models-problem").filter(visible=True).first).to_be_visible()
        page.close()


def test_server_that_stops_is_seen_and_the_page_goes_on_by_itself(
    served: Stack, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("net::ERR_|response: 503|status of 503")
    page = open_page(url(served))
    page.goto("/stack")
    expect(page.locator("#server")).to_have_text("The server responds.")
    expect(page.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)
    transformer = served.part("transformer")
    transformer.suspend()
    since = re.compile(r"The server does not respond since \d\d:\d\d:\d\d\. What is shown is of \d\d:\d\d:\d\d\.")
    expect(page.locator("#server")).to_have_text(since, timeout=PATIENCE_MS)
    first = page.locator("#server").inner_text()
    expect(page.locator("#countdown")).to_have_text("Trying again in 4 s.", timeout=PATIENCE_MS)
    expect(page.locator("#ready")).to_contain_text("Not known")
    assert page.locator("#server").inner_text() == first, "since when it is away, not since the last try"
    assert find_barriers(page) == []
    shot(page, "stack-server-away")
    transformer.kill()
    expect(page.locator("#server")).to_have_text("The server responds.", timeout=PATIENCE_MS)
    expect(page.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)
    expect(page.locator("#events", has_text="the server was started again")).to_be_visible(timeout=PATIENCE_MS)
    shot(page, "stack-server-back")


def test_server_without_a_synchroniser_shows_what_it_has_and_why(
    open_page: OpenPage, watch: Watch, stack: Stack, tmp_path: Path
) -> None:
    watch.allow("404|501")
    with start_transformer(f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log") as alone:
        page = open_page(f"http://127.0.0.1:{alone.http_port}")
        page.goto("/stack")
        expect(page.locator("#models-problem")).to_contain_text("no synchroniser")
        expect(page.locator("#models-problem")).to_contain_text("its Triton does not list its models")
        expect(page.locator("#models-problem")).to_contain_text("TRANSFORMER_SYNC_URL")
        expect(page.locator("#triton")).to_have_text("responds")
        assert find_barriers(page) == []
        # As a Triton responds that lists its models: this one was started so that it does not.
        page.route("**/v2/models", lambda route: route.fulfill(json={"models": ["iris", "<b>wine</b>"]}))
        expect(page.locator("#models li")).to_have_text(["iris", "<b>wine</b>"])
        shot(page, "stack-without-synchroniser")
        page.close()


def test_names_cannot_carry_markup(open_page: OpenPage, tmp_path: Path) -> None:
    name = "<img src=x onerror=window.ran=1>"
    write(tmp_path / "repository", "rows", Build(1))
    (tmp_path / "repository" / name / "1").mkdir(parents=True)
    (tmp_path / "repository" / name / "config.pbtxt").write_text('platform: "<b>x</b>"')
    with start_stack(tmp_path / "repository", tmp_path / "log") as stack:
        page = open_page(url(stack))
        page.goto("/stack")
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        expect(page.locator(version("rows", 1))).to_contain_text("serving")
        assert page.locator("main img, main b").count() == 0
        assert page.evaluate("window.ran") is None
        shot(page, "stack-markup")
        page.close()


def test_page_pauses_while_it_is_hidden(page: Page) -> None:
    page.goto("/stack")
    expect(page.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    hide = "hidden => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true}); "
    page.evaluate(hide + "document.dispatchEvent(new Event('visibilitychange')) }", True)
    page.wait_for_timeout(500)
    seen.clear()
    page.wait_for_timeout(5000)
    assert seen == []
    page.evaluate(hide + "document.dispatchEvent(new Event('visibilitychange')) }", False)
    page.wait_for_timeout(1000)
    assert sorted(each.rsplit("/", 1)[1] for each in seen) == ["metrics", "status"]


def test_slash_at_the_end_leads_to_the_page(page: Page) -> None:
    page.goto("/stack/")
    assert page.url.endswith("/stack")
    expect(page.locator("#is-ready")).to_have_text("yes", timeout=PATIENCE_MS)


def test_quantile_is_that_of_prometheus(page: Page) -> None:
    """By hand, after the rule of histogram_quantile: linear within a bucket, the last finite bound beyond all."""
    page.goto("/stack")
    compute = """async ([buckets, q]) => {
        const { quantile } = await import(new URL("playground/stack/prometheus.js", document.baseURI));
        return quantile(new Map(buckets.map(([le, count]) => [le === "+Inf" ? Infinity : le, count])), q);
    }"""
    four = [[0.1, 5], [0.2, 7], [1, 10], ["+Inf", 12]]
    for buckets, q, expected in (
        (four, 0.5, 0.15),  # rank 6 is half of the way through the second bucket
        (four, 0.25, 0.06),  # rank 3 of the 5 from 0 to 0.1
        (four, 0.99, 1.0),  # beyond the last bound
        ([[0.1, 4], [1, 4], ["+Inf", 4]], 1.0, 0.1),
    ):
        assert page.evaluate(compute, [buckets, q]) == pytest.approx(expected), (buckets, q)
    assert page.evaluate(f"async (given) => Number.isNaN(await ({compute})(given))", [[["+Inf", 0]], 0.5])


def test_text_format_is_read_with_every_escape(page: Page) -> None:
    page.goto("/stack")
    text = '# HELP a b\na{x="1,\\"}\\\\\\n",y=""} 1.5e+03\nb 2\nc{le="+Inf"} +Inf\n'
    read = """async (text) => {
        const { parse } = await import(new URL("playground/stack/prometheus.js", document.baseURI));
        const list = (samples) => samples.map((each) => [each.labels, String(each.value)]);
        return [...parse(text)].map(([name, samples]) => [name, list(samples)]);
    }"""
    assert page.evaluate(read, text) == [
        ["a", [[{"x": '1,"}\\\n', "y": ""}, "1500"]]],
        ["b", [[{}, "2"]]],
        ["c", [[{"le": "+Inf"}, "Infinity"]]],
    ]
