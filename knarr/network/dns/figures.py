"""What the cluster's DNS counts, under CoreDNS' names: dashboards for it show this one as well.

https://coredns.io/plugins/metrics/, /cache/ and /forward/ tell what each name means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from knarr.figures import Distribution, Figure, exponential
from knarr.network.dns.wire import Code, Query, Type

DURATIONS_S = exponential(0.00025, 2, 16)
SIZES_BYTES = (0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16e3, 32e3, 48e3, 64e3)
CODES: dict[int, str] = {
    Code.NO_ERROR: "NOERROR",
    Code.FORMAT_ERROR: "FORMERR",
    Code.SERVER_FAILURE: "SERVFAIL",
    Code.NAME_ERROR: "NXDOMAIN",
    Code.NOT_IMPLEMENTED: "NOTIMP",
    Code.REFUSED: "REFUSED",
}
OTHER = "other"
"""Of a type or a code that is seldom: names from outside must not make series without end."""
COUNTED_TYPES = {int(each): each.name for each in Type if each not in (Type.OPT, Type.AXFR)}
RESOLVERS_COUNTED_MAX = 64


class Counts:
    """The counts of one server."""

    def __init__(self, server: str, zone: Sequence[str]) -> None:
        """`server` is how it is called, "dns://10.96.0.10:53"; `zone` the name that it has authority over."""
        self._server = server
        self._zones = ("." if not zone else ".".join((*zone, "")), ".")
        self._requests: Counter[tuple[bool, bool, bool, int]] = Counter()
        """By whether it came over TCP, over IPv6, in the zone, and by type."""
        self._responses: Counter[tuple[bool, int]] = Counter()
        self._durations = {in_zone: Distribution(DURATIONS_S) for in_zone in (True, False)}
        self._sizes = {(in_zone, tcp): Distribution(SIZES_BYTES) for in_zone in (True, False) for tcp in (True, False)}
        self._forwarded: dict[tuple[str, str], Distribution] = {}
        self.cache_hits = {True: 0, False: 0}
        """By whether they found something."""
        self.cache_misses = 0
        self.malformed = 0

    def answered(self, query: Query, *, in_zone: bool, tcp: bool, ipv6: bool, answer: bytes, seconds: float) -> None:
        """A question was answered."""
        self._requests[tcp, ipv6, in_zone, query.type if query.type in COUNTED_TYPES else 0] += 1
        self._responses[in_zone, answer[3] & 0xF] += 1
        self._durations[in_zone].observe(seconds)
        self._sizes[in_zone, tcp].observe(len(answer))

    def forwarded(self, resolver: tuple[str, int], code: int, seconds: float) -> None:
        """Another resolver answered."""
        key = (f"{resolver[0]}:{resolver[1]}", _code(code))
        if len(self._forwarded) < RESOLVERS_COUNTED_MAX or key in self._forwarded:
            self._forwarded.setdefault(key, Distribution(DURATIONS_S)).observe(seconds)

    def figures(self, cache_entries: int) -> Iterator[Figure]:
        """As they are now. `cache_entries` is how many answers of others are kept."""
        server, zone = self._server, self._zone
        yield Figure(
            "counter",
            "coredns_dns_requests_total",
            "Questions, by how they came and what they were for.",
            ("server", "zone", "view", "proto", "family", "type"),
            {
                (server, zone(inside), "", _protocol(tcp), "2" if ipv6 else "1", COUNTED_TYPES.get(kind, OTHER)): count
                for (tcp, ipv6, inside, kind), count in self._requests.items()
            },
        )
        responses: Counter[tuple[str, ...]] = Counter()
        for (inside, code), count in self._responses.items():
            responses[server, zone(inside), "", _code(code), "kubernetes" if inside else "forward"] += count
        yield Figure(
            "counter",
            "coredns_dns_responses_total",
            "Answers, by what they said.",
            ("server", "zone", "view", "rcode", "plugin"),
            dict(responses),
        )
        yield Figure(
            "histogram",
            "coredns_dns_request_duration_seconds",
            "How long answers took.",
            ("server", "zone", "view"),
            {(server, zone(inside), ""): each for inside, each in self._durations.items()},
        )
        yield Figure(
            "histogram",
            "coredns_dns_response_size_bytes",
            "How large answers were.",
            ("server", "zone", "view", "proto"),
            {(server, zone(inside), "", _protocol(tcp)): each for (inside, tcp), each in self._sizes.items()},
        )
        yield Figure(
            "counter",
            "coredns_cache_hits_total",
            "Answers of other resolvers that were given again.",
            ("server", "type", "zones", "view"),
            {(server, "success" if found else "denial", ".", ""): count for found, count in self.cache_hits.items()},
        )
        yield Figure(
            "counter",
            "coredns_cache_misses_total",
            "Questions for which another resolver had to be asked.",
            ("server", "zones", "view"),
            {(server, ".", ""): self.cache_misses},
        )
        yield Figure(
            "gauge",
            "coredns_cache_entries",
            "Answers of other resolvers that are kept.",
            ("server", "zones", "view"),
            {(server, ".", ""): cache_entries},
        )
        yield Figure(
            "histogram",
            "coredns_proxy_request_duration_seconds",
            "How long other resolvers took.",
            ("proxy_name", "to", "rcode"),
            {("forward", *key): each for key, each in self._forwarded.items()},
        )
        yield Figure(
            "counter",
            "knarr_dns_malformed_packets_total",
            "Packets that were no question.",
            ("server",),
            {(server,): self.malformed},
        )

    def _zone(self, inside: bool) -> str:
        return self._zones[0] if inside else self._zones[1]


def _protocol(tcp: bool) -> str:
    return "tcp" if tcp else "udp"


def _code(code: int) -> str:
    return CODES.get(code, OTHER)
