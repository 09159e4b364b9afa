"""What each of upstream's controllers may do: a role system:controller:<name>, bound to its account in kube-system.

Read `default_roles.py` for how a line is to be read.
"""

from __future__ import annotations

from knarr.api.rbac.v1 import PolicyRule
from knarr.apiserver.default_roles import EVENTS, READ, SIGNER, rule

_SIGNERS = " ".join(
    SIGNER + name
    for name in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
)


def _workload(groups: str, plural: str, verbs: str) -> tuple[PolicyRule, ...]:
    """The parts that all who make pods have."""
    return (
        rule(verbs, groups, plural),
        rule("update", groups, f"{plural}/status"),
        rule("update", groups, f"{plural}/finalizers"),
    )


CONTROLLER_ROLES: dict[str, tuple[PolicyRule, ...]] = {
    "attachdetach-controller": (
        rule("list watch", "core", "persistentvolumes persistentvolumeclaims"),
        rule(READ, "core", "nodes"),
        rule("patch update", "core", "nodes/status"),
        rule("list watch", "core", "pods"),
        EVENTS,
        rule(f"create delete {READ}", "storage.k8s.io", "volumeattachments"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule(READ, "storage.k8s.io", "csinodes"),
    ),
    "clusterrole-aggregation-controller": (
        rule(f"escalate patch update {READ}", "rbac.authorization.k8s.io", "clusterroles"),
    ),
    "cronjob-controller": (
        rule(f"update {READ}", "batch", "cronjobs"),
        rule(f"create update delete patch {READ}", "batch", "jobs"),
        rule("update", "batch", "cronjobs/status"),
        rule("update", "batch", "cronjobs/finalizers"),
        rule("list watch delete", "core", "pods"),
        EVENTS,
    ),
    "daemon-set-controller": (
        *_workload("apps extensions", "daemonsets", READ),
        rule("list watch", "core", "nodes"),
        rule("list watch create delete patch", "core", "pods"),
        rule("create", "core", "pods/binding"),
        rule(f"create delete update patch {READ}", "apps", "controllerrevisions"),
        EVENTS,
    ),
    "deployment-controller": (
        *_workload("apps extensions", "deployments", f"update {READ}"),
        rule(f"create update patch delete {READ}", "apps extensions", "replicasets"),
        rule(f"update {READ}", "core", "pods"),
        EVENTS,
    ),
    "disruption-controller": (
        rule(READ, "apps extensions", "deployments"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "core", "replicationcontrollers"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "apps", "statefulsets"),
        rule("update", "policy", "poddisruptionbudgets/status"),
        rule("patch update", "core", "pods/status"),
        rule("get", "*", "*/scale"),
        EVENTS,
    ),
    "endpoint-controller": (
        rule(READ, "core", "pods services"),
        rule(f"create update delete {READ}", "core", "endpoints"),
        rule("create", "core", "endpoints/restricted"),
        EVENTS,
    ),
    "endpointslice-controller": (
        rule(READ, "core", "nodes pods services"),
        rule("update", "core", "services/finalizers"),
        rule(f"create update delete {READ}", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ),
    "endpointslicemirroring-controller": (
        rule(READ, "core", "endpoints services"),
        rule("update", "core", "services/finalizers"),
        rule("update", "core", "endpoints/finalizers"),
        rule(f"create update delete {READ}", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ),
    "expand-controller": (
        rule(f"update patch {READ}", "core", "persistentvolumes"),
        rule("update patch", "core", "persistentvolumeclaims/status"),
        rule(READ, "core", "persistentvolumeclaims"),
        EVENTS,
        rule("get", "core", "services"),
    ),
    "ephemeral-volume-controller": (
        rule(READ, "core", "pods"),
        rule("update", "core", "pods/finalizers"),
        rule(f"create {READ}", "core", "persistentvolumeclaims"),
        EVENTS,
    ),
    "resource-claim-controller": (
        rule(READ, "core", "pods"),
        rule("update", "core", "pods/finalizers"),
        rule(f"create delete {READ}", "resource.k8s.io", "resourceclaims"),
        rule("update patch", "resource.k8s.io", "resourceclaims resourceclaims/status"),
        rule("update patch", "core", "pods/status"),
        EVENTS,
    ),
    "device-taint-eviction-controller": (
        rule(f"delete {READ}", "core", "pods"),
        rule("update patch", "core", "pods/status"),
        rule(READ, "resource.k8s.io", "resourceclaims"),
        rule(READ, "resource.k8s.io", "resourceslices"),
        rule(READ, "resource.k8s.io", "deviceclasses"),
        rule(READ, "resource.k8s.io", "devicetaintrules"),
        EVENTS,
    ),
    "generic-garbage-collector": (rule(f"patch update delete {READ}", "*", "*"), EVENTS),
    "horizontal-pod-autoscaler": (
        rule(READ, "autoscaling", "horizontalpodautoscalers"),
        rule("update", "autoscaling", "horizontalpodautoscalers/status"),
        rule("get update", "*", "*/scale"),
        rule("list watch", "core", "pods"),
        rule("list watch", "metrics.k8s.io", "pods"),
        rule(READ, "custom.metrics.k8s.io", "*"),
        rule(READ, "external.metrics.k8s.io", "*"),
        EVENTS,
    ),
    "job-controller": (
        *_workload("batch", "jobs", f"update patch {READ}"),
        rule("list watch create delete patch", "core", "pods"),
        EVENTS,
    ),
    "namespace-controller": (
        rule(f"delete {READ}", "core", "namespaces"),
        rule("update", "core", "namespaces/finalize namespaces/status"),
        rule(f"delete deletecollection {READ}", "*", "*"),
    ),
    "node-controller": (
        rule(f"update delete patch {READ}", "core", "nodes"),
        rule("patch update", "core", "nodes/status"),
        rule("patch update", "core", "pods/status"),
        rule(f"delete {READ}", "core", "pods"),
        EVENTS,
    ),
    "persistent-volume-binder": (
        rule(f"update create delete {READ}", "core", "persistentvolumes"),
        rule("update", "core", "persistentvolumes/status"),
        rule(f"update {READ}", "core", "persistentvolumeclaims"),
        rule("update", "core", "persistentvolumeclaims/status"),
        rule(f"create delete {READ}", "core", "pods"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("list watch", "core", "nodes"),
        EVENTS,
        rule("watch", "core", "events"),
        rule("get", "core", "services"),
    ),
    "pod-garbage-collector": (
        rule("list watch delete", "core", "pods"),
        rule(READ, "core", "nodes"),
        rule("patch", "core", "pods/status"),
    ),
    "replicaset-controller": (
        *_workload("apps extensions", "replicasets", f"update {READ}"),
        rule("list watch patch create delete", "core", "pods"),
        EVENTS,
    ),
    "replication-controller": (
        *_workload("core", "replicationcontrollers", f"update {READ}"),
        rule("list watch patch create delete", "core", "pods"),
        EVENTS,
    ),
    "resourcequota-controller": (
        rule("list watch", "*", "*"),
        rule("update", "core", "resourcequotas/status"),
        EVENTS,
    ),
    "route-controller": (rule("list watch", "core", "nodes"), rule("patch", "core", "nodes/status"), EVENTS),
    "service-account-controller": (rule("create", "core", "serviceaccounts"), EVENTS),
    "service-controller": (
        rule(READ, "core", "services"),
        rule("patch update", "core", "services/status"),
        rule("list watch", "core", "nodes"),
        EVENTS,
    ),
    "service-cidrs-controller": (
        rule(f"patch update {READ}", "networking.k8s.io", "servicecidrs"),
        rule("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
        rule("patch update", "networking.k8s.io", "servicecidrs/status"),
        rule(READ, "networking.k8s.io", "ipaddresses"),
        EVENTS,
    ),
    "statefulset-controller": (
        rule("list watch", "core", "pods"),
        *_workload("apps", "statefulsets", READ),
        rule("get create delete update patch", "core", "pods"),
        rule(f"create delete update patch {READ}", "apps", "controllerrevisions"),
        rule(f"create {READ}", "core", "persistentvolumeclaims"),
        rule("update delete", "core", "persistentvolumeclaims"),
        rule("update", "core", "pods/finalizers"),
        EVENTS,
    ),
    "ttl-controller": (rule("update patch list watch", "core", "nodes"), EVENTS),
    "certificate-controller": (
        rule(f"delete {READ}", "certificates.k8s.io", "certificatesigningrequests"),
        rule(
            "update",
            "certificates.k8s.io",
            "certificatesigningrequests/approval certificatesigningrequests/status",
        ),
        rule("approve", "certificates.k8s.io", "signers", f"{SIGNER}kube-apiserver-client-kubelet"),
        rule("sign", "certificates.k8s.io", "signers", _SIGNERS),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        EVENTS,
    ),
    "pvc-protection-controller": (
        rule(f"update {READ}", "core", "persistentvolumeclaims"),
        rule(READ, "core", "pods"),
        EVENTS,
    ),
    "pv-protection-controller": (rule(f"update {READ}", "core", "persistentvolumes"), EVENTS),
    "volumeattributesclass-protection-controller": (
        rule(READ, "core", "persistentvolumeclaims"),
        rule(READ, "core", "persistentvolumes"),
        rule(f"update {READ}", "storage.k8s.io", "volumeattributesclasses"),
        EVENTS,
    ),
    "ttl-after-finished-controller": (rule(f"delete {READ}", "batch", "jobs"), EVENTS),
    "rollback-controller": (  # knarr's own
        rule(f"update patch {READ}", "apps", "deployments"),
        rule("update", "apps", "deployments/status"),
        rule(f"patch {READ}", "apps", "replicasets"),
        rule(READ, "core", "pods"),
        rule("get", "core", "pods/proxy"),
        EVENTS,
    ),
    "ingress-controller": (  # knarr's own
        rule(READ, "networking.k8s.io", "ingresses ingressclasses"),
        rule("patch update", "networking.k8s.io", "ingresses/status"),
        EVENTS,
    ),
    "local-volume-provisioner": (  # knarr's own
        rule(f"create update delete {READ}", "core", "persistentvolumes"),
        rule(READ, "core", "persistentvolumeclaims nodes"),
        rule("update", "core", "persistentvolumeclaims/status"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        EVENTS,
    ),
    "kubelet-serving-approver": (  # knarr's own
        rule(READ, "certificates.k8s.io", "certificatesigningrequests"),
        rule("update", "certificates.k8s.io", "certificatesigningrequests/approval"),
        rule("approve", "certificates.k8s.io", "signers", f"{SIGNER}kubelet-serving"),
        rule(READ, "core", "nodes"),
    ),
    "root-ca-cert-publisher": (rule("create update", "core", "configmaps"), EVENTS),
    "validatingadmissionpolicy-status-controller": (
        rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        rule("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
        EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        rule("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        rule("patch delete", "core", "secrets"),
    ),
    "selinux-warning-controller": (
        EVENTS,
        rule(READ, "core", "persistentvolumes"),
        rule(READ, "core", "persistentvolumeclaims"),
        rule(READ, "core", "pods"),
        rule(READ, "storage.k8s.io", "csidrivers"),
    ),
}
