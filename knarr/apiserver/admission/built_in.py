"""The plugins that an API server has from the start, in upstream's order (AllOrderedPlugins).

To add one: a file with a `Plugin`, and a line here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from knarr.api.core.v1 import LimitRange, Namespace, PersistentVolume, ResourceQuota
from knarr.api.networking.v1 import IngressClass
from knarr.api.node.v1 import RuntimeClass
from knarr.api.scheduling.v1 import PriorityClass
from knarr.api.storage.v1 import StorageClass
from knarr.apiserver.addresses import ServiceAddresses
from knarr.apiserver.admission import Plugin
from knarr.apiserver.admission.externalips import DenyServiceExternalIPs
from knarr.apiserver.admission.index import Index
from knarr.apiserver.admission.ingressclass import DefaultIngressClass
from knarr.apiserver.admission.limitranges import LimitRanger
from knarr.apiserver.admission.namespaces import NamespaceLifecycle
from knarr.apiserver.admission.nodetaints import TaintNodesByCondition
from knarr.apiserver.admission.podsecurity import PodSecurity
from knarr.apiserver.admission.priority import Priority
from knarr.apiserver.admission.resourcequotas import ResourceQuotas
from knarr.apiserver.admission.runtimeclass import RuntimeClasses
from knarr.apiserver.admission.serviceaccounts import ServiceAccountAdmission
from knarr.apiserver.admission.storage import ClaimResize, DefaultStorageClass, StorageProtection
from knarr.apiserver.admission.tolerations import DefaultTolerationSeconds
from knarr.apiserver.admission.topology import PodTopologyLabels
from knarr.clock import Clock
from knarr.store.contract import Store


def plugins(
    store: Store,
    clock: Clock,
    addresses: ServiceAddresses,
    access: Sequence[Plugin] = (),
    without: Collection[str] = (),
) -> list[Plugin]:
    """The chain. What they decide by is shared between them, and read from memory.

    `access` are the plugins that ask who it is that writes; upstream has them in NodeRestriction's place. Those whose
    names are in `without` are switched off.
    """
    namespaces = Index(store, "namespaces", Namespace)
    storage_classes = Index(store, "storageclasses.storage.k8s.io", StorageClass)
    chain = [
        NamespaceLifecycle(namespaces),
        LimitRanger(Index(store, "limitranges", LimitRange)),
        ServiceAccountAdmission(store, clock),
        *access,
        TaintNodesByCondition(),
        PodSecurity(store, clock, namespaces),
        Priority(Index(store, "priorityclasses.scheduling.k8s.io", PriorityClass)),
        DefaultTolerationSeconds(),
        DefaultStorageClass(storage_classes),
        StorageProtection(),
        ClaimResize(storage_classes, Index(store, "persistentvolumes", PersistentVolume)),
        RuntimeClasses(Index(store, "runtimeclasses.node.k8s.io", RuntimeClass)),
        DefaultIngressClass(Index(store, "ingressclasses.networking.k8s.io", IngressClass)),
        DenyServiceExternalIPs(),
        PodTopologyLabels(store),
        addresses,
        ResourceQuotas(store, clock, Index(store, "resourcequotas", ResourceQuota)),
    ]
    return [each for each in chain if each.named not in without]
