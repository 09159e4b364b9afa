"""What the specification of a Job may not say: of Jobs, and of the templates of CronJobs.

Paths, messages and order are those of upstream's validateJobSpec (pkg/apis/batch/validation). Pod failure policies are
KEP-3329, limits per index KEP-3850, success policies KEP-3998, jobs managed by others KEP-4368.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from knarr.api import names
from knarr.api.batch.indexes import parse_indexes
from knarr.api.batch.v1 import (
    JobSpec,
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyRule,
    SuccessPolicy,
    SuccessPolicyRule,
)
from knarr.api.core.templates import validate_pod_template
from knarr.api.core.v1 import PodSpec
from knarr.api.core.validate_values import validate_not_negative
from knarr.api.errors import Cause, duplicate, invalid, not_supported, required, too_long, too_many

PARALLELISM_MAX = 100_000
"""Of an indexed Job: it bounds the length of status.completedIndexes."""
FAILED_INDEXES_MAX = 100_000
MANY_COMPLETIONS = 100_000
"""Above it, an indexed Job with limits per index must keep the next two."""
PARALLELISM_MAX_OF_MANY = 10_000
FAILED_INDEXES_MAX_OF_MANY = 10_000
FAILURE_RULES_MAX = 20
EXIT_CODES_MAX = 255
CONDITIONS_MAX = 20
SUCCESS_RULES_MAX = 20
SUCCEEDED_INDEXES_LENGTH_MAX = 64 << 10
MANAGED_BY_LENGTH_MAX = 63

_HTTP_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")
"""RFC 3986."""

COMPLETION_MODES = ("NonIndexed", "Indexed")
FAILURE_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
EXIT_CODE_OPERATORS = ("In", "NotIn")
CONDITION_STATUSES = ("False", "True", "Unknown")
REPLACEMENT_POLICIES = ("Failed", "TerminatingOrFailed")


def is_indexed(spec: JobSpec) -> bool:
    return spec.completion_mode == "Indexed"


def default_failure_policy(spec: JobSpec) -> None:
    """A condition is met by being true when nothing else is said."""
    for rule in spec.pod_failure_policy.rules if spec.pod_failure_policy else ():
        for pattern in rule.on_pod_conditions:
            pattern.status = pattern.status or "True"


def validate_job_spec(spec: JobSpec, path: str) -> Iterable[Cause]:
    """All faults but those of the selector, which a CronJob's template has not."""
    for field, value in (
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ):
        yield from validate_not_negative(value, f"{path}.{field}")
    if spec.max_failed_indexes is not None and spec.backoff_limit_per_index is None:
        yield required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if spec.managed_by is not None:
        yield from _validate_manager(spec.managed_by, f"{path}.managedBy")
    yield from _validate_mode(spec, path)
    if spec.pod_failure_policy:
        yield from _validate_failure_policy(spec, spec.pod_failure_policy, f"{path}.podFailurePolicy.rules")
    if spec.success_policy:
        if is_indexed(spec):
            yield from _validate_success_policy(spec, spec.success_policy, f"{path}.successPolicy.rules")
        else:
            yield invalid(f"{path}.successPolicy", spec.success_policy, "requires indexed completion mode")
    if spec.pod_replacement_policy is not None:
        allowed = ("Failed",) if spec.pod_failure_policy else REPLACEMENT_POLICIES
        if spec.pod_replacement_policy not in allowed:
            yield not_supported(f"{path}.podReplacementPolicy", spec.pod_replacement_policy, allowed)
    yield from validate_pod_template(spec.template, f"{path}.template")
    yield from _validate_restarts(spec, f"{path}.template.spec.restartPolicy")


def _validate_restarts(spec: JobSpec, path: str) -> Iterable[Cause]:
    """A pod that always came back would never end: its author has to choose."""
    policy = (spec.template.spec or PodSpec()).restart_policy
    if policy in (None, "", "Always"):
        yield required(path, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield not_supported(path, policy, ("OnFailure", "Never"), in_order=True)
    elif spec.pod_failure_policy and policy != "Never":
        yield invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')


def _validate_mode(spec: JobSpec, path: str) -> Iterable[Cause]:
    if spec.completion_mode is not None and spec.completion_mode not in COMPLETION_MODES:
        yield not_supported(f"{path}.completionMode", spec.completion_mode, COMPLETION_MODES, in_order=True)
    if is_indexed(spec):
        yield from _validate_indexed(spec, path)
    elif spec.completion_mode in (None, "NonIndexed"):
        for field, value in (
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ):
            if value is not None:
                yield invalid(f"{path}.{field}", value, "requires indexed completion mode")


def _validate_indexed(spec: JobSpec, path: str) -> Iterable[Cause]:
    completions, parallelism, failed = spec.completions, spec.parallelism, spec.max_failed_indexes
    if completions is None:
        yield required(f"{path}.completions", "when completion mode is Indexed")
    if parallelism is not None and parallelism > PARALLELISM_MAX:
        detail = f"must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"
        yield invalid(f"{path}.parallelism", parallelism, detail)
    if completions is not None and failed is not None and failed > completions:
        yield invalid(f"{path}.maxFailedIndexes", failed, "must be less than or equal to completions")
    if failed is not None and failed > FAILED_INDEXES_MAX:
        yield invalid(f"{path}.maxFailedIndexes", failed, f"must be less than or equal to {FAILED_INDEXES_MAX}")
    if completions is None or completions <= MANY_COMPLETIONS or spec.backoff_limit_per_index is None:
        return
    if failed is None:
        detail = f"must be specified when completions is above {MANY_COMPLETIONS}"
        yield required(f"{path}.maxFailedIndexes", detail)
    suffix = f"when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
    for field, value, limit in (
        ("parallelism", parallelism, PARALLELISM_MAX_OF_MANY),
        ("maxFailedIndexes", failed, FAILED_INDEXES_MAX_OF_MANY),
    ):
        if value is not None and value > limit:
            yield invalid(f"{path}.{field}", value, f"must be less than or equal to {limit} {suffix}")


def _validate_manager(name: str, path: str) -> Iterable[Cause]:
    """A path with a domain before it: example.com/queue."""
    if not name:
        yield required(path)
        return
    domain, slash, rest = name.partition("/")
    if not slash or not domain or not rest:
        detail = 'must be a domain-prefixed path (such as "acme.io/foo")'
        yield invalid(path, name, detail)
        return
    for fault in names.dns1123_subdomain_faults(domain):
        yield invalid(path, domain, fault)
    if not _HTTP_PATH.fullmatch(rest):
        yield invalid(path, rest, f"Invalid path (regex used for validation is '{_HTTP_PATH.pattern}')")
    if len(name) > MANAGED_BY_LENGTH_MAX:
        yield too_long(path, MANAGED_BY_LENGTH_MAX)


def _validate_failure_policy(spec: JobSpec, policy: PodFailurePolicy, path: str) -> Iterable[Cause]:
    if len(policy.rules) > FAILURE_RULES_MAX:
        yield too_many(path, len(policy.rules), FAILURE_RULES_MAX)
    pod = spec.template.spec or PodSpec()
    containers = {container.name for container in (*pod.containers, *pod.init_containers)}
    for index, rule in enumerate(policy.rules):
        yield from _validate_failure_rule(spec, rule, f"{path}[{index}]", containers)


def _validate_failure_rule(
    spec: JobSpec, rule: PodFailurePolicyRule, path: str, containers: set[str]
) -> Iterable[Cause]:
    if not rule.action:
        yield required(f"{path}.action", _valid_values(FAILURE_ACTIONS))
    elif rule.action == "FailIndex":
        if spec.backoff_limit_per_index is None:
            yield invalid(f"{path}.action", rule.action, "requires the backoffLimitPerIndex to be set")
    elif rule.action not in FAILURE_ACTIONS:
        yield not_supported(f"{path}.action", rule.action, FAILURE_ACTIONS)
    if rule.on_exit_codes:
        yield from _validate_exit_codes(rule.on_exit_codes, f"{path}.onExitCodes", containers)
    if len(rule.on_pod_conditions) > CONDITIONS_MAX:
        yield too_many(f"{path}.onPodConditions", len(rule.on_pod_conditions), CONDITIONS_MAX)
    for index, pattern in enumerate(rule.on_pod_conditions):
        place = f"{path}.onPodConditions[{index}]"
        for fault in names.label_key_faults(pattern.type):
            yield invalid(f"{place}.type", pattern.type, fault)
        if not pattern.status:
            yield required(f"{place}.status", _valid_values(CONDITION_STATUSES))
        elif pattern.status not in CONDITION_STATUSES:
            yield not_supported(f"{place}.status", pattern.status, CONDITION_STATUSES)
    if rule.on_exit_codes and rule.on_pod_conditions:
        detail = "specifying both OnExitCodes and OnPodConditions is not supported"
        yield Cause("FieldValueInvalid", path, f"Invalid value: {detail}")
    if not rule.on_exit_codes and not rule.on_pod_conditions:
        detail = "specifying one of OnExitCodes and OnPodConditions is required"
        yield Cause("FieldValueInvalid", path, f"Invalid value: {detail}")


def _valid_values(values: tuple[str, ...]) -> str:
    quoted = " ".join(f'"{value}"' for value in values)
    return f"valid values: [{quoted}]"


def _validate_exit_codes(
    codes: PodFailurePolicyOnExitCodesRequirement, path: str, containers: set[str]
) -> Iterable[Cause]:
    if not codes.operator:
        yield required(f"{path}.operator", _valid_values(EXIT_CODE_OPERATORS))
    elif codes.operator not in EXIT_CODE_OPERATORS:
        yield not_supported(f"{path}.operator", codes.operator, EXIT_CODE_OPERATORS)
    if codes.container_name is not None and codes.container_name not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        yield invalid(f"{path}.containerName", codes.container_name, detail)
    values = codes.values
    if not values:
        yield invalid(f"{path}.values", values, "at least one value is required")
    elif len(values) > EXIT_CODES_MAX:
        yield too_many(f"{path}.values", len(values), EXIT_CODES_MAX)
    seen: set[int] = set()
    for index, code in enumerate(values):
        if codes.operator == "In" and code == 0:
            yield invalid(f"{path}.values[{index}]", code, "must not be 0 for the In operator")
        if code in seen:
            yield duplicate(f"{path}.values[{index}]", code)
        seen.add(code)
    if values != sorted(values):
        yield invalid(f"{path}.values", values, "must be ordered")


def _validate_success_policy(spec: JobSpec, policy: SuccessPolicy, path: str) -> Iterable[Cause]:
    if not policy.rules:
        yield required(path, "at least one rules must be specified when the successPolicy is specified")
    if len(policy.rules) > SUCCESS_RULES_MAX:
        yield too_many(path, len(policy.rules), SUCCESS_RULES_MAX)
    for index, rule in enumerate(policy.rules):
        yield from _validate_success_rule(spec.completions or 0, rule, f"{path}[{index}]")


def _validate_success_rule(completions: int, rule: SuccessPolicyRule, path: str) -> Iterable[Cause]:
    count, indexes = rule.succeeded_count, rule.succeeded_indexes
    if count is None and indexes is None:
        yield required(path, "at least one of succeededCount or succeededIndexes must be specified")
    named = 0
    if indexes is not None:
        place = f"{path}.succeededIndexes"
        if len(indexes) > SUCCEEDED_INDEXES_LENGTH_MAX:
            yield too_long(place, SUCCEEDED_INDEXES_LENGTH_MAX)
        try:
            named = sum(last - first + 1 for first, last in parse_indexes(indexes, completions))
        except ValueError as fault:
            yield invalid(place, indexes, f"error parsing succeededIndexes: {fault}")
    if count is not None:
        place = f"{path}.succeededCount"
        yield from validate_not_negative(count, place)
        if count > completions:
            detail = f"must be less than or equal to {completions} (the number of specified completions)"
            yield invalid(place, count, detail)
        if indexes is not None and count > named:
            detail = (
                f"must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            )
            yield invalid(place, count, detail)
