"""What clients get, through a real Envoy: hosts, paths, annotations."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from knarr.api.networking.v1 import Ingress
from tests.edge.ingress.lab import ADDRESS, HERE, Lab, lab
from tests.edge.ingress.objects import ingress, service


@pytest_asyncio.fixture
async def edge() -> AsyncIterator[Lab]:
    async with lab() as running:
        yield running


async def test_hosts_and_paths_lead_to_their_services(edge: Lab) -> None:
    await edge.backend("web")
    await edge.backend("api")
    paths = [("shop.example", "Prefix", "/", "web"), ("shop.example", "Prefix", "/api", "api")]
    await edge.create(ingress("shop", [*paths, ("shop.example", "Exact", "/api/web", "web")]))
    await edge.applied()
    assert (await edge.get("shop.example", "/")).backend == "web"
    assert (await edge.get("shop.example", "/api/orders")).backend == "api"
    assert (await edge.get("shop.example", "/api?x=1")).backend == "api"
    assert (await edge.get("shop.example", "/apiary")).backend == "web"
    assert (await edge.get("shop.example", "/api/web")).backend == "web"
    assert (await edge.get("SHOP.example", "/api/web/")).backend == "api"
    other = await edge.get("other.example", "/")
    assert (other.status, other.text) == (404, "404 page not found\n")


async def test_a_wildcard_is_one_label_and_what_is_deeper_goes_where_no_host_is_asked_for(edge: Lab) -> None:
    for name in ("exact", "wild", "any"):
        await edge.backend(name)
    await edge.create(ingress("exact", [("a.shop.example", "Prefix", "/", "exact")]))
    await edge.create(ingress("wild", [("*.shop.example", "Prefix", "/", "wild")]))
    await edge.create(ingress("any", [("", "Prefix", "/any", "any")]))
    await edge.applied()
    assert (await edge.get("a.shop.example")).backend == "exact"
    assert (await edge.get("b.shop.example")).backend == "wild"
    assert (await edge.get("b.shop.example", "/any")).backend == "wild"
    assert (await edge.get("c.b.shop.example", "/any")).backend == "any"
    assert (await edge.get("c.b.shop.example", "/")).status == 404
    assert (await edge.get("shop.example", "/")).status == 404


async def test_the_status_tells_the_address_while_envoy_serves(edge: Lab) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")]))

    async def told() -> list[str]:
        found = await edge.client.get(Ingress, "shop", "default")
        balancer = found.status.load_balancer if found.status else None
        return [each.ip or "" for each in (balancer.ingress if balancer else ())]

    async def untold() -> bool:
        return not await told()

    assert await edge.until(told) == [ADDRESS]
    refused = ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations={"server-snippet": "deny all;"})
    await edge.update(refused)
    await edge.until(untold)  # Else DNS would go on leading to what is not served.
    await edge.update(ingress("shop", [("shop.example", "Prefix", "/", "web")]))
    assert await edge.until(told) == [ADDRESS]


async def test_without_an_endpoint_the_answer_is_503_and_it_is_200_as_soon_as_there_is_one(edge: Lab) -> None:
    await edge.create(service("web"))
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")]))
    await edge.applied()
    assert (await edge.get("shop.example")).status == 503
    running = await edge.server("web")
    from tests.edge.ingress.objects import slice_of

    await edge.create(slice_of("web", [(HERE, running.port)]))
    await edge.applied()
    assert (await edge.get("shop.example")).backend == "web"


async def test_what_a_client_claims_about_itself_is_overwritten(edge: Lab) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")]))
    await edge.applied()
    claimed = {
        "x-forwarded-for": "198.51.100.1",
        "x-real-ip": "198.51.100.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil.example",
        "x-envoy-original-path": "/evil",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "bad_header": "x",
    }
    headers = (await edge.get("shop.example", "/", headers=claimed)).body["headers"]
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == f"shop.example:{edge.http_port}"
    assert headers["x-forwarded-port"] == str(edge.http_port)
    assert {name for name in headers if name.startswith("x-envoy-")} <= {"x-envoy-external-address"}
    assert headers["x-envoy-external-address"] == "127.0.0.1"
    assert "bad_header" not in headers


@pytest.mark.parametrize(
    ("asked", "status", "seen"),
    [
        ("/a/../b", 200, "/b"),
        ("/a//b", 200, "/a/b"),
        ("/a/%2e%2e/b", 200, "/b"),
        ("/a%2Fb", 307, ""),
        ("/a%5Cb", 307, ""),
    ],
)
async def test_paths_are_normal_before_they_are_matched(edge: Lab, asked: str, status: int, seen: str) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")]))
    await edge.applied()
    answer = await edge.get("shop.example", asked)
    assert answer.status == status
    assert (answer.body["path"] if answer.body else "") == seen


@pytest.mark.parametrize(
    "request_text",
    [
        "POST / HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop.example\r\nname : x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop.example\r\nname: a\x00b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_ambiguous_requests_are_refused(edge: Lab, request_text: str) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")]))
    await edge.applied()
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.http_port)
    writer.write(request_text.encode())
    status = (await reader.readline()).split()[1]
    writer.close()
    await writer.wait_closed()
    assert status in (b"400", b"501")


# Annotations


@pytest.mark.parametrize(
    ("path", "target", "asked", "seen"),
    [
        ("/something(/|$)(.*)", "/$2", "/something/new?x=1", "/new?x=1"),
        ("/something(/|$)(.*)", "/$2", "/something", "/"),
        ("/something(/|$)(.*)", "/$2", "/SomeThing/New", "/New"),
        ("/app", "/", "/app/deeper", "/"),
        ("/v1/(users|orders)/(.*)", "/api/$1/x/$2", "/v1/orders/7", "/api/orders/x/7"),
        ("/old/(.*)", "/new/$1$3", "/old/a%20b", "/new/a%20b"),
    ],
)
async def test_rewrite_target(edge: Lab, path: str, target: str, asked: str, seen: str) -> None:
    await edge.backend("web")
    paths = [("shop.example", "ImplementationSpecific", path, "web")]
    await edge.create(ingress("shop", paths, annotations={"rewrite-target": target, "use-regex": "true"}))
    await edge.applied()
    assert (await edge.get("shop.example", asked)).body["path"] == seen


@pytest.mark.parametrize(
    ("annotations", "status", "location"),
    [
        ({"permanent-redirect": "https://new.example/x?y=1"}, 301, "https://new.example/x?y=1"),
        ({"permanent-redirect": "https://new.example", "permanent-redirect-code": "308"}, 308, "https://new.example"),
        ({"temporal-redirect": "https://new.example$request_uri"}, 302, "https://new.example/deep?q=%20"),
        ({"app-root": "/start"}, 302, "/start"),
    ],
)
async def test_redirects(edge: Lab, annotations: dict[str, str], status: int, location: str) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    answer = await edge.get("shop.example", "/" if "app-root" in annotations else "/deep?q=%20")
    assert answer.status == status
    assert answer.headers["location"].removeprefix(f"http://shop.example:{edge.http_port}") == location


async def test_the_name_with_www_is_sent_to_the_one_without(edge: Lab) -> None:
    await edge.backend("web")
    annotations = {"from-to-www-redirect": "true"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    answer = await edge.get("www.shop.example", "/deep?q=%20")
    assert (answer.status, answer.headers["location"]) == (308, "http://shop.example/deep?q=%20")
    assert (await edge.get("shop.example")).status == 200


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 1000):
        yield b"x" * 1000


async def test_bodies_over_the_limit_are_answered_413_whether_or_not_they_tell_their_length(edge: Lab) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations={"proxy-body-size": "20k"}))
    await edge.create(ingress("free", [("free.example", "Prefix", "/", "web")]))
    await edge.applied()
    allowed = await edge.get("shop.example", method="POST", data=b"x" * 20_480)
    assert (allowed.status, allowed.body["length"]) == (200, 20_480)
    assert (await edge.get("shop.example", method="POST", data=b"x" * 20_481)).status == 413
    allowed = await edge.get("shop.example", method="POST", data=_chunks(20_000))
    assert (allowed.status, allowed.body["length"]) == (200, 20_000)
    assert (await edge.get("shop.example", method="POST", data=_chunks(30_000))).status == 413
    assert (await edge.get("free.example", method="POST", data=b"x" * 900_000)).body["length"] == 900_000


@pytest.mark.parametrize(
    ("annotations", "status"),
    [
        ({"whitelist-source-range": "10.0.0.0/8,192.0.2.7"}, 403),
        ({"whitelist-source-range": "127.0.0.0/8"}, 200),
        ({"allowlist-source-range": "127.0.0.1"}, 200),
        ({"denylist-source-range": "127.0.0.1/32"}, 403),
        ({"allowlist-source-range": "127.0.0.0/8", "denylist-source-range": "127.0.0.1/32"}, 403),
        ({"allowlist-source-range": "127.0.0.0/8", "denylist-source-range": "10.0.0.0/8"}, 200),
        ({"allowlist-source-range": "nonsense"}, 503),
        ({"auth-url": "https://login.example"}, 503),
        ({"backend-protocol": "HTTPS", "proxy-ssl-verify": "on"}, 503),
    ],
)
async def test_source_ranges(edge: Lab, annotations: dict[str, str], status: int) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    claimed = {"x-forwarded-for": "10.0.0.1"}
    assert (await edge.get("shop.example", headers=claimed)).status == status


async def test_a_backend_that_does_not_answer_in_time_is_504(edge: Lab) -> None:
    running = await edge.backend("web")
    running.pause_s = 2.0  # the end of the backend waits for it
    for name, asked in (
        ("read", {"proxy-read-timeout": "1"}),
        ("whole", {"knarr.dev/request-timeout": "1"}),
    ):
        await edge.create(ingress(name, [(f"{name}.example", "Prefix", "/", "web")], annotations=asked))
    await edge.applied()
    answers = await asyncio.gather(edge.get("read.example"), edge.get("whole.example"))
    assert [answer.status for answer in answers] == [504, 504]


async def test_a_canary_gets_its_weight(edge: Lab) -> None:
    """1,000 draws at 20 %: 4.5 standard deviations are 57."""
    await _canary(edge, {"canary-weight": "20"})
    count = Counter([(await edge.get("shop.example")).backend for _ in range(1000)])
    assert abs(count["next"] - 200) < 57, count


async def test_a_canary_by_header_and_cookie_is_exact(edge: Lab) -> None:
    await _canary(edge, {"canary-by-header": "X-Next", "canary-by-cookie": "next", "canary-weight": "0"})
    for headers, expected in (
        ({}, "web"),
        ({"x-next": "always"}, "next"),
        ({"x-next": "never", "cookie": "next=always"}, "web"),
        ({"x-next": "other"}, "web"),
        ({"cookie": "a=b; next=always; c=d"}, "next"),
        ({"cookie": "xnext=always"}, "web"),
    ):
        assert (await edge.get("shop.example", headers=headers)).backend == expected, headers


@pytest.mark.parametrize(
    ("annotation", "matching", "other"),
    [
        ({"canary-by-header-value": "beta"}, "beta", "always"),
        ({"canary-by-header-pattern": "^be.a$|gamma"}, "beta", "alpha"),
    ],
)
async def test_a_canary_by_the_value_of_a_header(
    edge: Lab, annotation: dict[str, str], matching: str, other: str
) -> None:
    await _canary(edge, {"canary-by-header": "x-next", **annotation})
    assert (await edge.get("shop.example", headers={"x-next": matching})).backend == "next"
    assert (await edge.get("shop.example", headers={"x-next": other})).backend == "web"


async def _canary(edge: Lab, annotations: dict[str, str]) -> None:
    await edge.backend("web")
    await edge.backend("next")
    await edge.create(ingress("main", [("shop.example", "Prefix", "/", "web")]))
    paths = [("shop.example", "Prefix", "/", "next")]
    await edge.create(ingress("canary", paths, annotations={"canary": "true", **annotations}))
    await edge.applied()


async def test_cors(edge: Lab) -> None:
    await edge.backend("web")
    annotations = {"enable-cors": "true", "cors-allow-origin": "https://*.shop.example, https://one.example"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    asked = {"origin": "https://a.shop.example", "access-control-request-method": "PUT"}
    preflight = await edge.get("shop.example", method="OPTIONS", headers=asked)
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == "https://a.shop.example"
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert preflight.headers["access-control-max-age"] == "1728000"
    answer = await edge.get("shop.example", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_cookie_keeps_a_client_with_its_endpoint(edge: Lab) -> None:
    await edge.backend("web")
    from tests.edge.ingress.objects import slice_of

    second = await edge.server("second")
    await edge.create(slice_of("web", [(HERE, second.port)]))
    annotations = {"affinity": "cookie", "session-cookie-name": "route", "session-cookie-max-age": "600"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    reached = set()
    for _ in range(20):
        first = await edge.get("shop.example", headers={"connection": "close"})
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith("route=")
        again = [
            (await edge.get("shop.example", headers={"cookie": cookie, "connection": "close"})).backend
            for _ in range(5)
        ]
        assert set(again) == {first.backend}
        reached.add(first.backend)
    assert reached == {"web", "second"}


async def asked_at_once(edge: Lab, count: int) -> tuple[Counter[int], float]:
    """How often there was which status, and how long it took: meanwhile a limit gives more."""
    began_s = time.monotonic()
    answers = await asyncio.gather(*(edge.get("shop.example") for _ in range(count)))
    return Counter(answer.status for answer in answers), time.monotonic() - began_s


async def test_a_client_may_only_ask_so_often(edge: Lab) -> None:
    await edge.backend("web")
    annotations = {"limit-rps": "2", "limit-burst-multiplier": "3"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.create(ingress("free", [("free.example", "Prefix", "/", "web")]))
    await edge.applied()
    statuses, took_s = await asked_at_once(edge, 20)
    assert 6 <= statuses[200] <= 6 + 2 * (took_s + 1), (statuses, took_s)
    assert statuses[200] + statuses[503] == 20
    assert {(await edge.get("free.example")).status for _ in range(20)} == {200}


async def test_a_client_may_only_ask_so_often_a_minute_and_need_not_wait_for_its_end(edge: Lab) -> None:
    await edge.backend("web")
    both = {"limit-rpm": "60", "limit-rps": "100", "limit-burst-multiplier": "1"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=both))
    await edge.applied()
    statuses, took_s = await asked_at_once(edge, 90)
    assert 60 <= statuses[200] <= 60 + (took_s + 1), (statuses, took_s)
    assert statuses[200] + statuses[503] == 90
    await asyncio.sleep(1.2)  # the kernel's clock, not ours: a minute's 60 are one a second
    assert (await edge.get("shop.example")).status == 200


async def test_any_origin_is_let_in_without_credentials(edge: Lab) -> None:
    """Else every page could read what its visitor may: Envoy names the asker where ingress-nginx says "*"."""
    await edge.backend("web")
    annotations = {"enable-cors": "true", "cors-allow-credentials": "true"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    for method in ("GET", "OPTIONS"):
        asked = {"origin": "https://evil.example", "access-control-request-method": "PUT"}
        answer = await edge.get("shop.example", method=method, headers=asked)
        assert answer.headers["access-control-allow-origin"] in ("*", "https://evil.example")
        assert "access-control-allow-credentials" not in answer.headers


async def test_the_backend_sees_the_host_and_prefix_that_it_is_to_see(edge: Lab) -> None:
    await edge.backend("web")
    annotations = {"upstream-vhost": "inside.example", "x-forwarded-prefix": "/100%"}
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")], annotations=annotations))
    await edge.applied()
    headers = (await edge.get("shop.example")).body["headers"]
    assert (headers["host"], headers["x-forwarded-prefix"]) == ("inside.example", "/100%")


async def test_requests_and_counts_can_be_read(edge: Lab) -> None:
    await edge.backend("web")
    await edge.create(ingress("shop", [("shop.example", "Prefix", "/", "web")]))
    await edge.applied()
    await edge.get("shop.example", "/read?x=1")
    url = f"http://127.0.0.1:{edge.metrics_port}"
    async with edge.session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    assert 'envoy_cluster_upstream_rq_total{envoy_cluster_name="default/web_80"} 1' in text
    async with edge.session.post(f"{url}/quitquitquit") as answer:
        assert answer.status == 404
    import json

    log = edge.edge._envoy.folder / "access.log"
    lines = await edge.until(lambda: asyncio.to_thread(lambda: log.read_text().splitlines()))
    line = json.loads(lines[0])
    assert (line["host"], line["path"], line["status"]) == (f"shop.example:{edge.http_port}", "/read?x=1", 200)
    assert (line["ingress"], line["backend"]) == ("default/shop", "default/web:80")
