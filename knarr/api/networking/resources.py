"""The kinds of the group networking.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.networking import addresses, ingresses, policies, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.IngressClass,
        "ingressclasses",
        namespaced=False,
        strategy=ingresses.IngressClassRules(),
        columns=ingresses.CLASS_COLUMNS,
    ),
    served(
        v1.Ingress,
        "ingresses",
        short_names=("ing",),
        subresources=("status",),
        strategy=ingresses.IngressRules(),
        columns=ingresses.INGRESS_COLUMNS,
    ),
    served(
        v1.IPAddress,
        "ipaddresses",
        namespaced=False,
        short_names=("ip",),
        strategy=addresses.IPAddressRules(),
        columns=addresses.ADDRESS_COLUMNS,
    ),
    served(
        v1.NetworkPolicy,
        "networkpolicies",
        short_names=("netpol",),
        strategy=policies.NetworkPolicyRules(),
        columns=policies.COLUMNS,
    ),
    served(
        v1.ServiceCIDR,
        "servicecidrs",
        namespaced=False,
        subresources=("status",),
        strategy=addresses.ServiceCIDRRules(),
        columns=addresses.CIDR_COLUMNS,
    ),
)
