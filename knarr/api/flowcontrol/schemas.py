"""FlowSchema: what is filled in, refused and shown, and which requests it is about (flowcontrol/v1, KEP-1040)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knarr.api import names
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.flowcontrol.defaults import EXEMPT, MANDATORY_SCHEMAS
from knarr.api.flowcontrol.levels import validate_conditions
from knarr.api.flowcontrol.v1 import (
    FlowSchema,
    FlowSchemaSpec,
    NonResourcePolicyRule,
    PolicyRulesWithSubjects,
    ResourcePolicyRule,
    ServiceAccountSubject,
    Subject,
)
from knarr.api.printing import NONE, age
from knarr.api.resources import Column, Strategy

PRECEDENCE, PRECEDENCE_MAX = 1000, 10000
METHODS = ("ByNamespace", "ByUser")
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
SUBJECTS = {"Group": "group", "ServiceAccount": "service_account", "User": "user"}
"""Kind → where its subject stands."""
JSON_NAMES = {"group": "group", "service_account": "serviceAccount", "user": "user"}


class FlowSchemaRules(Strategy[FlowSchema]):
    has_status = True
    has_generation = True

    def default(self, obj: FlowSchema) -> None:
        spec = obj.spec = obj.spec or FlowSchemaSpec()
        spec.matching_precedence = spec.matching_precedence or PRECEDENCE

    def validate(self, obj: FlowSchema) -> Iterable[Cause]:
        spec, name = obj.spec or FlowSchemaSpec(), obj.metadata.name or ""
        precedence = spec.matching_precedence or 0
        path = "spec.matchingPrecedence"
        if precedence <= 0:
            yield invalid(path, precedence, "must be a positive value")
        if precedence > PRECEDENCE_MAX:
            yield invalid(path, precedence, f"must not be greater than {PRECEDENCE_MAX}")
        if precedence == 1 and name != EXEMPT:
            yield invalid(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1")
        method = spec.distinguisher_method
        if method is not None and method.type not in METHODS:
            yield not_supported("spec.distinguisherMethod.type", method, METHODS)
        level, path = spec.priority_level_configuration.name, "spec.priorityLevelConfiguration.name"
        if not level:
            yield required(path, "must reference a priority level")
        for fault in names.dns1123_subdomain_faults(level) if level else ():
            yield invalid(path, level, fault)
        for index, rule in enumerate(spec.rules):
            yield from _validate_rule(rule, f"spec.rules[{index}]")
        if name in MANDATORY_SCHEMAS and spec != MANDATORY_SCHEMAS[name].spec:
            yield invalid("spec", spec, f"spec of '{name}' must equal the fixed value")

    def validate_status_update(self, obj: FlowSchema, old: FlowSchema) -> Iterable[Cause]:
        return validate_conditions(obj.status.conditions if obj.status else ())


def _validate_rule(rule: PolicyRulesWithSubjects, path: str) -> Iterable[Cause]:
    if not rule.subjects:
        yield required(f"{path}.subjects", "subjects must contain at least one value")
    for index, subject in enumerate(rule.subjects):
        yield from _validate_subject(subject, f"{path}.subjects[{index}]")
    if not rule.resource_rules and not rule.non_resource_rules:
        yield required(path, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for index, resources in enumerate(rule.resource_rules):
        yield from _validate_resources(resources, f"{path}.resourceRules[{index}]")
    for index, urls in enumerate(rule.non_resource_rules):
        yield from _validate_urls(urls, f"{path}.nonResourceRules[{index}]")


def _validate_subject(subject: Subject, path: str) -> Iterable[Cause]:
    if subject.kind not in SUBJECTS:
        yield not_supported(f"{path}.kind", subject.kind, tuple(SUBJECTS))
        return
    own = SUBJECTS[subject.kind]
    field = JSON_NAMES[own]
    about = getattr(subject, own)
    if about is None:
        yield required(f"{path}.{field}", f"{field} is required when subject kind is '{subject.kind}'")
    elif isinstance(about, ServiceAccountSubject):
        yield from _validate_account(about, f"{path}.{field}")
    elif not about.name:
        yield required(f"{path}.{field}.name")
    for kind, other in SUBJECTS.items():
        if other != own and getattr(subject, other) is not None:
            name = JSON_NAMES[other]
            yield forbidden(f"{path}.{name}", f"{name} is forbidden when subject kind is not '{kind}'")


def _validate_account(account: ServiceAccountSubject, path: str) -> Iterable[Cause]:
    if not account.name:
        yield required(f"{path}.name")
    for fault in names.dns1123_subdomain_faults(account.name) if account.name not in ("", "*") else ():
        yield invalid(f"{path}.name", account.name, fault)
    if not account.namespace:
        yield required(f"{path}.namespace", "must specify namespace for service account")
    for fault in names.dns1123_label_faults(account.namespace) if account.namespace else ():
        yield invalid(f"{path}.namespace", account.namespace, fault)


def _validate_verbs(verbs: Sequence[str], path: str) -> Iterable[Cause]:
    if not verbs:
        yield required(path, "verbs must contain at least one value")
    elif "*" in verbs:
        if len(verbs) > 1:
            yield invalid(path, verbs, "if '*' is present, must not specify other verbs")
    elif not set(verbs) <= set(VERBS):
        yield not_supported(path, verbs, VERBS)


def _validate_resources(rule: ResourcePolicyRule, path: str) -> Iterable[Cause]:
    yield from _validate_verbs(rule.verbs, f"{path}.verbs")
    for field, what, listed in (
        ("apiGroups", "api group", rule.api_groups),
        ("resources", "resource", rule.resources),
    ):
        if not listed:
            yield required(f"{path}.{field}", f"resource rules must supply at least one {what}")
        elif len(listed) > 1 and "*" in listed:
            yield invalid(f"{path}.{field}", listed, f"if '*' is present, must not specify other {what}s")
    where = f"{path}.namespaces"
    if not rule.namespaces:
        if not rule.cluster_scope:
            detail = "resource rules that are not cluster scoped must supply at least one namespace"
            yield required(where, detail)
    elif "*" in rule.namespaces:
        if len(rule.namespaces) > 1:
            yield invalid(where, rule.namespaces, "if '*' is present, must not specify other namespaces")
    else:
        for index, namespace in enumerate(rule.namespaces):
            for fault in names.dns1123_label_faults(namespace):
                detail = f"each member of this list must be '*' or a DNS-1123 label; {fault}"
                yield invalid(f"{where}[{index}]", namespace, detail)


def _validate_urls(rule: NonResourcePolicyRule, path: str) -> Iterable[Cause]:
    yield from _validate_verbs(rule.verbs, f"{path}.verbs")
    urls, where = rule.non_resource_urls, f"{path}.nonResourceURLs"
    if not urls:
        yield required(where, "nonResourceURLs must contain at least one value")
    elif "*" in urls:
        if len(urls) > 1:
            yield invalid(where, urls, "if '*' is present, must not specify other non-resource URLs")
    else:
        for index, url in enumerate(urls):
            if fault := _url_fault(url):
                yield invalid(f"{where}[{index}]", url, fault)


def _url_fault(url: str) -> str:
    if not url:
        return "must not be empty"
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not url.endswith("/*")) else ""


def _missing_level(schema: FlowSchema) -> str:
    conditions = schema.status.conditions if schema.status else ()
    return next((each.status or "" for each in conditions if each.type == "Dangling"), "?")


COLUMNS = (
    Column("PriorityLevel", lambda obj, now_s: obj.spec.priority_level_configuration.name if obj.spec else ""),
    Column("MatchingPrecedence", lambda obj, now_s: obj.spec.matching_precedence if obj.spec else 0),
    Column(
        "DistinguisherMethod",
        lambda obj, now_s: obj.spec.distinguisher_method.type if obj.spec and obj.spec.distinguisher_method else NONE,
    ),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
    Column("MissingPL", lambda obj, now_s: _missing_level(obj)),
)
