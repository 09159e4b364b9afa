"""One Ingress that Envoy refuses must not keep the others from changing: find it, and go on with what it was before.

What is checked before is meant to keep Envoy from ever refusing anything; this is for what was not thought of. A
refusal names no Ingress. So those that changed since Envoy last said yes are halved until the one is found: half of
them stay as they were, the other half is tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from knarr.api.networking.v1 import Ingress
from knarr.edge.ingress.picture import key_of


class Trial:
    def __init__(self) -> None:
        self._accepted: dict[str, Ingress] = {}
        """As Envoy has them."""
        self._tried: dict[str, Ingress] = {}
        """As they were in the last picture."""
        self._held: set[str] = set()
        """Those that wait while others are tried."""
        self._refused: dict[str, tuple[object, ...]] = {}
        """The version that Envoy doesn't take."""

    def included(self, ingresses: Iterable[Ingress]) -> list[Ingress]:
        """What to make the next picture from: each as it is, or as it was when Envoy took it."""
        self._tried = {}
        for ingress in ingresses:
            key = key_of(ingress)
            taken: Ingress | None = ingress
            if key in self._held or self._refused.get(key) == _version(ingress):
                taken = self._accepted.get(key)
                if taken is not None and taken.metadata.uid != ingress.metadata.uid:
                    taken = None
            if taken is not None:
                self._tried[key] = taken
        return list(self._tried.values())

    def accepted(self) -> bool:
        """Envoy took the last picture. Whether there is more to try."""
        self._accepted = dict(self._tried)
        waiting = bool(self._held)
        self._held = set()
        return waiting

    def refused(self) -> Ingress | None:
        """Envoy refused it. Answers the Ingress that is to blame, once it is known."""
        suspects = sorted(self._suspects())
        if len(suspects) == 1:
            guilty = self._tried[suspects[0]]
            self._refused[suspects[0]] = _version(guilty)
            return guilty
        self._held |= set(suspects[len(suspects) // 2 :])
        return None

    @property
    def has_suspects(self) -> bool:
        return any(True for _ in self._suspects())

    def _suspects(self) -> Iterator[str]:
        for key, ingress in self._tried.items():
            before = self._accepted.get(key)
            if before is None or _version(before) != _version(ingress):
                yield key


def _version(ingress: Ingress) -> tuple[object, ...]:
    """What changes with what it asks for: not with its status."""
    metadata = ingress.metadata
    return metadata.uid, metadata.generation, tuple(sorted(metadata.annotations.items()))
