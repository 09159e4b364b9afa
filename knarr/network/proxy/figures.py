"""What the service proxy counts, under kube-proxy's names.

https://kubernetes.io/docs/reference/instrumentation/metrics/ tells what each name means. One transaction writes both
address families, so its duration is counted for each family that it was about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from knarr.figures import Distribution, Figure, exponential
from knarr.network.proxy.model import FAMILIES, Family, PortRules, Verdict

DURATIONS_S = exponential(0.001, 2, 15)
PROGRAMMING_S = (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 330, 30))
PREFIX = "kubeproxy_"
SYNC = f"{PREFIX}sync_proxy_rules_"


class ProxyFigures:
    """The counts of one proxy."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._whole = {family: Distribution(DURATIONS_S) for family in FAMILIES}
        self._partial = {family: Distribution(DURATIONS_S) for family in FAMILIES}
        self._programming = {family: Distribution(PROGRAMMING_S) for family in FAMILIES}
        self._changes: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()
        self._codes: Counter[tuple[str, str]] = Counter()
        self._queued_s = 0.0
        self._synced_s = 0.0
        self._no_local: dict[str, frozenset[tuple[Family, str]]] = {}
        """By service: the families and policies that leave it no endpoint here."""
        self._flows = 0
        self.failures = 0
        """Transactions that the kernel refused."""

    def changed(self, kind: str, now_s: float) -> None:
        """A `service` or an `endpoint` (slice) is another."""
        self._changes[kind] += 1
        self._pending[kind] += 1
        self._queued_s = now_s

    def taken(self) -> None:
        """What was changed so far is being written, or turned out to need no other rules."""
        self._pending.clear()

    def synced(self, seconds: float, now_s: float, families: Collection[Family], *, whole: bool) -> None:
        """Rules were written."""
        self._synced_s = now_s
        for family in families:
            (self._whole if whole else self._partial)[family].observe(seconds)

    def programmed(self, family: Family, seconds: float) -> None:
        """From the change of a pod or service to the kernel's rules."""
        self._programming[family].observe(seconds)

    def ports(self, service: str, ports: Iterable[PortRules]) -> None:
        """What a service's ports are like now."""
        found = {(each.family, "internal") for each in ports if each.internal_local and each.internal is Verdict.DROP}
        found |= {(each.family, "external") for each in ports if each.external_local and each.external is Verdict.DROP}
        if found:
            self._no_local[service] = frozenset(found)
        else:
            self._no_local.pop(service, None)

    def forgot(self, flows: int) -> None:
        self._flows += flows

    def answered(self, page: str, code: int) -> None:
        """A probe of `healthz` or `livez`."""
        self._codes[page, str(code)] += 1

    def figures(self) -> Iterator[Figure]:
        """For /metrics."""
        by_family = ("ip_family",)

        def of_families(each: dict[Family, Distribution]) -> dict[tuple[str, ...], float | Distribution]:
            return {(family,): distribution for family, distribution in each.items()}

        def of_all(value: float) -> dict[tuple[str, ...], float | Distribution]:
            return {(family,): value for family in FAMILIES}

        both = {family: _sum(self._whole[family], self._partial[family]) for family in FAMILIES}
        for name, what, values in (
            ("", "one write of the rules", both),
            ("full_", "one write of all the rules", self._whole),
            ("partial_", "one write of what changed", self._partial),
        ):
            full_name = f"{PREFIX}sync_{name}proxy_rules_duration_seconds"
            yield Figure("histogram", full_name, f"How long {what} took.", by_family, of_families(values))
        yield Figure(
            "histogram",
            f"{PREFIX}network_programming_duration_seconds",
            "From the change of a pod or service to the rules in the kernel.",
            by_family,
            of_families(self._programming),
        )
        for name, text, value in (
            ("last_timestamp_seconds", "When rules were written last.", self._synced_s),
            ("last_queued_timestamp_seconds", "When a change was seen last.", self._queued_s),
        ):
            yield Figure("gauge", SYNC + name, text, by_family, of_all(value))
        for kind in ("endpoint", "service"):
            total, pending = float(self._changes[kind]), float(self._pending[kind])
            yield Figure("counter", f"{SYNC}{kind}_changes_total", f"Changes seen, {kind}.", (), {(): total})
            yield Figure("gauge", f"{SYNC}{kind}_changes_pending", f"Changes not written, {kind}.", (), {(): pending})
        without = Counter(each for found in self._no_local.values() for each in found)
        kinds = [(family, policy) for family in FAMILIES for policy in ("external", "internal")]
        yield Figure(
            "gauge",
            f"{SYNC}no_local_endpoints_total",
            "Services whose Local policy leaves them no endpoint here.",
            ("ip_family", "traffic_policy"),
            {kind: float(without[kind]) for kind in kinds},
        )
        failures = "nftables_sync_failures_total" if self._mode == "nftables" else "iptables_restore_failures_total"
        yield Figure(
            "counter", SYNC + failures, "Writes that the kernel refused.", by_family, of_all(float(self.failures))
        )
        yield Figure(
            "counter",
            f"{PREFIX}conntrack_reconciler_deleted_entries_total",
            "UDP flows that were forgotten because their endpoint was gone.",
            (),
            {(): float(self._flows)},
        )
        for page in ("healthz", "livez"):
            codes = {(code,): float(count) for (probed, code), count in self._codes.items() if probed == page}
            yield Figure("counter", f"{PREFIX}proxy_{page}_total", f"Answers of /{page} by code.", ("code",), codes)


def _sum(one: Distribution, other: Distribution) -> Distribution:
    made = Distribution(one.bounds)
    made.counts = [first + second for first, second in zip(one.counts, other.counts, strict=True)]
    made.total = one.total + other.total
    return made
