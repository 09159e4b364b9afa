"""The flow schemas and priority levels that every cluster has (API Priority and Fairness, KEP-1040).

The mandatory ones, `exempt` and `catch-all`, cannot be changed; the suggested ones are kept as they are here unless
somebody says in an annotation of theirs that they should not be.
"""

from __future__ import annotations

from knarr.api.flowcontrol.v1 import (
    ExemptPriorityLevelConfiguration,
    FlowDistinguisherMethod,
    FlowSchema,
    FlowSchemaSpec,
    GroupSubject,
    LimitedPriorityLevelConfiguration,
    LimitResponse,
    NonResourcePolicyRule,
    PolicyRulesWithSubjects,
    PriorityLevelConfiguration,
    PriorityLevelConfigurationReference,
    PriorityLevelConfigurationSpec,
    QueuingConfiguration,
    ResourcePolicyRule,
    ServiceAccountSubject,
    Subject,
    UserSubject,
)
from knarr.api.meta.v1 import ObjectMeta

AUTO_UPDATE = "apf.kubernetes.io/autoupdate-spec"
"""The annotation: "true" while the spec is kept as it is here, "false" from when a person looks after it."""
EXEMPT, CATCH_ALL = "exempt", "catch-all"
EVERYTHING = ResourcePolicyRule(verbs=["*"], api_groups=["*"], resources=["*"], namespaces=["*"], cluster_scope=True)
EVERY_URL = NonResourcePolicyRule(verbs=["*"], non_resource_urls=["*"])
ELECTION_VERBS = ["get", "create", "update"]


def groups(*names: str) -> list[Subject]:
    return [Subject(kind="Group", group=GroupSubject(name=name)) for name in names]


def users(*names: str) -> list[Subject]:
    return [Subject(kind="User", user=UserSubject(name=name)) for name in names]


def system_accounts(*names: str) -> list[Subject]:
    accounts = (ServiceAccountSubject(name=name, namespace="kube-system") for name in names)
    return [Subject(kind="ServiceAccount", service_account=account) for account in accounts]


ANYBODY = groups("system:unauthenticated", "system:authenticated")
CONTROLLER_MANAGER, SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"


def _level(name: str, shares: int, lendable: int, queues: int = 0, hand: int = 0) -> PriorityLevelConfiguration:
    queuing = QueuingConfiguration(queues=queues, hand_size=hand, queue_length_limit=50) if queues else None
    limited = LimitedPriorityLevelConfiguration(
        nominal_concurrency_shares=shares,
        lendable_percent=lendable,
        limit_response=LimitResponse(type="Queue" if queuing else "Reject", queuing=queuing),
    )
    spec = PriorityLevelConfigurationSpec(type="Limited", limited=limited)
    return PriorityLevelConfiguration(metadata=_metadata(name), spec=spec)


def _metadata(name: str) -> ObjectMeta:
    return ObjectMeta(name=name, annotations={AUTO_UPDATE: "true"})


def _schema(
    name: str,
    level: str,
    precedence: int,
    method: str,
    subjects: list[Subject],
    rules: list[ResourcePolicyRule] | None = None,
    urls: list[NonResourcePolicyRule] | None = None,
) -> FlowSchema:
    """Without rules: about all that the subjects ask."""
    if rules is None and urls is None:
        rules, urls = [EVERYTHING], [EVERY_URL]
    spec = FlowSchemaSpec(
        priority_level_configuration=PriorityLevelConfigurationReference(name=level),
        matching_precedence=precedence,
        distinguisher_method=FlowDistinguisherMethod(type=method) if method else None,
        rules=[
            PolicyRulesWithSubjects(subjects=subjects, resource_rules=rules or [], non_resource_rules=urls or []),
        ],
    )
    return FlowSchema(metadata=_metadata(name), spec=spec)


def _rule(
    verbs: list[str], group: str, resources: list[str], *, cluster_scope: bool | None = None
) -> ResourcePolicyRule:
    return ResourcePolicyRule(
        verbs=verbs, api_groups=[group], resources=resources, namespaces=["*"], cluster_scope=cluster_scope
    )


LEASES = _rule(ELECTION_VERBS, "coordination.k8s.io", ["leases"])

LEVELS = (
    PriorityLevelConfiguration(
        metadata=_metadata(EXEMPT),
        spec=PriorityLevelConfigurationSpec(
            type="Exempt", exempt=ExemptPriorityLevelConfiguration(nominal_concurrency_shares=0, lendable_percent=0)
        ),
    ),
    _level(CATCH_ALL, 5, 0),
    _level("system", 30, 33, 64, 6),
    _level("node-high", 40, 25, 64, 6),
    _level("leader-election", 10, 0, 16, 4),
    _level("workload-high", 40, 50, 128, 6),
    _level("workload-low", 100, 90, 128, 6),
    _level("global-default", 20, 50, 128, 6),
)
SCHEMAS = (
    _schema(EXEMPT, EXEMPT, 1, "", groups("system:masters")),
    _schema(CATCH_ALL, CATCH_ALL, 10000, "ByUser", ANYBODY),
    _schema("system-nodes", "system", 500, "ByUser", groups("system:nodes")),
    _schema(
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        groups("system:nodes"),
        [
            _rule(["*"], "", ["nodes", "nodes/status"], cluster_scope=True),
            _rule(["*"], "coordination.k8s.io", ["leases"]),
        ],
    ),
    _schema(
        "probes",
        EXEMPT,
        2,
        "",
        ANYBODY,
        urls=[NonResourcePolicyRule(verbs=["get"], non_resource_urls=["/healthz", "/readyz", "/livez"])],
    ),
    _schema(
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        [*users(CONTROLLER_MANAGER, SCHEDULER), *system_accounts("*")],
        [LEASES],
    ),
    _schema(
        "endpoint-controller",
        "workload-high",
        150,
        "ByUser",
        [
            *users(CONTROLLER_MANAGER),
            *system_accounts("endpoint-controller", "endpointslicemirroring-controller"),
        ],
        [_rule(ELECTION_VERBS, "", ["endpoints"])],
    ),
    _schema(
        "workload-leader-election",
        "leader-election",
        200,
        "ByUser",
        system_accounts("*"),
        [LEASES],
    ),
    _schema("kube-controller-manager", "workload-high", 800, "ByNamespace", users(CONTROLLER_MANAGER)),
    _schema("kube-scheduler", "workload-high", 800, "ByNamespace", users(SCHEDULER)),
    _schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", system_accounts("*")),
    _schema("service-accounts", "workload-low", 9000, "ByUser", groups("system:serviceaccounts")),
    _schema("global-default", "global-default", 9900, "ByUser", ANYBODY),
)
MANDATORY = (EXEMPT, CATCH_ALL)
MANDATORY_LEVELS = {str(each.metadata.name): each for each in LEVELS if each.metadata.name in MANDATORY}
MANDATORY_SCHEMAS = {str(each.metadata.name): each for each in SCHEMAS if each.metadata.name in MANDATORY}
