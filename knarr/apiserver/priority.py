"""API Priority and Fairness, simply (KEP-1040): the flow schema of a request, and its priority level's share of places.

The flow schema with the lowest precedence that matches decides. Its priority level has a share of all places for
requests in flight: a part that is always its own, and the rest as long as nobody else needs it. Requests of the level
`exempt` are never refused. Unlike upstream nothing waits in a queue: what finds no place is told to come back.

Schemas and levels follow the store. What was decided for a user is remembered until one of them changes, so that the
usual request costs one look-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from knarr.api.decode import decoder
from knarr.api.errors import TooManyRequests
from knarr.api.flowcontrol.defaults import CATCH_ALL, MANDATORY_LEVELS, MANDATORY_SCHEMAS
from knarr.api.flowcontrol.v1 import FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration, Subject
from knarr.apiserver.action import Action
from knarr.apiserver.follow import Change, Follower
from knarr.client.transport import FlowHeaders, User
from knarr.figures import Figure
from knarr.store.contract import Store

FLOWS_KEPT_MAX = 10_000
"""Decisions that are remembered; when there are more, all are made anew."""
SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io/"
LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io/"
ACCOUNT = "system:serviceaccount:"
RETRY_AFTER_S = 1


class Pool(Struct):
    """All places, of which levels take theirs."""

    size: int
    taken: int = 0
    kept_free: int = 0
    """Places that are some level's own and not taken."""


class Level:
    """The places of one priority level."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.own = 0
        """Places that nobody else may take."""
        self.most = 0
        self.nominal = 0
        self.taken = 0
        self.exempt = False

    def take(self) -> bool:
        """Whether a place was taken that has to be given back. Raises TooManyRequests."""
        if self.exempt:
            return False
        pool = self.pool
        if self.taken < self.own:
            pool.kept_free -= 1
        elif self.taken >= self.most or pool.taken + pool.kept_free >= pool.size:
            raise TooManyRequests("too many requests, please try again later", retry_after_s=RETRY_AFTER_S)
        self.taken += 1
        pool.taken += 1
        return True

    def give_back(self) -> None:
        self.taken -= 1
        self.pool.taken -= 1
        if self.taken < self.own:
            self.pool.kept_free += 1


class Tally(Struct):
    """Requests of one flow schema in one priority level."""

    executing: int = 0
    dispatched: int = 0
    rejected: int = 0


class Flow(Struct, frozen=True):
    """Where a request belongs."""

    level: Level
    tally: Tally
    headers: FlowHeaders | None
    """None before there are any flow schemas."""


class Priorities:
    """The flow schemas and priority levels of a store, and the places of each level."""

    def __init__(self, store: Store, size: int) -> None:
        self._pool = Pool(size)
        self._schemas: dict[str, FlowSchema] = {}
        self._configurations: dict[str, PriorityLevelConfiguration] = {}
        self._levels: dict[str, Level] = {}
        self._order: Sequence[FlowSchema] = ()
        self._flows: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Flow] = {}
        self._changed = True
        self._names: set[str] = set()
        self._tallies: dict[tuple[str, str], Tally] = {}
        """By flow schema and priority level; of those that are no more, none is kept."""
        changes = {SCHEMAS: self._keep(self._schemas, FlowSchema)}
        changes[LEVELS] = self._keep(self._configurations, PriorityLevelConfiguration)
        self.follower = Follower(store, changes, self._forget)

    def of(self, user: User, action: Action) -> Flow:
        """Which flow a request is of."""
        if self._changed:
            self._arrange()
        key = (user.name, user.groups, action.key)
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= FLOWS_KEPT_MAX:
                self._flows.clear()
            flow = self._flows[key] = self._decided(user, action)
        return flow

    def _decided(self, user: User, action: Action) -> Flow:
        schema = next((each for each in self._order if matches(each, user, action)), MANDATORY_SCHEMAS[CATCH_ALL])
        name = schema.spec.priority_level_configuration.name if schema.spec else ""
        level, configuration = self._levels[name], self._configurations.get(name)
        tally = self._tallies.setdefault((schema.metadata.name or "", name), Tally())
        if not schema.metadata.uid or configuration is None:
            return Flow(level, tally, None)
        return Flow(level, tally, FlowHeaders.of(schema.metadata.uid, configuration.metadata.uid or ""))

    def figures(self) -> Iterator[Figure]:
        """What upstream counts of flows and levels. Nothing waits in queues here."""

        def of(kind: Literal["counter", "gauge"], name: str, text: str, value: Callable[[Tally], int]) -> Figure:
            values = {key: value(tally) for key, tally in self._tallies.items()}
            return Figure(kind, f"apiserver_flowcontrol_{name}", text, ("flow_schema", "priority_level"), values)

        yield of("gauge", "current_executing_requests", "Requests that are worked on.", lambda tally: tally.executing)
        yield of("counter", "dispatched_requests_total", "Requests that were let in.", lambda tally: tally.dispatched)
        rejected = {
            (*key, "concurrency-limit"): tally.rejected for key, tally in self._tallies.items() if tally.rejected
        }
        labels = "flow_schema", "priority_level", "reason"
        text = "Requests that were told to come back later."
        yield Figure("counter", "apiserver_flowcontrol_rejected_requests_total", text, labels, rejected)
        seats = {(name,): each.nominal for name, each in self._levels.items()}
        text = "Places of a level by its shares, those that it lends included."
        yield Figure("gauge", "apiserver_flowcontrol_nominal_limit_seats", text, ("priority_level",), seats)

    def _keep(self, kept: dict[str, Any], kind: type[Any]) -> Change:
        decode: Callable[[bytes], Any] = decoder(kind).decode

        def change(key: str, value: bytes | None) -> None:
            name = key.rpartition("/")[2]
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = decode(value)
            self._changed = True

        return change

    def _forget(self) -> None:
        self._schemas.clear()
        self._configurations.clear()
        self._changed = True

    def _arrange(self) -> None:
        """Sort the schemas, and share the places out anew. Places that are held stay counted."""
        self._changed = False
        self._flows.clear()
        configurations = {**MANDATORY_LEVELS, **self._configurations}
        schemas = {**MANDATORY_SCHEMAS, **self._schemas}.values()
        self._names = {schema.metadata.name or "" for schema in schemas}
        known = [
            each for each in schemas if each.spec and each.spec.priority_level_configuration.name in configurations
        ]
        self._order = sorted(known, key=_precedence)
        shares = divided(configurations, self._pool.size)
        for name in {*configurations, *self._levels}:
            level = self._levels.setdefault(name, Level(self._pool))
            level.exempt = name in configurations and name not in shares
            level.own, level.most, level.nominal = shares.get(name, (0, 0, 0))
            if name not in configurations and level.taken == 0:
                del self._levels[name]
        self._tallies = {
            (schema, level): tally
            for (schema, level), tally in self._tallies.items()
            if tally.executing or (schema in self._names and level in self._levels)
        }
        self._pool.taken = sum(level.taken for level in self._levels.values())
        self._pool.kept_free = sum(max(level.own - level.taken, 0) for level in self._levels.values())


def _precedence(schema: FlowSchema) -> tuple[int, str]:
    return (schema.spec.matching_precedence if schema.spec else None) or 0, schema.metadata.name or ""


def divided(levels: Mapping[str, PriorityLevelConfiguration], size: int) -> dict[str, tuple[int, int, int]]:
    """How many of `size` places are each level's own, how many it may have at most, and how many it has by its shares.
    Exempt levels are left out."""
    limited = {name: level.spec.limited for name, level in levels.items() if level.spec and level.spec.limited}
    total = sum(each.nominal_concurrency_shares or 0 for each in limited.values()) or 1
    found = {}
    for name, each in limited.items():
        nominal = math.ceil(size * (each.nominal_concurrency_shares or 0) / total)
        own = nominal - round(nominal * (each.lendable_percent or 0) / 100)
        borrowed = each.borrowing_limit_percent
        most = size if borrowed is None else nominal + round(nominal * borrowed / 100)
        found[name] = (own, most, nominal)
    return found


def matches(schema: FlowSchema, user: User, action: Action) -> bool:
    """Whether a flow schema is about a request."""
    return any(_rule_matches(rule, user, action) for rule in (schema.spec.rules if schema.spec else ()))


def _rule_matches(rule: PolicyRulesWithSubjects, user: User, action: Action) -> bool:
    if not any(_is_about(subject, user) for subject in rule.subjects):
        return False
    if action.path:
        return any(
            _among(action.verb, each.verbs) and any(_url_matches(url, action.path) for url in each.non_resource_urls)
            for each in rule.non_resource_rules
        )
    return any(
        _among(action.verb, each.verbs)
        and _among(action.full_resource, each.resources)
        and _among(action.group, each.api_groups)
        and (_among(action.namespace, each.namespaces) if action.namespace else bool(each.cluster_scope))
        for each in rule.resource_rules
    )


def _among(value: str, listed: Sequence[str]) -> bool:
    return value in listed or "*" in listed


def _is_about(subject: Subject, user: User) -> bool:
    if subject.kind == "User" and subject.user:
        return subject.user.name in ("*", user.name)
    if subject.kind == "Group" and subject.group:
        return subject.group.name == "*" or subject.group.name in user.groups
    if subject.kind == "ServiceAccount" and (account := subject.service_account):
        prefix = f"{ACCOUNT}{account.namespace}:"
        return user.name.startswith(prefix) if account.name == "*" else user.name == prefix + account.name
    return False


def _url_matches(rule: str, path: str) -> bool:
    """/healthz is also about /healthz/etcd, with or without a star at its end."""
    return rule in ("*", path) or path.startswith(rule.removesuffix("*").rstrip("/") + "/")
