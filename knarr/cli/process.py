"""The whole cluster in one process: what it is made of, in which order it starts and ends. Begin reading here.

    certificates, data folder           pki, lock
      ├─ node: network, runtime         what containers need, and what still runs from last time (node_parts)
      ├─ store, API server              the door, on its TLS socket; kubeconfig
      └─ loops                          controllers, scheduler, the node's (agent, service proxy, DNS): run side by side
                                        until one fails or somebody says stop

`start` brings the parts up, as far at once as they don't need each other. How the process lives and ends: see `life`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from knarr import pki
from knarr.api.core.cluster_info import public_map, settings_map
from knarr.api.core.v1 import ConfigMap, Node, ServiceAccount
from knarr.api.errors import AlreadyExists
from knarr.api.registry import with_metrics
from knarr.apiserver.authenticate import Tokens
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.default_range import DefaultRange
from knarr.apiserver.event_expiry import EventExpiry
from knarr.apiserver.listener import Listener, tls_context
from knarr.apiserver.nodes import Nodes
from knarr.apiserver.remote_node import NodeConnections, RemoteFolders, RemoteNode
from knarr.apiserver.server import APIServer, InProcessTransport, Settings
from knarr.cli import kubeconfig, machine, teardown
from knarr.cli.access import access_settings
from knarr.cli.balancing import load_balancers
from knarr.cli.ingress import ACCOUNT as INGRESS_ACCOUNT
from knarr.cli.ingress import cluster_ingress
from knarr.cli.life import Life, Loop, node_is_ready, seen, write_logs
from knarr.cli.lock import DataFolderLock
from knarr.cli.node_parts import Parts, parts_of
from knarr.cli.progress import Progress
from knarr.cli.scheduling import profiles
from knarr.client.client import Client
from knarr.client.https import client_context
from knarr.client.informer import Informers
from knarr.client.transport import User
from knarr.client.workqueue import queue_figures
from knarr.config import Config, joined_address
from knarr.controllers import controllers, queue_name
from knarr.controllers.apiservices import APIServices
from knarr.controllers.authentication_trust import AuthenticationTrust, trust
from knarr.controllers.flowcontrol import FlowControl
from knarr.controllers.nodeipam import Ranges
from knarr.controllers.servicerepair import ServiceRepair
from knarr.edge.ingress.terms import PATH as INGRESS_CERTIFICATES
from knarr.node.local_volumes import ACCOUNT as LOCAL_VOLUMES_ACCOUNT
from knarr.node.local_volumes import FOLDER_ANNOTATION, HollowFolders, HostFolders, LocalVolumes
from knarr.scheduler.scheduler import Scheduler
from knarr.store.sqlite import SQLiteStore


def main(config: Config, lock: DataFolderLock, progress: Progress, start_s: float) -> int:
    """Run until told to stop; answers the exit code. `start_s` is when the process began (CLOCK_BOOTTIME)."""
    write_logs(config.verbosity)
    return uvloop.run(Process(machine.resolved(config), lock, progress, start_s).run())


class Process(Life):
    """The parts of one cluster."""

    def __init__(self, config: Config, lock: DataFolderLock, progress: Progress, start_s: float) -> None:
        super().__init__(config.data_path, lock, progress, start_s)
        self.config = config
        self.kubeconfig_path = Path(config.kubeconfig) if config.kubeconfig else kubeconfig.default_path()
        node = machine.node_settings(config) if config.runtime == "oci" else None
        self._record = teardown.Running(config.data_dir, node, str(self.kubeconfig_path), server="")

    async def start(self) -> list[tuple[str, Loop]]:
        with self._waiting("certificates"):
            self.pki = await asyncio.to_thread(self._ensure_pki)
        async with asyncio.TaskGroup() as group:
            node = group.create_task(self._start_nodes(), name="node")
            group.create_task(self._start_server(), name="API server")
        loops = self._loops(node.result())
        if self._record.node:
            with self._waiting("DNS"):
                for parts in node.result():
                    await parts.serve()
        return loops

    async def _start_server(self) -> None:
        """The store, the API server over it, its TLS socket, and the kubeconfig that leads there."""
        config = self.config
        with self._waiting("store"):
            store = await SQLiteStore.open(config.data_path / "store.db")
        self._closing.append(("store", store.close))
        issuer = f"https://kubernetes.default.svc.{config.cluster_domain}"
        key = load_pem_private_key(self.pki.service_account_key_pem, None)
        address = joined_address(config.advertise_address, config.listen_port)
        settings = Settings(
            address,
            config.service_cidrs,
            config.node_ports,
            access_settings(config, self.clock),
            config.disabled_admission_plugins,
            self.pki.front_proxy_client,
        )
        tokens = Tokens(store, self.clock, key, issuer, [issuer])
        self.server = APIServer(store, with_metrics(), self.clock, settings, tokens=tokens)
        # /readyz tells it from the signal on, while the parts that still need the API end.
        self._stopping.append(self.server.stop)
        self._closing.append(("API server's connections", self.server.close))
        context = tls_context(self.pki.apiserver, self.pki.ca)
        listener = Listener(self.server, context, config.listen_host, config.listen_port)
        with self._waiting("API server"):
            try:
                port = await listener.start()
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), f"listen: {config.listen}") from None
        self._closing.append(("API server", listener.close))
        host = "127.0.0.1" if config.listen_host in ("0.0.0.0", "::") else config.listen_host
        self._found(f"https://{joined_address(host, port)}")
        self._record = msgspec.structs.replace(self._record, server=self.address)
        teardown.write_record(self._record)
        admin = self.pki.admin
        access = kubeconfig.Access(self.address, self.pki.ca.certificate_pem, admin.certificate_pem, admin.key_pem)
        await asyncio.to_thread(kubeconfig.add, self.kubeconfig_path, access)
        with self._waiting("first objects"):
            await bootstrap(
                self._client("system:apiserver", "system:masters"),
                config.service_cidrs,
                config.cluster_dns_addresses,
                config.advertise_address,
                port,
                self.server.health,
                ingress_class=config.ingress_class,
            )

    def _client(self, name: str, *groups: str) -> Client:
        """A client of the API server in this process, as the user that upstream's component has."""
        user = User(name, (*groups, "system:authenticated"))
        return Client(InProcessTransport(self.server), self.server.registry, user)

    def _account(self, name: str) -> Client:
        """A client of a service account in kube-system."""
        groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system")
        return self._client(f"system:serviceaccount:kube-system:{name}", *groups)

    def _loops(self, nodes: list[Parts]) -> list[tuple[str, Loop]]:
        """Everything that runs side by side."""
        config, clock = self.config, self.clock
        # One cache of each kind serves the whole process, scheduler and nodes included: its reads are the controller
        # manager's, who may list and watch everything. Writes are each part's own.
        manager = self._client("system:kube-controller-manager")
        informers = self.informers = Informers(manager, clock)
        self.server.health.readiness["informer-sync"] = lambda: (
            None if all(each.synced.is_set() for each in informers.informers().values()) else "not all have synced"
        )
        root_ca = self.pki.ca.certificate_pem.decode()
        assert self.server.tokens
        of_cluster = controllers(
            manager,
            informers,
            clock,
            root_ca=root_ca,
            root_ca_key=self.pki.ca.key_pem,
            sign_token=self.server.tokens.legacy,
            node_ranges=_ranges(config),
            client_of=self._account,
        )
        of_cluster += load_balancers(config, self._account, informers, clock)
        loops: list[tuple[str, Loop]] = [(controller.name, controller.run) for controller in of_cluster]
        server = self._client("system:apiserver", "system:masters")
        loops += [(kind.name, kind(server, informers, clock).run) for kind in (FlowControl, ServiceRepair)]
        front_proxy_ca = self.pki.front_proxy_ca.certificate_pem.decode()
        known_by = trust(root_ca, front_proxy_ca, pki.FRONT_PROXY_USER)
        loops.append((AuthenticationTrust.name, AuthenticationTrust(server, informers, clock, known_by).run))
        api_services = APIServices(server, informers, clock, self.server.aggregator.look)
        loops.append((api_services.name, api_services.run))
        default_range = DefaultRange(server, informers, clock, config.service_cidrs)
        loops.append((default_range.name, default_range.run))
        loops.append(("event expiry", EventExpiry(self.server.store, clock).run))
        scheduler = Scheduler(self._client("system:kube-scheduler"), informers, clock, profiles(config))
        loops.append(("scheduler", scheduler.run))
        queues = {queue_name(controller.name): controller.queue for controller in of_cluster}
        self.server.metrics.sources += [lambda: queue_figures(queues), scheduler.figures]
        self.server.metrics.sources += [controller.figures for controller in (*of_cluster, api_services)]
        for each in nodes:
            loops += each.assemble(self._client(f"system:node:{each.name}", "system:nodes"), informers)
            self._closing.append((f"node {each.name} leaves", partial(self._leave, each)))
        self._elsewhere = self._other_nodes()
        self.server.nodes = Nodes({each.name: each.backend for each in nodes}, self._elsewhere)
        folders = HollowFolders() if config.runtime == "sim" else HostFolders(config.data_path / "volumes")
        names = [each.name for each in nodes]
        volumes = LocalVolumes(
            self._account(LOCAL_VOLUMES_ACCOUNT), informers, clock, names, folders, self._folders_elsewhere
        )
        loops.append((volumes.name, volumes.run))
        if config.ingress_class != "none" and self._record.node:
            port = urlsplit(self.address).port or 443
            node = self._client(f"system:node:{config.node_name}", "system:nodes")
            edge, certificates = cluster_ingress(config, self._account(INGRESS_ACCOUNT), node, informers, clock, port)
            loops.append((edge.name, edge.run))
            self.server.pages[INGRESS_CERTIFICATES] = certificates
            self.server.metrics.sources.append(edge.figures)
            self._closing.append((edge.name, edge.close))
        loops.append(("cluster info", self._tell_joining))
        loops.append(("informers", informers.run))
        return loops

    def _folders_elsewhere(self, name: str) -> RemoteFolders | None:
        """The local volumes of a node of another process."""
        node = self.informers.of(Node).get(name)
        folder = node.metadata.annotations.get(FOLDER_ANNOTATION) if node else None
        return RemoteFolders(partial(self._elsewhere, name), folder) if folder else None

    def _other_nodes(self) -> Callable[[str], RemoteNode | None]:
        """The nodes of other processes."""
        certificate = self.pki.kubelet_client
        context = client_context(
            str(self.pki.ca.certificate_path), str(certificate.certificate_path), str(certificate.key_path)
        )
        connections = NodeConnections(context)
        self._closing.append(("connections to nodes", connections.close))
        nodes = self.informers.of(Node)

        def found(name: str) -> RemoteNode | None:
            node = nodes.get(name)
            return RemoteNode(node, connections) if node else None

        return found

    async def _tell_joining(self) -> None:
        """What machines that join need to know. Ends when it is written."""
        config = self.config
        server = f"https://{joined_address(config.advertise_address, urlsplit(self.address).port or 443)}"
        client = self._client("system:apiserver", "system:masters")
        for wanted in (settings_map(machine.cluster_settings(config)), public_map(server, self.pki.ca.certificate_pem)):
            try:
                await client.create(wanted)
            except AlreadyExists:
                name, namespace = wanted.metadata.name or "", wanted.metadata.namespace
                await client.patch(ConfigMap, name, {"data": wanted.data}, namespace)

    async def usable(self) -> None:
        """A pod can be created and will run: node Ready, default service account there."""
        with self._waiting("node Ready, service account"):
            await seen(self.informers.of(Node), node_is_ready)
            await seen(self.informers.of(ServiceAccount), lambda account: account.metadata.namespace == "default")
        self.server.ready = True

    async def status(self) -> dict[str, Any]:
        """For `knarr status`."""
        config = self.config
        mode = config.proxy_mode if config.runtime == "oci" else None
        return {**await super().status(), "kubeconfig": str(self.kubeconfig_path), "proxyMode": mode}

    def _ensure_pki(self) -> pki.Pki:
        """The API server answers to every name and address by which this machine can be called."""
        config = self.config
        names = pki.apiserver_names(config.cluster_domain, config.node_name)
        listening = [] if config.listen_host in ("0.0.0.0", "::") else [config.listen_host]
        here = ["127.0.0.1", config.api_service_ip, config.advertise_address, machine.node_gateway(config)]
        return pki.ensure(config.data_path / "pki", self.clock, dns_names=names, addresses=[*here, *listening])

    async def _start_nodes(self) -> list[Parts]:
        """What containers need: the pod network and a container runtime."""
        nodes = parts_of(self.config, self.clock)
        if self._record.node:
            teardown.write_record(self._record)
        with self._waiting("pod network, container runtime"):
            for each in nodes:
                self._closing.append((f"node {each.name}", partial(self._close_node, each)))
                await each.open()
        self.runtime = nodes[0].runtime
        return nodes

    async def _leave(self, node: Parts) -> None:
        await node.leave(keep=self._keep)

    async def _close_node(self, node: Parts) -> list[str]:
        """The last of a node: its containers and their network, or only this process's hold on them."""
        left = await node.close(keep=self._keep)
        if self._record.node and not self._keep and not left:
            teardown.write_record(msgspec.structs.replace(self._record, clean=True))
        return left


def _ranges(config: Config) -> list[Ranges]:
    """The ranges for nodes that join; those of this process's own nodes are theirs for good."""
    return [
        Ranges(cluster, ip_network(own[0]).prefixlen, reserved=own)
        for cluster, own in zip(config.cluster_cidrs, zip(*config.node_ranges, strict=True), strict=True)
    ]
