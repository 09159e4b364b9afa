"""How a pod finds names: its host name, /etc/hosts and /etc/resolv.conf.

dnsPolicy: ClusterFirst asks the cluster's DNS and searches the pod's namespace first, Default does as the node does,
None takes dnsConfig alone; dnsConfig is laid over all of them. (Pods in the host's network get ClusterFirst only when
they say ClusterFirstWithHostNet.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from knarr.api.core.v1 import Pod, PodSpec

HOST_NAME_LENGTH_MAX = 63
"""Of the kernel's host name, less one (sethostname(2)); longer pod names are cut as upstream does."""
NAME_SERVERS_MAX = 3
"""That libc reads (resolv.conf(5))."""
SEARCHES_MAX = 32
"""As upstream's limit."""
SEARCH_CHARACTERS_MAX = 2048


class ResolverConfiguration(Struct):
    """What resolv.conf says."""

    servers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def text(self) -> str:
        lines = [f"nameserver {server}" for server in self.servers[:NAME_SERVERS_MAX]]
        if self.searches:
            lines.insert(0, "search " + " ".join(_fitting(self.searches)))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "".join(f"{line}\n" for line in lines)


def host_name(pod: Pod) -> str:
    """The name that `hostname` prints in the pod."""
    assert pod.spec
    if pod.spec.hostname_override:
        return pod.spec.hostname_override
    return (pod.spec.hostname or pod.metadata.name or "")[:HOST_NAME_LENGTH_MAX].rstrip("-.")


def domain_name(pod: Pod, cluster_domain: str) -> str:
    """The pod's full name where it has a subdomain, else empty."""
    assert pod.spec
    if not pod.spec.subdomain or pod.spec.hostname_override:
        return ""
    return f"{host_name(pod)}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"


def hosts_file(pod: Pod, ips: Sequence[str], cluster_domain: str) -> str:
    """/etc/hosts of a pod with a network of its own."""
    assert pod.spec
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "fe00::\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    names = "\t".join(filter(None, (domain_name(pod, cluster_domain), host_name(pod))))
    lines += [f"{ip}\t{names}" for ip in ips]
    return "\n".join(lines) + "\n" + _aliases(pod.spec)


def host_network_hosts_file(pod: Pod, node_hosts: str) -> str:
    """/etc/hosts of a pod in the host's network: the node's, with the aliases."""
    assert pod.spec
    return "# Kubernetes-managed hosts file (host network).\n" + node_hosts + _aliases(pod.spec)


def resolver_configuration(
    pod: Pod, node: ResolverConfiguration, cluster_dns: Sequence[str], cluster_domain: str
) -> ResolverConfiguration:
    """What the pod's resolv.conf says."""
    spec = pod.spec
    assert spec
    policy = spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and spec.host_network:
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        policy = "Default"
    if policy == "None":
        answer = ResolverConfiguration()
    elif policy == "Default":
        answer = ResolverConfiguration(list(node.servers), list(node.searches), list(node.options))
    else:
        namespaced = [f"{pod.metadata.namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain]
        answer = ResolverConfiguration(list(cluster_dns), _distinct([*namespaced, *node.searches]), ["ndots:5"])
    if spec.dns_config is not None:
        answer.servers = _distinct([*answer.servers, *spec.dns_config.nameservers])
        answer.searches = _distinct([*answer.searches, *spec.dns_config.searches])
        options = {option.partition(":")[0]: option for option in answer.options}
        for option in spec.dns_config.options:
            name = option.name or ""
            options[name] = f"{name}:{option.value}" if option.value is not None else name
        answer.options = list(options.values())
    return answer


def parse_resolv_conf(text: str) -> ResolverConfiguration:
    """Read a resolv.conf (resolv.conf(5)); the last `search` line counts."""
    answer = ResolverConfiguration()
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "nameserver" and len(words) > 1:
            answer.servers.append(words[1])
        elif words[0] == "search":
            answer.searches = [word.rstrip(".") or "." for word in words[1:]]
        elif words[0] == "options":
            answer.options = words[1:]
    return answer


def _aliases(spec: PodSpec) -> str:
    if not spec.host_aliases:
        return ""
    lines = [f"{alias.ip}\t" + "\t".join(alias.hostnames) for alias in spec.host_aliases if alias.hostnames]
    return "\n# Entries added by HostAliases.\n" + "".join(f"{line}\n" for line in lines)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _fitting(searches: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for search in searches[:SEARCHES_MAX]:
        if len(" ".join([*kept, search])) > SEARCH_CHARACTERS_MAX:
            break
        kept.append(search)
    return kept
