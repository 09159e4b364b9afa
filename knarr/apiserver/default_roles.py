"""The roles and bindings that every cluster has, as upstream's 1.36: for users, nodes and components.

Each line is a rule: verbs, groups (`core` is the group without a name), resources, names. Blanks separate.
The roles of single controllers are in `default_controller_roles.py`; `reconcile_roles.py` writes all of them.
"""

from __future__ import annotations

from knarr.api.rbac.v1 import PolicyRule, Subject

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
ALL = f"{READ} {WRITE}"

AGGREGATED = {"admin": "admin", "edit": "edit", "view": "view"}
"""A role → all roles with the label rbac.authorization.k8s.io/aggregate-to-<value> make it up."""
AGGREGATED_TO = {
    "edit": "admin",
    "view": "edit",
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
    "system:aggregated-metrics-reader": "admin edit view",
}
"""A role → the labels that it has."""


def rule(verbs: str, groups: str, resources: str, names: str = "") -> PolicyRule:
    """Lists are sorted, as upstream stores them."""
    return PolicyRule(
        verbs=sorted(verbs.split()),
        api_groups=sorted("" if group == "core" else group for group in groups.split()),
        resources=sorted(resources.split()),
        resource_names=sorted(names.split()),
    )


def urls(paths: str, verbs: str = "get") -> PolicyRule:
    return PolicyRule(verbs=sorted(verbs.split()), non_resource_urls=sorted(paths.split()))


def user(name: str) -> Subject:
    return Subject(api_group="rbac.authorization.k8s.io", kind="User", name=name)


def group(name: str) -> Subject:
    return Subject(api_group="rbac.authorization.k8s.io", kind="Group", name=name)


def account(name: str, namespace: str = "kube-system") -> Subject:
    return Subject(kind="ServiceAccount", name=name, namespace=namespace)


EVENTS = rule("create patch update", "core events.k8s.io", "events")
PUBLIC = "/healthz /livez /readyz /version /version/"
DISCOVERY = f"{PUBLIC} /api /api/* /apis /apis/* /openapi /openapi/*"
MONITORING = "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"
SIGNER = "kubernetes.io/"
JOINING = "system:bootstrappers:kubeadm:default-node-token"
"""The group of tokens by which machines join: kubeadm's, so that its tokens do here."""
WORKLOADS = "daemonsets deployments deployments/scale replicasets replicasets/scale"
DELEGATION = (
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
)


def approver(signer: str) -> tuple[PolicyRule, ...]:
    return (rule("approve", "certificates.k8s.io", "signers", SIGNER + signer),)


def certificate_requests(subresource: str) -> tuple[PolicyRule, ...]:
    return (rule("create", "certificates.k8s.io", f"certificatesigningrequests/{subresource}"),)


CLUSTER_ROLES: dict[str, tuple[PolicyRule, ...]] = {
    "cluster-admin": (rule("*", "*", "*"), urls("*", "*")),
    "system:discovery": (urls(DISCOVERY),),
    "system:public-info-viewer": (urls(PUBLIC),),
    "system:monitoring": (urls(MONITORING),),
    "system:service-account-issuer-discovery": (urls("/.well-known/openid-configuration /openid/v1/jwks"),),
    "system:basic-user": (
        rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        rule("create", "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "admin": (),
    "edit": (),
    "view": (),
    "system:aggregate-to-admin": (
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(ALL, "rbac.authorization.k8s.io", "roles rolebindings"),
    ),
    "system:aggregate-to-edit": (
        rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        rule("impersonate", "core", "serviceaccounts"),
        rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
        rule("create", "core", "pods/eviction"),
        rule(
            WRITE,
            "core",
            "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
            "serviceaccounts services services/proxy",
        ),
        rule("create", "core", "serviceaccounts/token"),
        rule(WRITE, "apps", f"{WORKLOADS} deployments/rollback statefulsets statefulsets/scale"),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "cronjobs jobs"),
        rule(
            WRITE,
            "extensions",
            f"{WORKLOADS} deployments/rollback ingresses networkpolicies replicationcontrollers/scale",
        ),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
        rule(ALL, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
    ),
    # Of upstream's add-on that serves the group.
    "system:aggregated-metrics-reader": (rule(READ, "metrics.k8s.io", "nodes pods"),),
    "system:aggregate-to-view": (
        rule(
            READ,
            "core",
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
            "replicationcontrollers/scale serviceaccounts services services/status",
        ),
        rule(
            READ,
            "core",
            "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
            "resourcequotas resourcequotas/status",
        ),
        rule(READ, "core", "namespaces"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            f"{WORKLOADS} controllerrevisions daemonsets/status deployments/status replicasets/status statefulsets "
            "statefulsets/scale statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
        rule(
            READ,
            "extensions",
            f"{WORKLOADS} daemonsets/status deployments/status ingresses ingresses/status networkpolicies "
            "replicasets/status replicationcontrollers/scale",
        ),
        rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
        rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ),
    "system:heapster": (
        rule(READ, "core", "events namespaces nodes pods"),
        rule(READ, "extensions", "deployments"),
    ),
    "system:node": (
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        rule(READ, "core", "services"),
        rule(f"create {READ}", "core", "nodes"),
        rule("patch update", "core", "nodes/status"),
        rule("patch update", "core", "nodes"),
        rule("create patch update", "core", "events"),
        rule(READ, "core", "pods"),
        rule("create delete", "core", "pods"),
        rule("patch update", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "configmaps secrets"),
        rule("get", "core", "persistentvolumeclaims persistentvolumes"),
        rule("get", "core", "endpoints"),
        rule(f"create {READ}", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("get patch update", "core", "persistentvolumeclaims/status"),
        rule("create", "core", "serviceaccounts/token"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create delete get patch update", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule(f"deletecollection {READ} create update patch delete", "resource.k8s.io", "resourceslices"),
    ),
    "system:node-problem-detector": (
        rule("get", "core", "nodes"),
        rule("patch", "core", "nodes/status"),
        EVENTS,
    ),
    "system:kubelet-api-admin": (
        rule(READ, "core", "nodes"),
        rule("proxy", "core", "nodes"),
        rule(
            "*",
            "core",
            "nodes/checkpoint nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
        ),
    ),
    "knarr:node-network": (  # knarr's own: routes, service rules, DNS and Envoy of a node need everybody's
        rule(READ, "core", "namespaces nodes pods services"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(READ, "networking.k8s.io", "ingressclasses ingresses networkpolicies"),
        urls("/knarr/ingress/certificates"),
    ),
    "system:node-bootstrapper": (rule(f"create {READ}", "certificates.k8s.io", "certificatesigningrequests"),),
    "system:auth-delegator": DELEGATION,
    "system:kube-aggregator": (rule(READ, "core", "endpoints services"),),
    "system:kube-controller-manager": (
        EVENTS,
        rule("create", "coordination.k8s.io", "leases"),
        rule("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
        rule("create", "core", "secrets serviceaccounts"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "configmaps namespaces secrets serviceaccounts"),
        rule("update", "core", "secrets serviceaccounts"),
        *DELEGATION,
        rule("list watch", "*", "*"),
        rule("create", "core", "serviceaccounts/token"),
    ),
    "system:kube-dns": (rule("list watch", "core", "endpoints services"),),
    "system:persistent-volume-provisioner": (
        rule(f"create delete {READ}", "core", "persistentvolumes"),
        rule(f"update {READ}", "core", "persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("watch", "core", "events"),
        EVENTS,
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": certificate_requests("nodeclient"),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": certificate_requests("selfnodeclient"),
    "system:certificates.k8s.io:legacy-unknown-approver": approver("legacy-unknown"),
    "system:certificates.k8s.io:kubelet-serving-approver": approver("kubelet-serving"),
    "system:certificates.k8s.io:kube-apiserver-client-approver": approver("kube-apiserver-client"),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": approver("kube-apiserver-client-kubelet"),
    "system:volume-scheduler": (
        rule(f"patch update {READ}", "core", "persistentvolumes"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule(f"patch update {READ}", "core", "persistentvolumeclaims"),
    ),
    "system:node-proxier": (
        rule("list watch", "core", "endpoints services"),
        rule(READ, "core", "nodes"),
        EVENTS,
        rule("list watch", "discovery.k8s.io", "endpointslices"),
        rule("list watch", "networking.k8s.io", "servicecidrs"),
    ),
    "system:kube-scheduler": (
        EVENTS,
        rule("create", "coordination.k8s.io", "leases"),
        rule("get update", "coordination.k8s.io", "leases", "kube-scheduler"),
        rule(READ, "core", "nodes"),
        rule(f"delete {READ}", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "replicationcontrollers services"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
        *DELEGATION,
        rule(READ, "storage.k8s.io", "csinodes"),
        rule(READ, "core", "namespaces"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule(READ, "storage.k8s.io", "csistoragecapacities"),
        rule(READ, "resource.k8s.io", "deviceclasses"),
        rule(f"patch update {READ}", "resource.k8s.io", "resourceclaims"),
        rule("patch update", "resource.k8s.io", "resourceclaims/status"),
        rule(READ, "resource.k8s.io", "resourceslices"),
        rule("update", "core", "pods/finalizers"),
    ),
}

CLUSTER_BINDINGS: dict[str, tuple[Subject, ...]] = {
    "cluster-admin": (group("system:masters"),),
    "system:monitoring": (group("system:monitoring"),),
    "system:discovery": (group("system:authenticated"),),
    "system:basic-user": (group("system:authenticated"),),
    "system:public-info-viewer": (group("system:authenticated"), group("system:unauthenticated")),
    "system:service-account-issuer-discovery": (group("system:serviceaccounts"),),
    "system:node-proxier": (user("system:kube-proxy"),),
    "system:kube-controller-manager": (user("system:kube-controller-manager"),),
    "system:kube-dns": (account("kube-dns"),),
    "system:kube-scheduler": (user("system:kube-scheduler"),),
    "system:volume-scheduler": (user("system:kube-scheduler"),),
    "knarr:node-network": (group("system:nodes"),),
    "system:node": (),  # Nodes have the Node authorizer; the binding stays so that subjects of old can be seen.
}
"""A cluster role → to whom it is given, by the binding of the same name."""

REQUESTS = "system:certificates.k8s.io:certificatesigningrequests"
JOIN_BINDINGS: dict[str, tuple[str, Subject]] = {
    "kubeadm:kubelet-bootstrap": ("system:node-bootstrapper", group(JOINING)),
    "kubeadm:node-autoapprove-bootstrap": (f"{REQUESTS}:nodeclient", group(JOINING)),
    "kubeadm:node-autoapprove-certificate-rotation": (f"{REQUESTS}:selfnodeclient", group("system:nodes")),
}
"""By which machines join: the name of a binding → the cluster role that it gives, and to whom. As kubeadm has them."""

LEADER = "system::leader-locking-"


def leader_lock(component: str) -> tuple[PolicyRule, ...]:
    return (
        rule("watch", "core", "configmaps"),
        rule("get update", "core", "configmaps", component),
        *((rule(f"create update {READ}", "coordination.k8s.io", "leases"),) if component.endswith("manager") else ()),
    )


ROLES: dict[tuple[str, str], tuple[PolicyRule, ...]] = {
    ("kube-system", "extension-apiserver-authentication-reader"): (
        rule(READ, "core", "configmaps", "extension-apiserver-authentication"),
    ),
    ("kube-system", "system:controller:bootstrap-signer"): (rule(READ, "core", "secrets"),),
    ("kube-system", "system:controller:cloud-provider"): (rule(f"create {READ}", "core", "configmaps"),),
    ("kube-system", "system:controller:token-cleaner"): (rule(f"delete {READ}", "core", "secrets"), EVENTS),
    ("kube-system", f"{LEADER}kube-controller-manager"): leader_lock("kube-controller-manager"),
    ("kube-system", f"{LEADER}kube-scheduler"): leader_lock("kube-scheduler"),
    ("kube-system", "knarr:node-settings"): (rule("get", "core", "configmaps", "knarr-node"),),
    ("kube-public", "kubeadm:bootstrap-signer-clusterinfo"): (rule("get", "core", "configmaps", "cluster-info"),),
    ("kube-public", "system:controller:bootstrap-signer"): (
        rule(READ, "core", "configmaps"),
        rule("update", "core", "configmaps", "cluster-info"),
        EVENTS,
    ),
}

_MANAGER, _SCHEDULER = user("system:kube-controller-manager"), user("system:kube-scheduler")

BINDINGS: dict[tuple[str, str, str], tuple[Subject, ...]] = {
    ("kube-system", "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader"): (
        _MANAGER,
        _SCHEDULER,
    ),
    ("kube-system", f"{LEADER}kube-controller-manager", f"{LEADER}kube-controller-manager"): (
        _MANAGER,
        account("kube-controller-manager"),
        account("leader-election-controller"),
    ),
    ("kube-system", "knarr:node-settings", "knarr:node-settings"): (group("system:nodes"), group(JOINING)),
    ("kube-public", "kubeadm:bootstrap-signer-clusterinfo", "kubeadm:bootstrap-signer-clusterinfo"): (
        user("system:anonymous"),
    ),
    ("kube-system", f"{LEADER}kube-scheduler", f"{LEADER}kube-scheduler"): (_SCHEDULER, account("kube-scheduler")),
    **{
        (namespace, f"system:controller:{name}", f"system:controller:{name}"): (account(name),)
        for namespace, name in (
            ("kube-system", "bootstrap-signer"),
            ("kube-system", "cloud-provider"),
            ("kube-system", "token-cleaner"),
            ("kube-public", "bootstrap-signer"),
        )
    },
}
"""Namespace, name of the binding, name of the role → to whom it is given."""
