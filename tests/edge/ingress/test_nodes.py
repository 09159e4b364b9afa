"""An edge as one of several: whether its node is to serve, what it tells, and at which addresses it listens."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from knarr.api.networking.v1 import Ingress
from knarr.edge.ingress import access_log
from knarr.edge.ingress import edge as edge_module
from knarr.edge.ingress.envoy import Serving
from knarr.edge.ingress.model import Endpoint
from knarr.edge.ingress.ports import every_address
from tests.edge.ingress.lab import ADDRESS, WAIT_S_MAX, Lab, lab
from tests.edge.ingress.objects import ingress, tls_secret
from tests.ports import free_ports

PATHS = [("shop.example", "Prefix", "/", "web")]
HAS_IPV6 = every_address() == "::"


async def status_of(edge: Lab, name: str = "shop") -> list[str]:
    found = await edge.client.get(Ingress, name, "default")
    balancer = found.status.load_balancer if found.status else None
    return [each.ip or "" for each in (balancer.ingress if balancer else ())]


async def answers(edge: Lab) -> int:
    """The status of the answer; 0 where nobody listens."""
    try:
        return (await edge.get("shop.example")).status
    except aiohttp.ClientError:
        return 0


async def test_a_node_that_is_not_to_serve_listens_nowhere_and_tells_what_is_wrong_all_the_same() -> None:
    serves = False
    changes: list[tuple[int, ...]] = []
    async with lab(serves=lambda: serves) as edge:
        edge.edge.add_ports_handler(lambda: changes.append(edge.edge.served_ports))
        await edge.create(ingress("shop", PATHS))
        (told,) = await edge.until(lambda: edge.events("ServiceNotFound"))
        assert "default/web" in told
        assert (await answers(edge), edge.edge.envoy_pid, edge.edge.served_ports) == (0, None, ())
        await edge.backend("web")
        serves = True
        edge.edge.look_again()
        await edge.applied()
        assert await answers(edge) == 200
        assert edge.edge.served_ports == (edge.http_port, edge.https_port)
        assert await edge.until(lambda: status_of(edge)) == [ADDRESS]
        serves = False
        edge.edge.look_again()

        async def is_closed() -> bool:
            return await answers(edge) == 0

        await edge.until(is_closed)
        assert edge.edge.served_ports == ()

        async def has_no_address() -> bool:
            return await status_of(edge) == []

        await edge.until(has_no_address)
        serves = True
        edge.edge.look_again()

        async def is_back() -> bool:
            return await answers(edge) == 200

        await edge.until(is_back)
        both = (edge.http_port, edge.https_port)

        async def all_told() -> bool:
            return changes == [both, (), both]

        await edge.until(all_told)


async def test_a_node_tells_of_its_own_ports_and_not_what_is_wrong_everywhere() -> None:
    http, https, metrics = free_ports(3)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", http))
        holder.listen()
        async with lab(ports=(http, https, metrics), node_only=True, node_name="second") as edge:
            await edge.create(ingress("shop", [*PATHS, ("shop.example", "Prefix", "/missing", "missing")]))
            (told,) = await edge.until(lambda: edge.events("PortUnavailable"))
            assert told == f"node second, port {http}: Address already in use; it is tried again"
            await edge.applied()
            assert await edge.events("ServiceNotFound") == []
            assert await status_of(edge) == []
            assert edge.edge.served_ports == (https,)


async def test_an_edge_may_be_told_to_serve_on_other_ports() -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        assert await answers(edge) == 200
        before, (edge.http_port, *_) = edge.http_port, free_ports(1)
        edge.edge.serve_at(Serving("127.0.0.1", edge.http_port, edge.https_port))

        async def is_there() -> bool:
            return await answers(edge) == 200

        await edge.until(is_there)
        edge.http_port = before

        async def is_gone() -> bool:
            return await answers(edge) == 0

        await edge.until(is_gone)


async def test_ports_are_let_go_once_there_has_been_no_ingress_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "PORT_RETRY_S", 0.1)
    monkeypatch.setattr(edge_module, "UNUSED_S", 3600.0)
    async with lab() as edge:
        await edge.backend("web")
        both = (edge.http_port, edge.https_port)
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        assert (await answers(edge), edge.edge.served_ports) == (200, both)
        await edge.client.delete(Ingress, "shop", "default")
        await edge.applied()
        assert (await answers(edge), edge.edge.served_ports) == (404, both)
        await edge.create(ingress("other", PATHS))
        await edge.applied()
        monkeypatch.setattr(edge_module, "UNUSED_S", 0.0)  # that one is used
        edge.edge.look_again()
        await edge.applied()
        assert (await answers(edge), edge.edge.served_ports) == (200, both)
        await edge.client.delete(Ingress, "other", "default")

        async def is_closed() -> bool:
            return await answers(edge) == 0

        await edge.until(is_closed)
        assert edge.edge.served_ports == ()
        await edge.create(ingress("shop", PATHS))

        async def is_back() -> bool:
            return await answers(edge) == 200

        await edge.until(is_back)
        assert (edge.edge.served_ports, edge.edge._envoy.starts) == (both, 1)


async def test_an_endpoint_that_becomes_a_nodes_agent_is_none_any_more() -> None:
    agents: set[int] = set()

    def refuse(endpoint: Endpoint) -> bool:
        return endpoint.port in agents

    async with lab(refuse=refuse) as edge:
        running = await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        assert await answers(edge) == 200
        agents.add(running.port)
        edge.edge.look_again()
        await edge.applied()
        assert await answers(edge) == 503


async def test_an_envoy_that_dies_is_not_away_until_it_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "AWAY_S_MAX", WAIT_S_MAX)
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        both = (edge.http_port, edge.https_port)
        os.kill(edge.edge.envoy_pid or 0, signal.SIGKILL)

        async def has_ended() -> bool:
            return edge.edge._envoy.has_died or edge.edge._envoy.starts > 1

        await edge.until(has_ended)
        assert edge.edge.served_ports == both

        async def is_back() -> bool:
            return await answers(edge) == 200

        await edge.until(is_back)
        assert edge.edge.served_ports == both

        monkeypatch.setattr(edge_module, "AWAY_S_MAX", 1.0)

        def gone() -> Path:
            raise OSError("no Envoy any more")

        monkeypatch.setattr("knarr.edge.ingress.child.binary", gone)
        os.kill(edge.edge.envoy_pid or 0, signal.SIGKILL)

        async def is_away() -> bool:
            return edge.edge.served_ports == ()

        await edge.until(is_away)


async def test_the_access_log_is_put_aside_and_no_line_of_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "BYTES_MAX", 4096)
    monkeypatch.setattr(access_log, "LOOK_S", 0.2)
    monkeypatch.setattr(access_log, "FILES_MAX", 50)
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        folder = edge.edge._envoy.folder
        asked = 0

        def written() -> list[Path]:
            return sorted(folder.glob("access.log*"))

        async with asyncio.timeout(WAIT_S_MAX):
            while len(written()) < 4:
                await asyncio.gather(*(edge.get("shop.example", f"/{asked + n}") for n in range(20)))
                asked += 20
                await asyncio.sleep(0.05)

        def paths() -> list[str]:
            lines = [line for each in written() for line in each.read_text().splitlines()]
            return sorted((json.loads(line)["path"] for line in lines), key=lambda path: int(path[1:]))

        async def has_all() -> bool:
            return len(paths()) >= asked

        await edge.until(has_all)  # Envoy writes its log a second at a time
        assert paths() == [f"/{n}" for n in range(asked)]
        assert all(each.stat().st_uid == folder.stat().st_uid for each in written())


def test_of_logs_that_were_put_aside_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    for number in range(8):
        path.write_text(str(number))
        access_log.rotate(path, 5)
    kept = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert kept == {"access.log.1": "7", "access.log.2": "6", "access.log.3": "5", "access.log.4": "4"}


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
async def test_both_families_are_answered_and_clients_are_known_by_their_own_addresses() -> None:
    """An IPv4 client of a socket for both families is no ::ffff:… to anybody: backends, source ranges, the log."""
    async with lab(address=every_address()) as edge:
        await edge.backend("web")
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(
            ingress(
                "shop",
                [("shop.example", "Prefix", "/", "web")],
                annotations={"ssl-redirect": "false"},
                tls=[("shop", ["shop.example"])],
            )
        )
        for name, ranges in (("four", "127.0.0.0/8"), ("six", "::1/128")):
            annotations = {"whitelist-source-range": ranges}
            await edge.create(ingress(name, [(f"{name}.example", "Prefix", "/", "web")], annotations=annotations))
        await edge.applied()
        for client in ("127.0.0.1", "::1"):
            seen = await asked_at(edge, client, "shop.example")
            assert json.loads(seen.partition("\r\n\r\n")[2])["headers"]["x-forwarded-for"] == client
            allowed = {name: (await asked_at(edge, client, f"{name}.example")).split()[1] for name in ("four", "six")}
            of_four = ipaddress.ip_address(client).version == 4
            assert allowed == {"four": "200" if of_four else "403", "six": "403" if of_four else "200"}
        log = edge.edge._envoy.folder / "access.log"

        async def is_logged() -> bool:
            clients = {json.loads(line)["client"] for line in log.read_text().splitlines()}
            return clients == {"127.0.0.1", "::1"}

        await edge.until(is_logged)


async def asked_at(edge: Lab, address: str, host: str) -> str:
    reader, writer = await asyncio.open_connection(address, edge.http_port)
    writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text
