"""The shape of the scheduler's plugins, and what it says when no node will do.

A plugin looks at one aspect. Most are about the pod and one node alone: `prepare` reads the pod once and answers what
it has to know later, or None when the pod asks nothing of this aspect; then the plugin is left out. `filter` says why a
node will not do, `score` how good it is (0 to SCORE_MAX), `normalize` brings raw scores into that range when only their
comparison means something. These answers are remembered until the node changes, and shared by pods that ask for the
same.

A *spanning* plugin is about what is on other nodes as well. What it refuses are whole domains of a topology key
(`barriers`), and it scores all nodes that are left at once (`scores`).

A *step* is about what happens to a pod before a node is looked for (`order`, `admit`) and once it has one: `reserve`
keeps for it what others must not take, `permit` lets it go on, refuses it or has it wait, `before_binding` makes ready
what it needs, `bind` writes that it is there, and `after_binding` hears of it. Whatever goes wrong on the way, all that
was reserved is let go again (`unreserve`).

A pod that fits nowhere is tried again when something happens that may help it: each plugin says what that is for those
that it refused (`helped_by`, `hint`).

An *outside* plugin is a step that also decides by other objects than nodes and pods, such as volumes. It is asked anew
for each pod that is concerned.

POINTS are upstream's names for all this, in upstream's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from knarr.client.client import Client
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.happenings import Happening, Hint, What

SCORE_MAX = 100
PERMIT_MAX_S = 900.0
"""A pod waits at most so long for a permit, whatever a plugin asks."""
EXTENDER = "Extender"
"""In place of a plugin's name, where an extender refused (see knarr.scheduler.extenders)."""
PREEMPTION = "DefaultPreemption"
"""The one plugin of postFilter; see knarr.scheduler.preemption."""
POINTS: Mapping[str, str] = {
    "queueSort": "order",
    "preEnqueue": "admit",
    "preFilter": "prepare",
    "filter": "filter",
    "postFilter": "",
    "preScore": "prepare_score",
    "score": "score",
    "reserve": "reserve",
    "permit": "permit",
    "preBind": "before_binding",
    "bind": "bind",
    "postBind": "after_binding",
}
"""Upstream's extension points, in its order, and what they are here."""
Pick = Callable[[Sequence[Any]], Sequence[Any]]
"""Takes from a list by place what is about the nodes that are left."""


class Refusal(Struct, frozen=True):
    """Why a node will not do."""

    plugin: str
    reasons: tuple[str, ...]
    curable: bool = True
    """Pods leaving the node could change it."""


class Barrier(Struct, frozen=True):
    """Domains of a topology key that will not do."""

    key: str
    refuses: Callable[[str], object]
    """Answers something true for such a domain."""
    refusal: Refusal
    missing: Refusal | None = None
    """Why nodes without the key will not do, unless they will."""

    def refusal_of(self, domain: str | None) -> Refusal | None:
        if domain is None:
            return self.missing
        return self.refusal if self.refuses(domain) else None


class BindingRefused(Exception):
    """A pod can't be bound to its node after all; the message says why, an empty one that the pod is gone."""


class Rejected(Exception):
    """A step has decided that the pod must not go to its node; `plugin` is whose decision it was."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class Wait(Struct, frozen=True):
    """The answer of a permit plugin that can't say yet; then it allows or rejects the pod by `Permits`."""

    timeout_s: float
    """After which the pod is rejected."""


class Held(Protocol):
    """A pod that has its node and waits there for permission."""

    pod: PodInfo
    node_name: str

    @property
    def pending(self) -> Collection[str]:
        """The plugins that it waits for."""

    def allow(self, plugin: str) -> None: ...

    def reject(self, plugin: str, message: str) -> None: ...


class Permits(Protocol):
    """The pods that wait for permission."""

    def get(self, uid: str) -> Held | None: ...

    def all(self) -> Sequence[Held]: ...


class Connections(Struct, frozen=True):
    """The world outside of nodes and pods."""

    client: Client
    informers: Informers
    clock: Clock
    permits: Permits


class Aspect:
    """What plugins of all shapes have. Answers must depend on nothing but the arguments and the cache."""

    name: ClassVar[str] = ""
    filters: bool = True
    weight: int = 0
    """Of its score; 0 when it doesn't score."""
    helped_by: ClassVar[Mapping[type[Any], What]] = {}
    """What, by kind, can make room for a pod that it refused."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """Whether something of `helped_by` may help a pod that it refused."""
        return Hint.QUEUE

    def prepare_score(self, pod: PodInfo) -> Any:
        """What scoring will need; None when all nodes are equal to it."""
        return None

    def normalize(self, prepared: Any, scores: Sequence[float]) -> Sequence[float]:
        """Of all raw scores that there are, each once."""
        return scores


class Plugin(Aspect):
    """One aspect of the choice of a node, about the pod and that node."""

    comparing: ClassVar[bool] = False
    """Its raw scores go through `normalize`."""

    def prepare(self, pod: PodInfo) -> Any:
        """What `filter` will need; None when every node will do."""
        return None

    def filter(self, prepared: Any, node: NodeInfo) -> Refusal | None:
        return None

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """The node that it is about would do now, as far as this goes. The same for all pods that ask for the same."""
        if happening.node is None or happening.node.node is None:
            return Hint.SKIP
        prepared = self.prepare(pod)
        return Hint.SKIP if prepared is not None and self.filter(prepared, happening.node) else Hint.QUEUE

    def score(self, prepared: Any, node: NodeInfo) -> float:
        return 0


class Spanning(Aspect):
    """One aspect of the choice of a node, about what is on others too."""

    def barriers(self, pod: PodInfo) -> Sequence[Barrier]:
        """In the order in which they are told."""
        return ()

    def scores(self, prepared: Any, pick: Pick) -> Sequence[float]:
        """Raw scores of the nodes that are left."""
        raise NotImplementedError


class Step(Aspect):
    """What happens to a pod before it is looked at, and once it has its node. All profiles share it."""

    filters = False

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        """Called once, before all else; answers the caches that must be there before the first pod is placed."""
        return ()

    def order(self, pod: PodInfo, since_s: float) -> Any:
        """What is least goes first; `since_s` is when the pod began to wait."""
        raise NotImplementedError

    def admit(self, pod: PodInfo) -> str:
        """Why the pod must not be tried yet; empty when it may."""
        return ""

    def reserve(self, pod: PodInfo, node: NodeInfo) -> None:
        """The pod goes to the node: keep for it what others must not take. It raises Rejected."""

    def unreserve(self, pod: PodInfo) -> None:
        """It will not be bound there: nothing needs to be kept any more. May come without `reserve`."""

    def permit(self, pod: PodInfo, node: NodeInfo) -> Wait | None:
        """Whether it may go there: it may (None), not yet (Wait), or not at all: then it raises Rejected."""
        return None

    def before_binding(self, pod: PodInfo, node_name: str) -> Callable[[], Awaitable[None]] | None:
        """What must be done before the pod is bound, if anything. It raises BindingRefused."""
        return None

    async def bind(self, pod: PodInfo, node_name: str) -> bool:
        """Write that the pod is on the node; False leaves it to the next. It raises APIError or BindingRefused."""
        return False

    def after_binding(self, pod: PodInfo, node_name: str) -> None:
        """It is bound."""


class Outside(Step):
    """One aspect of the choice of a node, about other objects than nodes and pods."""

    filters = True

    def prepare(self, pod: PodInfo) -> Any:
        """What `filter` will need; None when every node will do; a Refusal when none will, whatever it is."""
        raise NotImplementedError

    def filter(self, prepared: Any, node: NodeInfo) -> Refusal | None:
        raise NotImplementedError


def extends(kind: type[Aspect], point: str) -> bool:
    """Whether a plugin has something to do at a point."""
    if point in ("preFilter", "filter"):
        return kind.filters
    if point in ("preScore", "score"):
        return kind.weight > 0
    method = POINTS[point]
    return issubclass(kind, Step) and getattr(kind, method, None) is not getattr(Step, method, None)


class Unschedulable(Exception):
    """No node will do. The messages are upstream's, word for word."""

    def __init__(
        self, refusals: Sequence[tuple[NodeInfo, Refusal]], nodes: int, *, whole: bool = False, also: str = ""
    ) -> None:
        """`whole`: the pod itself was refused, no node was looked at. `also` has refused without saying why."""
        self._whole = refusals[0][1].reasons[0] if whole and refusals else ""
        self.plugins = frozenset((*(refusal.plugin for _, refusal in refusals), *filter(None, (also,))))
        self.curable = [node for node, refusal in refusals if refusal.curable]
        """Nodes where it would help if pods went."""
        self._nodes = nodes
        self._helpless = len(refusals) - len(self.curable)
        self._reasons = Counter(reason for _, refusal in refusals for reason in refusal.reasons)
        super().__init__(self.message())

    def message(self) -> str:
        """Why, when nobody can give way."""
        preemption = Counter(
            {
                "Preemption is not helpful for scheduling": self._helpless,
                "No preemption victims found for incoming pod": len(self.curable),
            }
        )
        return self.message_with(f"0/{self._nodes} nodes are available: {_counted(+preemption)}.")

    def message_with(self, preemption: str) -> str:
        """Why, and what became of the thought that others could give way ("": they do)."""
        if not self._nodes:
            return "no nodes available to schedule pods"
        refused = f"0/{self._nodes} nodes are available: {self._whole or _counted(self._reasons)}."
        return f"{refused} no new claims to deallocate, preemption: {preemption}" if preemption else refused


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))


def reversed_by_most(scores: Sequence[float]) -> list[float]:
    """Scores that count what is bad: the most is 0, none is SCORE_MAX."""
    most = max(scores, default=0)
    return [SCORE_MAX] * len(scores) if not most else [SCORE_MAX - int(SCORE_MAX * score / most) for score in scores]


def by_most(scores: Sequence[float]) -> list[float]:
    """Scores that count what is good: the most is SCORE_MAX."""
    most = max(scores, default=0)
    return list(scores) if not most else [int(SCORE_MAX * score / most) for score in scores]
