"""RBAC's rules as plain values: whether one allows an action, and whether some cover others.

"Covers" is what guards against escalation: who hands out rights must hold them. A rule is broken down into its smallest
parts (one verb on one resource, or on one URL); each part must be inside one rule of the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from knarr.api.rbac.v1 import PolicyRule

ALL = "*"


def allows_resource(rule: PolicyRule, verb: str, group: str, resource: str) -> bool:
    """But for resource names. `resource` has its subresource: pods/log."""
    return (
        (verb in rule.verbs or ALL in rule.verbs)
        and (group in rule.api_groups or ALL in rule.api_groups)
        and any(covers_resource(each, resource) for each in rule.resources)
    )


def covers_resource(own: str, wanted: str) -> bool:
    """`*` is everything, `*/scale` that subresource of everything; `pods` doesn't cover `pods/log`."""
    if own in (ALL, wanted):
        return True
    return own.startswith("*/") and wanted.partition("/")[2] == own[2:]


def allows_url(rule: PolicyRule, verb: str, path: str) -> bool:
    return (verb in rule.verbs or ALL in rule.verbs) and any(covers_url(each, path) for each in rule.non_resource_urls)


def covers_url(own: str, wanted: str) -> bool:
    """A trailing `*` covers all that begins like it."""
    return own in (ALL, wanted) or (own.endswith(ALL) and wanted.startswith(own.rstrip(ALL)))


def uncovered(owned: Sequence[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """The parts of `wanted` that `owned` don't give, broken down."""
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(own, part) for own in owned)]


def _parts(rule: PolicyRule) -> Iterator[PolicyRule]:
    for verb in rule.verbs:
        for url in rule.non_resource_urls:
            yield PolicyRule(verbs=[verb], non_resource_urls=[url])
        for group in rule.api_groups:
            for resource in rule.resources:
                base = {"verbs": [verb], "api_groups": [group], "resources": [resource]}
                for name in rule.resource_names:
                    yield PolicyRule(**base, resource_names=[name])
                if not rule.resource_names:
                    yield PolicyRule(**base)


def _covers(own: PolicyRule, part: PolicyRule) -> bool:
    verb = part.verbs[0]
    if part.non_resource_urls:
        return allows_url(own, verb, part.non_resource_urls[0])
    if own.resource_names and not set(part.resource_names) & set(own.resource_names):
        return False
    return allows_resource(own, verb, part.api_groups[0], part.resources[0])


def described(parts: Iterable[PolicyRule]) -> list[str]:
    """Parts as upstream prints them: those that differ only in their verbs are one line."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for part in parts:
        names = part.resource_names[0] if part.resource_names else ""
        key = (*part.api_groups, *part.resources, names) if part.resources else ("", "", "", *part.non_resource_urls)
        merged.setdefault(key, []).extend(part.verbs)
    return sorted(_line(key, verbs) for key, verbs in merged.items())


def _line(key: tuple[str, ...], verbs: list[str]) -> str:
    if len(key) == 4:
        return f"{{NonResourceURLs:{quoted([key[3]])}, Verbs:{quoted(verbs)}}}"
    group, resource, name = key
    names = f", ResourceNames:{quoted([name])}" if name else ""
    return f"{{APIGroups:{quoted([group])}, Resources:{quoted([resource])}{names}, Verbs:{quoted(verbs)}}}"


def quoted(values: Iterable[str]) -> str:
    """As Go prints a list of strings with %q."""
    return "[" + " ".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "]"
