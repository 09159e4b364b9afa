"""`knarr proxy`: the service rules of this machine alone, for a cluster of any make (in place of kube-proxy).

It follows Services, EndpointSlices and this machine's Node over HTTPS, keeps the kernel's rules, and answers about them
on 10256 and 10249. The rules stay when it ends: connections go on, new ones too; `--cleanup` removes them.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import sys
from pathlib import Path
from typing import Literal

import msgspec

from knarr.cli import kubeconfig, machine
from knarr.cli.exit_codes import FAILED, OK, USAGE
from knarr.config import default_node_name

TABLE = "knarr-proxy"


class ProxyFlags(msgspec.Struct, frozen=True, kw_only=True):
    """What `knarr proxy` was told."""

    mode: Literal["nftables", "iptables"]
    node_name: str
    cluster_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    nodeport_addresses: tuple[str, ...] = ()
    healthz_port: int = 10256
    metrics_port: int = 10249


def proxy(parsed: argparse.Namespace) -> int:
    """Answers the exit code: 0 after an orderly end."""
    flags = ProxyFlags(
        mode=machine.usable_proxy_mode(parsed.mode),
        node_name=parsed.node_name or default_node_name(),
        cluster_cidrs=_listed(parsed.cluster_cidr),
        service_cidrs=_listed(parsed.service_cidr),
        nodeport_addresses=_listed(parsed.nodeport_addresses),
        healthz_port=parsed.healthz_port,
        metrics_port=parsed.metrics_port,
    )
    if problem := _problem_of(flags):
        print(f"knarr: {problem}", file=sys.stderr)
        return USAGE
    if lacking := _lacking(flags.mode):
        print(f"knarr: {lacking}", file=sys.stderr)
        return FAILED
    from knarr.cli.life import write_logs
    from knarr.network.commands import CommandFailed

    write_logs(parsed.verbosity)
    try:
        if parsed.cleanup:
            asyncio.run(clean_up())
            return OK
        path = Path(parsed.kubeconfig) if parsed.kubeconfig else kubeconfig.default_path()
        asyncio.run(_until_told(flags, kubeconfig.read(path)))
    except (kubeconfig.KubeconfigError, CommandFailed) as error:
        print(f"knarr: {error}", file=sys.stderr)
        return FAILED
    return OK


def _lacking(mode: str) -> str | None:
    """Why this machine or this user can't have such rules."""
    if os.geteuid() != 0:
        return "service rules need root"
    program, package = ("nft", "nftables") if mode == "nftables" else ("iptables-restore", "iptables")
    return None if machine.installed(program) else f"{program} is not installed (Debian: apt-get install {package})"


async def _until_told(flags: ProxyFlags, access: kubeconfig.Access) -> None:
    """Until SIGTERM or SIGINT."""
    running = asyncio.create_task(serve(flags, access))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


async def serve(flags: ProxyFlags, access: kubeconfig.Access, network_namespace: str | None = None) -> None:
    """Keep the rules until cancelled."""
    from knarr.api.registry import built_in
    from knarr.cli.connection import tls
    from knarr.client.client import Client
    from knarr.client.events import EventRecorder
    from knarr.client.https import HTTPSTransport
    from knarr.client.informer import Informers
    from knarr.clock import SystemClock
    from knarr.network.proxy.health import ServiceHealth
    from knarr.network.proxy.service_proxy import ServiceProxy

    clock = SystemClock()
    transport = HTTPSTransport(access.server, tls(access), access.token)
    client = Client(transport, built_in())
    informers = Informers(client, clock)
    events = EventRecorder(client, clock, "kube-proxy", flags.node_name)
    rules = ServiceProxy(
        informers,
        clock,
        node_name=flags.node_name,
        cluster_cidrs=flags.cluster_cidrs,
        service_cidrs=flags.service_cidrs,
        node_port_addresses=flags.nodeport_addresses or None,
        mode=flags.mode,
        events=events,
        table=TABLE,
        network_namespace=network_namespace,
    )
    health = ServiceHealth(
        rules,
        clock,
        events,
        node_name=flags.node_name,
        network_namespace=network_namespace,
        healthz_port=flags.healthz_port,
        metrics_port=flags.metrics_port,
    )
    try:
        async with asyncio.TaskGroup() as group:
            for run in (informers.run, events.run, rules.run, health.run):
                group.create_task(run())
    finally:
        await rules.close(remove=False)
        await transport.close()


async def clean_up(network_namespace: str | None = None) -> None:
    """Remove the rules of both modes."""
    from knarr.clock import SystemClock
    from knarr.network.proxy.iptables import Iptables
    from knarr.network.proxy.nftables import Nftables
    from knarr.network.proxy.node_ports import route_loopback

    clock = SystemClock()
    await asyncio.to_thread(route_loopback, False, TABLE, network_namespace)
    if machine.installed("nft"):
        await Nftables(clock, cluster_cidrs=(), name=TABLE, network_namespace=network_namespace).remove()
    if machine.installed("iptables-restore"):
        await Iptables(clock, cluster_cidrs=(), network_namespace=network_namespace).remove()


def _problem_of(flags: ProxyFlags) -> str | None:
    for option, ranges in (
        ("--cluster-cidr", flags.cluster_cidrs),
        ("--service-cidr", flags.service_cidrs),
        ("--nodeport-addresses", [each for each in flags.nodeport_addresses if each != "primary"]),
    ):
        for text in ranges:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                return f"{option}: must be ranges such as 10.244.0.0/16, separated by commas: {error}"
    for option, port in (("--healthz-port", flags.healthz_port), ("--metrics-port", flags.metrics_port)):
        if not 1 <= port <= 65535:
            return f"{option}: must be 1 to 65535, not {port}"
    return None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())
