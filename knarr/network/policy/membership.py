"""Which pods are meant: kept up to date pod by pod, so that one more pod costs a look at each selector and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.network.policy.model import Pods, PodView


class Membership:
    """The pods of the cluster, and for each selector in use those that it selects."""

    def __init__(self) -> None:
        self._pods: dict[str, PodView] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._members: dict[Pods, dict[str, PodView]] = {}
        self.changed: set[Pods] = set()
        """Selectors whose pods are others since somebody last cleared this."""

    def use(self, selectors: Iterable[Pods]) -> None:
        """From now on these are the selectors in use."""
        wanted = set(selectors)
        for gone in self._members.keys() - wanted:
            del self._members[gone]
            self.changed.discard(gone)
        for new in wanted - self._members.keys():
            self._members[new] = {key: pod for key, pod in self._pods.items() if self.selects(new, pod)}
            self.changed.add(new)

    def of(self, selector: Pods) -> Mapping[str, PodView]:
        """The pods that a selector in use selects, by key."""
        return self._members[selector]

    def selects(self, selector: Pods, pod: PodView) -> bool:
        """Whether any selector, in use or not, selects a pod."""
        return selector.matches(pod, self._namespaces.get(pod.namespace))

    def put_pod(self, key: str, pod: PodView | None) -> None:
        """A pod is there, is another, or (None) is gone."""
        if self._pods.get(key) == pod:
            return
        if pod is None:
            del self._pods[key]
        else:
            self._pods[key] = pod
        for selector, members in self._members.items():
            self._update(selector, members, key, pod)

    def put_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace has these labels, or (None) is gone."""
        if self._namespaces.get(name) == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        inside = {key: pod for key, pod in self._pods.items() if pod.namespace == name}
        for selector, members in self._members.items():
            if not selector.namespace:
                for key, pod in inside.items():
                    self._update(selector, members, key, pod)

    def _update(self, selector: Pods, members: dict[str, PodView], key: str, pod: PodView | None) -> None:
        before = members.pop(key, None)
        if pod is not None and self.selects(selector, pod):
            members[key] = pod
        if members.get(key) != before:
            self.changed.add(selector)
