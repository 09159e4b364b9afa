"""What changes while requests come: endpoints, certificates, bad objects, Envoy itself. Through a real Envoy."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from knarr.api.core.v1 import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.networking.v1 import Ingress, IngressLoadBalancerStatus, IngressStatus
from knarr.edge.ingress import edge as edge_module
from knarr.edge.ingress import picture as picture_module
from knarr.edge.ingress.certificates import KeyPair
from knarr.edge.ingress.child import binary
from tests.edge.ingress.lab import ADDRESS, HERE, WAIT_S_MAX, Lab, lab
from tests.edge.ingress.objects import ingress, service, slice_of, tls_secret
from tests.ports import free_ports

PATHS = [("shop.example", "Prefix", "/", "web")]
CHANGE_MS_MAX = 100.0


def names_of(certificate: bytes) -> list[str]:
    parsed = x509.load_der_x509_certificate(certificate)
    try:
        return parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except x509.ExtensionNotFound:
        return []


def serial_of(certificate: bytes) -> int:
    return x509.load_der_x509_certificate(certificate).serial_number


class Load:
    """Requests without a break: by connections that are kept, and by new ones."""

    def __init__(self, edge: Lab) -> None:
        self._edge = edge
        self.seen: Counter[str] = Counter()
        self.failed: list[str] = []

    async def run(self, headers: dict[str, str]) -> None:
        while True:
            try:
                answer = await self._edge.get("shop.example", headers=headers)
            except aiohttp.ClientError as error:
                self.failed.append(str(error))
            else:
                self.seen[answer.backend] += 1
                if answer.status != 200:
                    self.failed.append(f"{answer.status} {answer.text}")
            await asyncio.sleep(0.001)


@asynccontextmanager
async def load_on(edge: Lab) -> AsyncIterator[Load]:
    running = Load(edge)
    headers: list[dict[str, str]] = [{}, {}, {}, {"connection": "close"}, {"connection": "close"}]
    tasks = [asyncio.create_task(running.run(each)) for each in headers]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_endpoints_change_under_load_without_a_failed_request() -> None:
    """Each backend ends as soon as Envoy has acknowledged that it left: with nothing else to wait for."""
    async with lab() as edge:
        old = await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        async with load_on(edge) as load:
            for number in range(8):
                new = await edge.server(f"v{number}")
                await edge.create(slice_of("web", [(HERE, new.port)]))
                await edge.applied()
                await edge.client.delete(EndpointSlice, f"web-{old.port}", "default")
                await edge.applied()
                await old.close()
                old = new
                before = load.seen[f"v{number}"]
                await edge.until(lambda n=number, b=before: _more(load, f"v{n}", b + 20))
        assert load.failed == []
        assert len(load.seen) >= 8


async def _more(load: Load, name: str, count: int) -> bool:
    return load.seen[name] >= count


async def test_one_comes_after_the_last_has_gone() -> None:
    """Envoy confirms a cluster that is added later only when it has its endpoints, so they must not wait for that."""
    async with lab() as edge:
        for number in range(3):
            name = f"web{number}"
            running = await edge.backend(name)
            await edge.create(ingress(name, [(f"{name}.example", "Prefix", "/", name)]))
            await edge.applied()
            assert (await edge.get(f"{name}.example")).backend == name
            await edge.client.delete(Ingress, name, "default")
            await edge.client.delete(Service, name, "default")
            await edge.client.delete(EndpointSlice, f"{name}-{running.port}", "default")
            await edge.applied()
            await edge.until(lambda host=f"{name}.example": _is_gone(edge, host))


async def test_an_endpoint_that_dies_over_a_request_fails_only_those_that_may_not_be_repeated() -> None:
    met = 0

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        await reader.readuntil(b"\r\n\r\n")
        met += 1
        writer.close()

    dying = await asyncio.start_server(dies, HERE, 0)
    async with dying, lab() as edge:
        await edge.backend("web")
        await edge.create(slice_of("web", [(HERE, dying.sockets[0].getsockname()[1])]))
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        assert {(await edge.get("shop.example")).status for _ in range(20)} == {200}
        assert met > 0
        assert {(await edge.get("shop.example", method="POST")).status for _ in range(20)} == {200, 503}


async def test_a_change_of_endpoints_is_in_use_within_100_ms() -> None:
    async with lab() as edge:
        first = await edge.backend("web")
        second = await edge.server("second")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        times = []
        for number in range(10):
            port = second.port if number % 2 == 0 else first.port
            piece = slice_of("web", [(HERE, port)])
            piece.metadata.name = f"web-{first.port}"
            began_s = time.perf_counter()
            made = await edge.update(piece)
            await edge.edge.synced(int(made.metadata.resource_version))
            times.append((time.perf_counter() - began_s) * 1000)
            assert (await edge.get("shop.example")).backend == ("second" if number % 2 == 0 else "web")
        assert sorted(times)[5] < CHANGE_MS_MAX, times


async def test_certificates_are_shown_by_name_and_rotate_without_a_broken_connection() -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(tls_secret("wild", "*.wild.example"))
        paths = [*PATHS, ("a.wild.example", "Prefix", "/", "web")]
        tls = [("shop", ["shop.example"]), ("wild", ["*.wild.example"])]
        await edge.create(ingress("shop", paths, tls=tls))
        await edge.applied()
        assert names_of(await edge.certificate("shop.example")) == ["shop.example"]
        assert names_of(await edge.certificate("a.wild.example")) == ["*.wild.example"]
        assert names_of(await edge.certificate("unknown.example")) == []
        assert names_of(await edge.certificate("")) == []
        assert (await edge.get("shop.example", tls=True)).body["headers"]["x-forwarded-proto"] == "https"
        redirect = await edge.get("shop.example", "/deep?x=1")
        expected = f"https://shop.example:{edge.https_port}/deep?x=1"
        assert (redirect.status, redirect.headers["location"]) == (308, expected)

        before = serial_of(await edge.certificate("shop.example"))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.https_port, ssl=context, server_hostname="shop.example"
        )
        await edge.update(tls_secret("shop", "shop.example"))
        await edge.until(lambda: _other_certificate(edge, before))
        await edge.create(tls_secret("late", "late.example"))
        await edge.create(ingress("late", [("late.example", "Prefix", "/", "web")], tls=[("late", ["late.example"])]))
        await edge.until(lambda: _names(edge, "late.example"))
        writer.write(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


async def _other_certificate(edge: Lab, serial: int) -> bool:
    return serial_of(await edge.certificate("shop.example")) != serial


async def _names(edge: Lab, name: str) -> bool:
    return names_of(await edge.certificate(name)) == [name]


async def test_a_bad_secret_is_told_and_breaks_no_other_and_is_used_once_it_is_good() -> None:
    async with lab() as edge:
        await edge.backend("web")
        bad = tls_secret("bad", "bad.example")
        bad.data["tls.crt"] = b"nonsense"
        await edge.create(bad)
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(ingress("bad", [("bad.example", "Prefix", "/", "web")], tls=[("bad", ["bad.example"])]))
        await edge.create(ingress("shop", PATHS, tls=[("shop", ["shop.example"])]))
        await edge.applied()
        assert names_of(await edge.certificate("shop.example")) == ["shop.example"]
        assert names_of(await edge.certificate("bad.example")) == []
        assert (await edge.get("bad.example", tls=True)).status == 200
        (told,) = await edge.until(lambda: edge.events("CertificateInvalid"))
        assert told.startswith("Secret default/bad can't be read")
        await edge.update(tls_secret("bad", "bad.example"))
        await edge.until(lambda: _names(edge, "bad.example"))


async def test_a_secret_that_only_envoy_finds_bad_breaks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own check is taken away."""
    monkeypatch.setattr(picture_module, "key_pair", lambda secret: KeyPair(names=("bad.example", "shop.example")))
    async with lab() as edge:
        await edge.backend("web")
        bad = tls_secret("bad", "bad.example", key=ec.generate_private_key(ec.SECP256R1()))
        await edge.create(bad)
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(ingress("shop", PATHS, tls=[("shop", ["shop.example"]), ("bad", ["bad.example"])]))
        (told,) = await edge.until(lambda: edge.events("CertificateInvalid"))
        assert told.startswith("Secret default/bad is refused by Envoy")
        await edge.applied()
        assert names_of(await edge.certificate("shop.example")) == ["shop.example"]
        assert names_of(await edge.certificate("bad.example")) == []
        await edge.update(tls_secret("bad", "bad.example"))
        await edge.until(lambda: _names(edge, "bad.example"))


async def test_envoy_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """However that ends."""
    command = [sys.executable, "-c", STARTED, str(tmp_path / "envoy")]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    pid = int(await process.stdout.readline())
    process.kill()
    await process.wait()

    async with asyncio.timeout(WAIT_S_MAX):
        while not has_ended(pid):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Also when nobody has asked yet how."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


STARTED = """
import asyncio, sys
from pathlib import Path
from knarr.clock import SystemClock
from knarr.edge.ingress.child import Envoy

async def main():
    envoy = Envoy(Path(sys.argv[1]), SystemClock(), concurrency=1, told=lambda line: None, ended=lambda: None)
    envoy.prepare()
    running = asyncio.create_task(envoy.run())
    while True:
        try:
            await envoy.ask("GET", "/ready")
            break
        except OSError:
            await asyncio.sleep(0.05)
    print(envoy.pid, flush=True)
    await running

asyncio.run(main())
"""


async def test_an_ingress_that_envoy_refuses_keeps_what_it_was_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check of expressions is taken away, to have something that Envoy does not take."""
    monkeypatch.setattr(picture_module, "fault_of", lambda pattern: "")
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS, annotations={"use-regex": "true"}))
        await edge.applied()
        assert (await edge.get("shop.example")).status == 200
        bad = [("shop.example", "ImplementationSpecific", "/(?=a)", "web")]
        await asyncio.gather(
            edge.update(ingress("shop", bad, annotations={"use-regex": "true"})),
            *(edge.create(ingress(f"n{n}", [(f"n{n}.example", "Prefix", "/", "web")])) for n in range(7)),
        )
        (told,) = await edge.until(lambda: edge.events("ConfigurationRejected"))
        assert "invalid perl operator" in told
        for name in ["shop", *(f"n{n}" for n in range(7))]:
            await edge.until(lambda host=name: _serves(edge, f"{host}.example"))
        await edge.update(ingress("shop", [("new.example", "Prefix", "/", "web")]))
        await edge.until(lambda: _serves(edge, "new.example"))


async def _serves(edge: Lab, host: str) -> bool:
    try:
        return (await edge.get(host)).status == 200
    except aiohttp.ClientError:
        return False


async def test_a_data_folder_may_be_deeper_than_a_sockets_path_may_be_long() -> None:
    async with lab(inside="/".join(["folder" * 10] * 4)) as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        assert (await edge.get("shop.example")).status == 200


async def test_envoy_that_dies_comes_back_and_serves() -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        pid = edge.edge.envoy_pid
        assert pid
        import os
        import signal

        os.kill(pid, signal.SIGKILL)

        async def serves_anew() -> bool:
            return edge.edge.envoy_pid not in (None, pid) and await _serves(edge, "shop.example")

        await edge.until(serves_anew)


async def test_nothing_is_left_of_it_and_requests_under_way_finish() -> None:
    async with lab() as edge:
        running = await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        pid = edge.edge.envoy_pid
        running.pause_s = 0.5
        under_way = asyncio.create_task(edge.get("shop.example"))
        await edge.until(lambda: _asked(running))
        await edge.stop()
        assert (await under_way).status == 200
        import os

        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)
        assert [each.name for each in edge.edge._envoy.folder.iterdir()] == ["access.log"]


async def _asked(backend: Any) -> bool:
    return backend.requests > 0


async def test_a_port_that_leads_to_a_load_balancers_service_is_told_and_had_once_it_no_longer_does() -> None:
    http, https, metrics = free_ports(3)
    async with lab(ports=(http, https, metrics)) as edge:
        await edge.backend("web")
        made = await edge.create(service("other", http, type="LoadBalancer", cluster_ip=None))
        balancer = LoadBalancerStatus(ingress=[LoadBalancerIngress(ip=ADDRESS)])
        await edge.client.update_status(msgspec.structs.replace(made, status=ServiceStatus(load_balancer=balancer)))
        await edge.create(ingress("shop", PATHS))
        (told,) = await edge.until(lambda: edge.events("PortUnavailable"))
        assert f"port {http}: it leads to the Service default/other (type LoadBalancer) at {ADDRESS}" in told
        await edge.client.delete(Service, "other", "default")

        async def serves() -> bool:
            try:
                return (await edge.get("shop.example")).status == 200
            except aiohttp.ClientError:
                return False

        await edge.until(serves)


async def test_a_port_that_is_taken_is_told_and_the_other_serves_and_it_is_taken_once_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge_module, "PORT_RETRY_S", 0.2)
    http, https, metrics = free_ports(3)
    holder = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", http)
    async with lab(ports=(http, https, metrics)) as edge:
        await edge.backend("web")
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(ingress("shop", PATHS, tls=[("shop", ["shop.example"])]))
        await edge.applied()
        assert (await edge.get("shop.example", tls=True)).status == 200
        (told,) = await edge.until(lambda: edge.events("PortUnavailable"))
        assert told == f"port {http}: Address already in use; it is tried again"
        holder.close()
        await holder.wait_closed()

        async def redirects() -> bool:
            try:
                return (await edge.get("shop.example")).status == 308
            except aiohttp.ClientError:
                return False

        await edge.until(redirects)


async def test_an_external_name_is_resolved_and_refused_where_it_leads_inside() -> None:
    addresses = {"good.example": (HERE,), "evil.example": ("127.0.0.2",)}

    async def resolve(name: str) -> tuple[str, ...]:
        return addresses[name]

    async with lab(resolve=resolve, refuse=lambda endpoint: endpoint.address == "127.0.0.2") as edge:
        running = await edge.server("outside")
        for name in ("good", "evil"):
            external = service(
                name, running.port, type="ExternalName", external_name=f"{name}.example", cluster_ip=None
            )
            await edge.create(external)
        made = ingress("shop", [("good.shop", "Prefix", "/", "good"), ("evil.shop", "Prefix", "/", "evil")])
        for rule in made.spec.rules if made.spec else ():
            for path in rule.http.paths if rule.http else ():
                assert path.backend.service
                assert path.backend.service.port
                path.backend.service.port.number = running.port
        await edge.create(made)
        await edge.until(lambda: _serves(edge, "good.shop"))
        assert (await edge.get("evil.shop")).status == 503


async def test_who_has_no_class_of_ours_is_neither_served_nor_told_an_address() -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.create(ingress("other", [("other.example", "Prefix", "/", "web")], class_name="nginx"))
        await edge.applied()
        assert (await edge.get("other.example")).status == 404
        status = (await edge.client.get(Ingress, "other", "default")).status
        assert status == IngressStatus(load_balancer=IngressLoadBalancerStatus(ingress=[]))
        await edge.update(ingress("other", [("other.example", "Prefix", "/", "web")]))
        await edge.until(lambda: _serves(edge, "other.example"))
        await edge.client.delete(Ingress, "other", "default")
        await edge.until(lambda: _is_gone(edge, "other.example"))


async def _is_gone(edge: Lab, host: str) -> bool:
    return (await edge.get(host)).status == 404


def test_there_is_an_envoy() -> None:
    assert binary().is_file()
