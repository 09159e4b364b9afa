"""Admission: a chain of small plugins that change and check what is written, after authorization, before the store.

A plugin is a module of this package with one class, and says what it acts on: kinds, operations, subresources.
`built_in.plugins` lists them in upstream's order. `mutate` may change `attributes.obj`, `validate` may only look.
Either refuses by raising an error of knarr.api.errors, or warns by `attributes.warnings`.

What a plugin does not act on costs nothing: the plugins for a resource and an operation are looked up once and kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct, field

from knarr.api.errors import Forbidden
from knarr.api.resources import Resource
from knarr.client.transport import User
from knarr.figures import Distribution, Figure
from knarr.store.contract import Write

REMEMBERED_MAX = 4096
"""Pairs of resource and operation whose plugins are kept; custom resources come and go."""
ALL_OPERATIONS = ("CREATE", "UPDATE", "DELETE", "CONNECT")

Commit = Callable[[Sequence[Write]], Awaitable[int]]
"""commit(writes): put the writes of a request into the store; answers their revision, raises what the store raises."""


class Attributes(Struct):
    """What is about to happen."""

    operation: str
    """CREATE, UPDATE, DELETE or CONNECT."""
    resource: Resource
    namespace: str
    obj: Any
    """The new object; None for DELETE."""
    old: Any
    """The stored object; None for CREATE."""
    user: User
    subresource: str = ""
    dry_run: bool = False
    name: str = ""
    warnings: list[str] = field(default_factory=list)
    """What plugins have to say to the client without refusing."""
    commit: Commit | None = None
    """Set by a plugin whose own writes must be in one commit with the object (quotas)."""

    def refused(self, detail: str, *, named: bool = True) -> Forbidden:
        """403, worded as upstream's. Before a name is generated (`named` False) its base stands for it."""
        name, resource = self.name, self.resource
        if not name and self.obj is not None:
            metadata = self.obj.metadata
            name = metadata.name or metadata.generate_name or ""
            if not named and self.operation == "CREATE":
                name = metadata.generate_name or name
        return Forbidden(
            f'{resource.qualified} "{name or "Unknown"}" is forbidden: {detail}',
            group=resource.group,
            kind=resource.plural,
            name=name,
        )


class Plugin:
    """One rule."""

    name: str = ""
    """Upstream's, where the class has another."""
    kinds: tuple[type[Any], ...] = ()
    """The types that it acts on; none named: all."""
    operations: tuple[str, ...] = ALL_OPERATIONS
    subresources: tuple[str, ...] = ()
    """Those that it acts on, "" is the object itself; none named: all of them, so that nothing slips by."""

    @property
    def named(self) -> str:
        return self.name or type(self).__name__

    def concerns(self, resource: Resource, operation: str, subresource: str) -> bool:
        """Whether it acts on this at all. Asked once for each, the answer is kept."""
        if self.kinds and resource.type not in self.kinds:
            return False
        if self.subresources and subresource not in self.subresources:
            return False
        return operation in self.operations

    async def mutate(self, attributes: Attributes) -> None:
        """Change the object."""

    async def validate(self, attributes: Attributes) -> None:
        """Refuse what may not be."""


DURATION_BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)
"""Of the times that are counted; as upstream's."""
Times = dict[tuple[str, ...], Distribution]


class Step(Struct):
    """Half of a plugin: what to run, and how long it took where it refused nothing."""

    name: str
    run: Callable[[Attributes], Awaitable[None]]
    times: Distribution


class Half(Struct):
    """The plugins that act on a resource and an operation, to change or to validate."""

    kind: str
    steps: tuple[Step, ...]
    times: Distribution
    """Of all steps together, where none refused."""


class Admission:
    """The chain."""

    def __init__(self, plugins: Sequence[Plugin] = (), now_s: Callable[[], float] = lambda: 0.0) -> None:
        """`now_s` is asked before and after each plugin, for /metrics."""
        self.plugins = list(plugins)
        self._now_s = now_s
        self._times: Times = {}
        self._plugin_times: Times = {}
        self._halves: dict[tuple[str, str, str, str], tuple[Half, Half]] = {}

    async def mutate(self, attributes: Attributes) -> None:
        await self._run(self._of(attributes)[0], attributes)

    async def validate(self, attributes: Attributes) -> None:
        await self._run(self._of(attributes)[1], attributes)

    async def _run(self, half: Half, attributes: Attributes) -> None:
        """Run the plugins, and count how long each took and all together."""
        now_s = self._now_s
        began_s = last_s = now_s()
        name = ""
        try:
            for step in half.steps:
                name = step.name
                await step.run(attributes)
                ended_s = now_s()
                step.times.observe(ended_s - last_s)
                last_s = ended_s
        except BaseException:
            ended_s, operation = now_s(), attributes.operation
            _among(self._plugin_times, name, operation, "true", half.kind).observe(ended_s - last_s)
            _among(self._times, operation, "true", half.kind).observe(ended_s - began_s)
            raise
        half.times.observe(last_s - began_s)

    async def admit(self, attributes: Attributes) -> None:
        """Both, for what has no object to be validated in between (DELETE, CONNECT)."""
        await self.mutate(attributes)
        await self.validate(attributes)

    def add(self, plugin: Plugin, *, before: type[Plugin] | None = None) -> None:
        """Put a plugin into the chain: at the end, or before another."""
        places = [index for index, other in enumerate(self.plugins) if before and isinstance(other, before)]
        self.plugins.insert(places[0] if places else len(self.plugins), plugin)
        self._halves.clear()

    def figures(self) -> Iterator[Figure]:
        """How long the chain took, and each plugin of it."""
        labels, name = ("operation", "rejected", "type"), "apiserver_admission_{}_admission_duration_seconds"
        text = "How long all plugins took together, for each half of admission."
        yield Figure("histogram", name.format("step"), text, labels, _counted(self._times))
        text = "How long a plugin took."
        yield Figure("histogram", name.format("controller"), text, ("name", *labels), _counted(self._plugin_times))

    def _of(self, attributes: Attributes) -> tuple[Half, Half]:
        resource = attributes.resource
        key = (resource.group, resource.plural, attributes.operation, attributes.subresource)
        halves = self._halves.get(key)
        if halves is None:
            concerned = [each for each in self.plugins if each.concerns(resource, key[2], key[3])]
            changing = [(each.named, each.mutate) for each in concerned if type(each).mutate is not Plugin.mutate]
            checking = [(each.named, each.validate) for each in concerned if type(each).validate is not Plugin.validate]
            halves = self._half("admit", key[2], changing), self._half("validate", key[2], checking)
            if len(self._halves) >= REMEMBERED_MAX:
                self._halves.clear()
            self._halves[key] = halves
        return halves

    def _half(
        self, kind: str, operation: str, runs: Iterable[tuple[str, Callable[[Attributes], Awaitable[None]]]]
    ) -> Half:
        steps = [Step(name, run, _among(self._plugin_times, name, operation, "false", kind)) for name, run in runs]
        return Half(kind, tuple(steps), _among(self._times, operation, "false", kind))


def _among(times: Times, *labels: str) -> Distribution:
    found = times.get(labels)
    if found is None:
        found = times[labels] = Distribution(DURATION_BOUNDS_S)
    return found


def _counted(times: Times) -> Times:
    """Those of which there are any."""
    return {labels: found for labels, found in times.items() if any(found.counts)}
