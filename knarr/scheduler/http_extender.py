"""An extender that is asked over HTTP, as upstream's (KubeSchedulerConfiguration.extenders; k8s.io/kube-scheduler).

    extenders:
    - urlPrefix: https://gpus.example.com/scheduler
      filterVerb: filter                         # POST https://gpus.example.com/scheduler/filter
      prioritizeVerb: prioritize
      weight: 5
      managedResources: [{name: example.com/gpu, ignoredByScheduler: true}]
      httpTimeout: 2s
      tlsConfig: {caFile: /etc/knarr/gpus.pem}

Its bodies have Go's field names (Pod, NodeNames, …); answers are read whatever their letters' case, as Go reads them.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from knarr.api.core.v1 import Node, Pod
from knarr.api.durations import duration_s
from knarr.scheduler.extenders import Extender, ExtenderFailed, Filtered, Victims

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 64 << 20
"""Of 10,000 whole nodes and more."""


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    pass


class _Managed(_Strict, frozen=True):
    name: str
    ignored_by_scheduler: bool = False


class _TLS(_Strict, frozen=True):
    insecure: bool = False
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    cert_data: bytes = b""
    key_data: bytes = b""
    ca_data: bytes = b""


class ExtenderConfig(_Strict, frozen=True):
    """What a user says of one. A verb that is left out is one that it doesn't have."""

    url_prefix: str
    filter_verb: str = ""
    preempt_verb: str = ""
    prioritize_verb: str = ""
    weight: int = 0
    bind_verb: str = ""
    enable_https: bool = msgspec.field(default=False, name="enableHTTPS")
    tls_config: _TLS | None = None
    http_timeout: str = ""
    node_cache_capable: bool = False
    """It knows the nodes: their names will do."""
    managed_resources: tuple[_Managed, ...] = ()
    """It is interested only in pods that ask for one of these; in all when there are none."""
    ignorable: bool = False

    @property
    def ignored(self) -> frozenset[str]:
        """Resources that it looks after alone."""
        return frozenset(each.name for each in self.managed_resources if each.ignored_by_scheduler)


def extender_problems(extenders: Sequence[ExtenderConfig]) -> Iterator[str]:
    known: set[str] = set()
    for number, each in enumerate(extenders):
        place = f"extenders[{number}]"
        if not each.url_prefix.startswith(("http://", "https://")):
            yield f'{place}.urlPrefix: Invalid value: "{each.url_prefix}": must be an http or https URL'
        if each.prioritize_verb and each.weight <= 0:
            yield f"{place}.weight: Invalid value: {each.weight}: must have a positive weight applied to it"
        if each.http_timeout and duration_s(each.http_timeout) is None:
            yield f'{place}.httpTimeout: Invalid value: "{each.http_timeout}": must be a duration such as 5s'
        tls = each.tls_config or _TLS()
        if tls.insecure and (tls.ca_file or tls.ca_data):
            yield f"{place}.tlsConfig: a CA can't be specified with insecure"
        elif each.url_prefix.startswith("https:"):
            try:
                tls_context(each)
            except (OSError, UnicodeDecodeError) as error:
                yield f"{place}.tlsConfig: {error}"
        for managed, resource in enumerate(each.managed_resources):
            about = f'{place}.managedResources[{managed}].name: Invalid value: "{resource.name}"'
            group, _, name = resource.name.partition("/")
            if resource.name in known:
                yield f"{about}: duplicate extender managed resource name"
            elif not name or group.endswith("kubernetes.io"):
                yield f"{about}: must be the name of an extended resource"
            known.add(resource.name)
    if sum(bool(each.bind_verb) for each in extenders) > 1:
        yield "extenders: only one extender can implement bind"


class _Named(msgspec.Struct):
    metadata: dict[str, Any]


class _Items(msgspec.Struct):
    items: list[_Named] | None = None


class _FilterAnswer(msgspec.Struct, rename="lower"):
    nodes: _Items | None = None
    nodenames: list[str] | None = None
    failednodes: dict[str, str] | None = None
    failedandunresolvablenodes: dict[str, str] | None = None
    error: str = ""


class _Score(msgspec.Struct):
    host: str
    score: int


class _Pod(msgspec.Struct):
    uid: str


class _Victims(msgspec.Struct):
    pods: list[_Pod] | None = None
    numpdbviolations: int = 0


class _PreemptAnswer(msgspec.Struct):
    nodenametometavictims: dict[str, _Victims] | None = None


class _BindAnswer(msgspec.Struct):
    error: str = ""


class HTTPExtender(Extender):
    def __init__(self, config: ExtenderConfig) -> None:
        self._config = config
        self.name = config.url_prefix
        self.ignorable = config.ignorable
        self.weight = config.weight if config.prioritize_verb else 0
        self.preempts = bool(config.preempt_verb)
        self.binds = bool(config.bind_verb)
        self._managed = {each.name for each in config.managed_resources}
        self._session: aiohttp.ClientSession | None = None

    def is_interested(self, pod: Pod) -> bool:
        if not self._managed or pod.spec is None:
            return True
        asked = [each.resources for each in (*pod.spec.containers, *pod.spec.init_containers) if each.resources]
        return any(not self._managed.isdisjoint((*each.requests, *each.limits)) for each in asked)

    async def filter(self, pod: Pod, nodes: Sequence[Node]) -> Filtered:
        if not self._config.filter_verb:
            return await super().filter(pod, nodes)
        answer = await self._ask(self._config.filter_verb, {"Pod": pod, **self._nodes(nodes)}, _FilterAnswer)
        if answer.error:
            raise ExtenderFailed(answer.error)
        fit = answer.nodenames if self._config.node_cache_capable else None
        if fit is None:
            fit = [node.metadata.get("name", "") for node in (answer.nodes and answer.nodes.items) or ()]
        known = {node.metadata.name for node in nodes}
        for name in fit:
            if name not in known:
                about = f'claims a filtered node "{name}" which is not found in the input node list'
                raise ExtenderFailed(f'extender "{self.name}" {about}')
        return Filtered(frozenset(fit), answer.failednodes or {}, answer.failedandunresolvablenodes or {})

    async def prioritize(self, pod: Pod, nodes: Sequence[Node]) -> Mapping[str, int]:
        body = {"Pod": pod, **self._nodes(nodes)}
        answer = await self._ask(self._config.prioritize_verb, body, list[_Score] | None)
        return {each.host: each.score for each in answer or ()}

    async def preempt(
        self, pod: Pod, candidates: Mapping[str, Sequence[Pod]], violations: Mapping[str, int]
    ) -> Mapping[str, Victims]:
        brief = self._config.node_cache_capable
        victims = {
            name: {
                "Pods": [{"UID": each.metadata.uid} for each in pods] if brief else pods,
                "NumPDBViolations": violations[name],
            }
            for name, pods in candidates.items()
        }
        body = {"Pod": pod, "NodeNameToMetaVictims" if brief else "NodeNameToVictims": victims}
        answer = await self._ask(self._config.preempt_verb, body, _PreemptAnswer)
        return {
            name: Victims(tuple(pod.uid for pod in each.pods or ()), each.numpdbviolations)
            for name, each in (answer.nodenametometavictims or {}).items()
        }

    async def bind(self, pod: Pod, node_name: str) -> None:
        metadata = pod.metadata
        body = {"PodName": metadata.name, "PodNamespace": metadata.namespace, "PodUID": metadata.uid, "Node": node_name}
        answer = await self._ask(self._config.bind_verb, body, _BindAnswer)
        if answer.error:
            raise ExtenderFailed(answer.error)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _nodes(self, nodes: Sequence[Node]) -> dict[str, Any]:
        if self._config.node_cache_capable:
            return {"Nodes": None, "NodeNames": [node.metadata.name for node in nodes]}
        return {"Nodes": {"metadata": {}, "items": nodes}, "NodeNames": None}

    async def _ask(self, verb: str, body: Any, kind: Any) -> Any:
        import aiohttp  # only who has extenders pays for it

        url = f"{self._config.url_prefix.rstrip('/')}/{verb}"
        try:
            if self._session is None:
                total_s = duration_s(self._config.http_timeout) or TIMEOUT_S
                context = tls_context(self._config) if url.startswith("https:") else None
                connector = aiohttp.TCPConnector(ssl=context or True)
                self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=total_s))
            headers = {"content-type": "application/json"}
            encoded, name = msgspec.json.encode(body), (self._config.tls_config or _TLS()).server_name or None
            async with self._session.post(url, data=encoded, headers=headers, server_hostname=name) as answer:
                if answer.status != 200:
                    raise ExtenderFailed(f"failed {verb} with extender at URL {url}, code {answer.status}")
                said = bytearray()
                async for chunk in answer.content.iter_any():
                    said += chunk
                    if len(said) > ANSWER_BYTES_MAX:
                        raise ExtenderFailed(f"{url}: an answer of more than {ANSWER_BYTES_MAX} bytes")
            return msgspec.convert(_lower(msgspec.json.decode(said)), kind)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExtenderFailed(f'Post "{url}": {_words(error)}') from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ExtenderFailed(f"{url}: not the answer of an extender: {error}") from error


def _words(error: Exception) -> str:
    """Why there is no answer, as Go's client says it."""
    import aiohttp

    if isinstance(error, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, aiohttp.ClientConnectorDNSError) or not isinstance(error, aiohttp.ClientConnectorError):
        return str(error) or type(error).__name__
    if isinstance(error.os_error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.os_error.verify_message}"
    if isinstance(error.os_error, ssl.SSLError):
        return f"tls: {error.os_error}"
    number = error.os_error.errno
    why = os.strerror(number).lower() if number else str(error.os_error)
    return f"dial tcp {error.host}:{error.port}: connect: {why}"


def tls_context(config: ExtenderConfig) -> ssl.SSLContext:
    """As upstream has it: with enableHTTPS and without a CA, whoever answers is believed. Raises OSError and
    UnicodeDecodeError when what is named can't be used."""
    tls = config.tls_config or _TLS()
    context = ssl.create_default_context(cafile=tls.ca_file or None, cadata=tls.ca_data.decode() or None)
    if tls.insecure or (config.enable_https and not (tls.ca_file or tls.ca_data)):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file or None)
    elif tls.cert_data:
        with tempfile.NamedTemporaryFile() as file:  # Python loads it only from a file
            file.write(tls.cert_data + b"\n" + tls.key_data)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _lower(value: Any) -> Any:
    """With the names of fields in lower case. (Names of nodes, that are keys too, are so anyway.)"""
    if isinstance(value, dict):
        return {key.lower(): _lower(each) for key, each in value.items()}
    return [_lower(each) for each in value] if isinstance(value, list) else value
