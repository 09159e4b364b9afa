"""What a rule judges by: the cluster as it is, and as it was lately."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from knarr.api.core.v1 import Pod
from tests.simulate.objects import (
    is_going,
    is_ready,
    owner_uid,
)
from tests.simulate.world import Change, State

AT_ONCE_S = 0.1
"""Where requests are not slow."""


class Broken(Exception):
    """A rule is broken."""


@dataclass(slots=True)
class Past:
    """The versions that objects had, and when pods were last available."""

    slack_s: float
    flight_s: float
    """How long a request may be on its way, or wait for others that came before it."""
    way_s: float
    """How long it may be on its way alone."""
    certain: bool
    prompt: bool
    """Caches are never late."""
    crashed_s: Mapping[str, float]
    """When each part went down last: then it forgot what it had written itself, and its caches may not show yet."""
    versions: dict[str, deque[tuple[float, Any]]] = field(default_factory=lambda: defaultdict(deque))
    """By uid: when each version ended, and the version; the present one is not among them."""
    available_s: dict[str, float] = field(default_factory=dict)
    """By uid of a pod: when it was last seen ready and staying."""
    gone_s: dict[str, float] = field(default_factory=dict)
    """By uid: when it was deleted for good."""

    made_s: dict[str, float] = field(default_factory=dict)
    """By uid: when it came."""

    def note(self, change: Change) -> None:
        old, new = change.old, change.new
        if new is not None:
            self.made_s.setdefault(new.metadata.uid, change.now_s)
        if old is not None:
            versions = self.versions[old.metadata.uid]
            versions.append((change.now_s, old))
            while versions[0][0] < change.now_s - 60:
                versions.popleft()
            if change.kind is Pod and is_ready(old) and not is_going(old):
                self.available_s[old.metadata.uid] = change.now_s
            if new is None:
                self.gone_s[old.metadata.uid] = change.now_s

    def known(self, obj: Any, now_s: float) -> Iterator[Any]:
        """The version that is there, and those that somebody may have decided by."""
        yield obj
        for ended_s, version in self.versions.get(obj.metadata.uid, ()):
            if ended_s >= now_s - self.slack_s:
                yield version

    def was_available(self, pod: Pod, now_s: float) -> bool:
        """At some moment of the time that counts, and by nobody's decision taken away since."""
        if is_ready(pod) and not is_going(pod):
            return True
        return self.available_s.get(pod.metadata.uid or "", -1e9) >= now_s - self.slack_s

    def known_to_all(self, obj: Any, now_s: float) -> bool:
        """It was made so long ago that everybody has seen it."""
        return self.made_s[obj.metadata.uid] < now_s - self.slack_s

    def may_have_forgotten(self, part: str, obj: Any, now_s: float) -> bool:
        """A part that went down after it had made this."""
        return not self.known_to_all(obj, now_s) and self.crashed_s.get(part, -1.0) >= self.made_s[obj.metadata.uid]

    def deleted_s(self, obj: Any) -> float:
        """When it was asked to go."""
        versions = reversed(self.versions[obj.metadata.uid])
        return next((ended_s for ended_s, version in versions if not is_going(version)), 0.0)


class Rule:
    """One rule. `kinds`: whose changes it is about; none: all."""

    kinds: tuple[type[Any], ...] = ()

    def __init__(self, state: State, past: Past) -> None:
        self.state = state
        self.past = past

    def check(self, change: Change) -> None:
        """Raises Broken."""
        raise NotImplementedError

    def pods_of(self, owner: Any) -> list[Pod]:
        return [pod for pod in self.state.all(Pod, owner.metadata.namespace) if owner_uid(pod) == owner.metadata.uid]

    def owner_of(self, kind: type[Any], obj: Any) -> Any | None:
        uid = owner_uid(obj)
        found = self.state.by_uid.get(uid) if uid else None
        return found if isinstance(found, kind) else None


def is_deletion(change: Change) -> bool:
    """Somebody asked for it to go, or took it away at once."""
    return change.old is not None and not is_going(change.old) and (change.new is None or is_going(change.new))
