"""The registry: one entry a kind. What is served, under which names, how it is shown and by which rules it changes.

To add a kind: a type (knarr/api/<group>/<version>.py), a strategy beside it where the default one does not do, and one
entry in its group's `resources.py`. Discovery, OpenAPI, printed tables, selectors and the client all read this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from knarr.api import names
from knarr.api.errors import Cause

T = TypeVar("T")


class Column(Struct, frozen=True):
    """A column of `kubectl get`. `cell` takes the typed object and the time (s); priority 1 shows with -o wide."""

    name: str
    cell: Callable[[Any, float], Any]
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


class Strategy(Generic[T]):
    """How objects of a kind are born and change. The defaults do for plain kinds.

    A function owns its `obj`: it was decoded for this request and may be changed in place. `old` is what is stored and
    is never changed. The order of a write: `default`, `prepare_for_create|update`, admission, `validate`,
    `validate_update`.
    """

    name_faults: Callable[[str], list[str]] = staticmethod(names.dns1123_subdomain_faults)
    """What is wrong with a metadata.name (and the base of a generateName)."""
    has_status: bool = False
    """Status is written by the status subresource only; a main write keeps the old one."""
    status_at_creation: bool = False
    """A status that comes with a new object is kept (nodes register with theirs)."""
    has_generation: bool = False
    """metadata.generation is 1 at creation and rises when the spec changes."""
    allow_create_on_update: bool = False
    allow_unconditional_update: bool = True
    returns_deleted: bool = False
    """DELETE answers the object itself once it is gone (pods, services), not a Status."""

    def default(self, obj: T) -> None:
        """Fill in what the user left out."""

    def prepare_for_create(self, obj: T) -> None:
        """Clear what a client may not set. Called with an empty status."""

    def renamed(self, obj: T, before: str) -> None:
        """The generated name was taken, and the object has another: for kinds whose names stand in their specs."""

    def prepare_for_update(self, obj: T, old: T) -> None:
        """Carry over from `old` what a client may not change. Called after the generic carrying over of status."""

    def prepare_for_status_update(self, obj: T, old: T) -> None:
        """Called after the generic carrying over of spec and metadata (but labels, annotations as upstream does)."""

    def validate(self, obj: T) -> Iterable[Cause]:
        """Faults of an object to be created; of an update as well, before `validate_update`."""
        return ()

    def validate_create(self, obj: T) -> Iterable[Cause]:
        """Faults of an object to be created only, after `validate`."""
        return ()

    def validate_update(self, obj: T, old: T) -> Iterable[Cause]:
        """Faults of the change (immutable fields)."""
        return ()

    def validate_status_update(self, obj: T, old: T) -> Iterable[Cause]:
        return ()

    def prepare_for_part_update(self, part: str, obj: T, old: T) -> None:
        """Carry over from `old` all but the part that a subresource is about (approval, resize, …)."""

    def validate_part_update(self, part: str, obj: T, old: T) -> Iterable[Cause]:
        """Faults of such a change."""
        return ()

    def fields(self, obj: T) -> Mapping[str, str]:
        """Values of the fields that a field selector may name, besides metadata.name and metadata.namespace."""
        return {}

    field_names: Sequence[str] = ()
    """The names of those fields."""

    divided_by: str = ""
    """The one of them by which objects are divided among those who watch them, as pods are among nodes: who watches
    one place's is not woken by the others'."""

    def graceful_period_s(self, obj: T, asked: int | None) -> int | None:
        """None: gone at once. A number: marked for deletion, gone when somebody deletes with 0 (pods)."""
        return None

    def warnings(self, obj: T, old: T | None) -> Iterable[str]:
        """Advice that goes out as Warning headers."""
        return ()


class Conversion(Struct, frozen=True):
    """How a version of a kind that is kept as another version of it (or as another kind) is read and written."""

    kept_as: type[Any]
    """The type in the store; it is served too, and its strategy's rules hold for every write."""
    to_kept: Callable[[Any], Any]
    from_kept: Callable[[Any], Any]


class Resource(Struct, frozen=True):
    """One kind as it is served."""

    type: type[Any]
    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    strategy: Strategy[Any] = field(default_factory=Strategy)
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    """status, scale, log, exec, binding, eviction, token, …; status and scale are generic."""
    verbs: tuple[str, ...] = (
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    )
    deprecation: str = ""
    """Advice to everybody who asks for it."""
    columns: tuple[Column, ...] = ()
    """After NAME; AGE is to be listed too. Without any: NAME and AGE (upstream's default table shows Created At)."""
    conversion: Conversion | None = None
    """For a version that is not the one in the store. Only `default`, `validate_create`, `validate_update` and the
    fields of its own strategy are used: before the object becomes what is kept, whose own rules follow."""

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """pods; deployments.apps: names it in keys and messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Its URL path."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def served(kind: type[Any], plural: str, *, namespaced: bool = True, **rest: Any) -> Resource:
    """The entry of a kind: group, version and kind are its type's own, the singular is the kind in small letters."""
    zero = kind()
    group, _, version = zero.api_version.rpartition("/")
    return Resource(kind, group, version, zero.kind, plural, zero.kind.lower(), namespaced, **rest)


class Registry:
    """All resources of a server, found by type, by path and by kind."""

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._by_plural: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        self._by_type: dict[type[Any], Resource] = {}
        self._versions: dict[type[Any], dict[str, Resource]] = {}
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        key = (resource.group, resource.version, resource.plural)
        if key in self._by_plural:
            raise ValueError(f"{resource.qualified} is registered already")
        self._by_plural[key] = resource
        self._by_kind[resource.group, resource.version, resource.kind] = resource
        self._by_type[resource.type] = resource
        kept_as = resource.conversion.kept_as if resource.conversion else resource.type
        self._versions.setdefault(kept_as, {})[resource.group_version] = resource

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_plural.values())

    def by_plural(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_plural.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        return self._by_kind.get((group, version, kind))

    def of(self, kind: type[Any]) -> Resource:
        """The resource that a type is served as. KeyError when it is not served."""
        return self._by_type[kind]

    def versions(self, resource: Resource) -> Mapping[str, Resource]:
        """The versions in which a kind is served, by name (apps/v1)."""
        return self._versions[resource.conversion.kept_as if resource.conversion else resource.type]

    def kept(self, resource: Resource) -> Resource:
        """The resource as which a resource's objects are in the store: itself, but for versions that are converted."""
        return self._by_type[resource.conversion.kept_as] if resource.conversion else resource
