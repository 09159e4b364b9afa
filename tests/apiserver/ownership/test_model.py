"""Random applies and updates by several managers, against a small model: values, owners and conflicts agree.

The model knows no schema and no sets of fields: an object is a flat map from a path to a scalar, where a path that ends
in "." stands for the item of a list itself. A kind says how a flat map is written as a manifest, and read from one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as some

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import ConfigMap, Pod, Service
from knarr.api.errors import Conflict
from knarr.api.registry import built_in
from knarr.apiserver.ownership.managers import APPLY, UPDATE, Entries, Manager, applied, created, read, updated, written

Flat = dict[tuple[str, ...], Any]
"""Path → value; a path is made of elements as FieldsV1 writes them. Of an item itself: (…, "k:{…}", ".")."""

MANAGERS = ("a", "b", "c")


@dataclass
class Model:
    """Who owns what of what is there, by three rules."""

    values: Flat = field(default_factory=dict)
    owners: dict[tuple[str, str], set[tuple[str, ...]]] = field(default_factory=dict)

    def apply(self, who: str, config: Flat, force: bool) -> set[tuple[str, str]] | None:
        """What is in the way: (manager, path); None when it was done."""
        me = (who, APPLY)
        changed = {path for path, value in config.items() if self.values.get(path) != value}
        conflicts = {
            (name, path) for (name, how), paths in self.owners.items() if (name, how) != me for path in paths & changed
        }
        if conflicts and not force:
            return {(name, shown(path)) for name, path in conflicts}
        others: set[tuple[str, ...]] = set()
        for other, paths in self.owners.items():
            if other != me:
                others |= paths
        gone = self.owners.get(me, set()) - config.keys() - others
        # An item goes with all that is in it, whoever owns that.
        for path in [*gone]:
            if path[-1] == ".":
                gone |= {other for other in self.values if other[: len(path) - 1] == path[:-1]}
        before = dict(self.values)
        self.values = {path: value for path, value in (before | config).items() if path not in gone}
        self._take(changed | (gone & before.keys()), but=me)
        self._own(me, set(config))
        return None

    def update(self, who: str, values: Flat) -> None:
        """Make it all what `values` says."""
        me = (who, UPDATE)
        changed = {path for path, value in values.items() if self.values.get(path) != value}
        removed = self.values.keys() - values.keys()
        self.values = dict(values)
        self._take(changed | removed)
        self._own(me, self.owners.get(me, set()) | changed)

    def _take(self, paths: set[tuple[str, ...]], but: tuple[str, str] | None = None) -> None:
        for other in [*self.owners]:
            if other != but:
                self._own(other, self.owners[other] - paths)

    def _own(self, who: tuple[str, str], paths: set[tuple[str, ...]]) -> None:
        self.owners[who] = paths
        if not paths:
            del self.owners[who]


def shown(path: tuple[str, ...]) -> str:
    """A path as conflicts name it."""
    text = ""
    for element in path:
        if element.startswith("k:"):
            keys = json.loads(element[2:])
            text += "[" + ",".join(f"{name}={json.dumps(keys[name])}" for name in sorted(keys)) + "]"
        elif element.startswith("v:"):
            text += f"[={element[2:]}]"
        elif element != ".":
            text += "." + element[2:]
    return text


def members(fields: Any, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths in a FieldsV1, in the model's form: of maps and lists themselves the model knows nothing."""
    found = set()
    for element, below in fields.items():
        if element == ".":
            if prefix[-1].startswith("k:"):
                found.add((*prefix, "."))
        elif below:
            found |= members(below, (*prefix, element))
        else:
            found.add((*prefix, element))
    return found


# How flat maps are written


@dataclass(frozen=True)
class Kind:
    """A kind, what its random objects are made of, and how they are written."""

    type: type[Any]
    paths: tuple[tuple[str, ...], ...]
    """Scalars that may be there."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Fields of items that are their keys, and whether they are written is chosen with the item."""

    def closed(self, chosen: dict[tuple[str, ...], str]) -> Flat:
        """With the items that the paths are in, and their keys."""
        flat: Flat = {}
        for path, value in chosen.items():
            for end, element in enumerate(path, 1):
                if element.startswith("k:"):
                    flat[(*path[:end], ".")] = True
                    for name, key in json.loads(element[2:]).items():
                        if name != "protocol":
                            flat[(*path[:end], f"f:{name}")] = key
            if path[-1].startswith("v:"):
                flat[path] = True
            elif not path[-1].startswith("k:"):
                flat[path] = value
        return flat


def manifest(flat: Flat) -> dict[str, Any]:
    """A flat map as an object; items in the order in which they came."""
    root: dict[str, Any] = {}
    for path, value in flat.items():
        here: Any = root
        for element, following in zip(path, (*path[1:], ""), strict=True):
            if element == ".":
                break
            make: Callable[[], Any] = list if following[:2] in ("k:", "v:") else dict
            if element.startswith("f:"):
                if not following:
                    here[element[2:]] = value
                else:
                    here = here.setdefault(element[2:], make())
            elif element.startswith("v:"):
                here.append(json.loads(element[2:]))
            else:
                keys = json.loads(element[2:])
                there = [item for item in here if item["#"] == keys]
                if not there:
                    here.append({"#": keys})
                here = there[0] if there else here[-1]
    return clean(root)  # type: ignore[no-any-return]


def clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: clean(part) for name, part in value.items() if name != "#"}
    return [clean(item) for item in value] if isinstance(value, list) else value


def flattened(value: Any, paths: Flat, prefix: tuple[str, ...] = ()) -> Flat:
    """An object as a flat map; how its lists are told apart is seen from the paths that are known."""
    flat: Flat = {}
    if isinstance(value, dict):
        for name, part in value.items():
            flat |= flattened(part, paths, (*prefix, f"f:{name}"))
        return flat
    if not isinstance(value, list):
        return {prefix: value}
    known = {path[len(prefix)] for path in paths if path[: len(prefix)] == prefix and len(path) > len(prefix)}
    names = sorted({name for element in known if element.startswith("k:") for name in json.loads(element[2:])})
    for item in value:
        if not names:
            flat[(*prefix, "v:" + json.dumps(item))] = True
            continue
        keys = {name: item.get(name, "TCP") if name == "protocol" else item[name] for name in names}
        element = "k:" + json.dumps(keys, separators=(",", ":"))
        flat[(*prefix, element, ".")] = True
        flat |= flattened(item, paths, (*prefix, element))
    return flat


POD = ("f:spec", "f:template", "f:spec", "f:containers")
NAMES = tuple(f'k:{{"name":"{name}"}}' for name in "xyz")
KINDS = [
    Kind(ConfigMap, (*tuple(("f:data", f"f:{name}") for name in "pqrs"), ("f:metadata", "f:labels", "f:l"))),
    Kind(
        Deployment,
        (
            ("f:spec", "f:paused"),
            *((*POD, name, "f:image") for name in NAMES),
            *((*POD, NAMES[0], "f:env", name, "f:value") for name in NAMES),
            *(
                (*POD, NAMES[1], "f:ports", f'k:{{"containerPort":{port},"protocol":"TCP"}}', "f:name")
                for port in (80, 443)
            ),
        ),
    ),
    Kind(
        Service,
        (
            *tuple(
                ("f:spec", "f:ports", f'k:{{"port":{port},"protocol":"TCP"}}', f"f:{name}")
                for port in (80, 9000)
                for name in ("name", "targetPort")
            ),
            ("f:spec", "f:type"),
        ),
    ),
    Kind(
        Pod,
        (
            *tuple(("f:metadata", "f:finalizers", f'v:"e.com/{name}"') for name in "pqr"),
            ("f:spec", "f:tolerations"),
            ("f:spec", "f:hostname"),
        ),
    ),
]


@dataclass(frozen=True)
class Step:
    who: str
    chosen: tuple[tuple[tuple[str, ...], str], ...]
    how: str
    """apply, force or update."""


def steps(kind: Kind) -> some.SearchStrategy[list[Step]]:
    chosen = some.dictionaries(some.sampled_from(kind.paths), some.sampled_from(["1", "2"]), max_size=len(kind.paths))
    step = some.builds(
        Step,
        some.sampled_from(MANAGERS),
        chosen.map(lambda each: tuple(each.items())),
        some.sampled_from(["apply", "apply", "force", "update"]),
    )
    return some.lists(step, min_size=1, max_size=8)


RUNS = some.one_of(*(some.tuples(some.just(kind), steps(kind)) for kind in KINDS))
REGISTRY = built_in()


@settings(max_examples=400)
@given(RUNS)
def test_model_and_server_agree_on_values_owners_and_conflicts(run: tuple[Kind, list[Step]]) -> None:
    kind, each_step = run
    resource = REGISTRY.of(kind.type)
    model = Model()
    live: dict[str, Any] = {}
    entries: Entries = {}
    known: Flat = kind.closed(dict.fromkeys(kind.paths, ""))
    for number, step in enumerate(each_step):
        config = kind.closed(dict(step.chosen))
        said = {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": {"name": "o"}}
        body = manifest(config)
        body = said | body | {"metadata": said["metadata"] | body.get("metadata", {})}  # type: ignore[operator]
        if step.how == "update":
            if not live or not entries:
                manager = Manager(step.who, UPDATE, resource.group_version)
                if live:
                    continue  # What nobody owns isn't tracked.
                entries = read(created(manager, resource, msgspec.json.encode(body), number))
            else:
                updated(Manager(step.who, UPDATE, resource.group_version), resource, live, body, entries, number)
            live = body
            model.update(step.who, config)
        else:
            if live and not entries:
                break  # Another test tells of before-first-apply.
            manager = Manager(step.who, APPLY, resource.group_version)
            force = step.how == "force"
            expected = model.apply(step.who, config, force)
            try:
                made = applied(manager, resource, live, body, read(written(entries)), force=force, now_s=number)
            except Conflict as conflict:
                named = {(cause.message.split('"')[1], cause.field) for cause in conflict.causes}
                assert expected == named
                continue
            assert expected is None
            live, entries = made.data, made.entries
        there = {path: value for path, value in flattened(live, known).items() if path in known}
        assert there == model.values
        owners = {
            (entry.manager.name, entry.manager.operation): members(entry.set()) & known.keys()
            for entry in entries.values()
        }
        assert {who: paths for who, paths in owners.items() if paths} == model.owners
