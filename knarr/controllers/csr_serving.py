"""Nodes that serve (logs, exec, measurements) get the certificate for it approved, when it is for their own addresses.

Upstream leaves these requests (signer kubernetes.io/kubelet-serving) to a person or to somebody's own approver, for it
can't know whose an address is. Here a request is approved when a node asks for itself, and each name and address in it
is its own by its Node object and no other node's. Others stay undecided, for a person.
"""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.certificates.kubelet import NODE, alternative_names, node_name_of, serving_fault
from knarr.api.certificates.requests import KUBELET_SERVING, RequestFault, parsed
from knarr.api.certificates.v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestStatus,
)
from knarr.api.core.v1 import Node
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc

MESSAGE = "Auto approving kubelet serving certificate: its names are those of the node that asks."


class ServingApproval(Controller):
    """Sets the condition Approved on v1 CertificateSigningRequests of nodes for themselves."""

    name = "kubelet-serving-approver"

    def watch(self) -> None:
        self.requests = self.informer(CertificateSigningRequest)
        self.nodes = self.informer(Node)
        self.on(self.requests, key_of)
        self.on_change(self.nodes, self._waiting_for)

    def _waiting_for(self, old: Node | None, new: Node | None) -> Iterable[str]:
        """A node has told more of its addresses: its request may be decided now."""
        if new is None or (old is not None and _names_of(old) == _names_of(new)):
            return ()
        asker = NODE + (new.metadata.name or "")
        return [key_of(each) for each in self.requests.all() if each.spec.username == asker and _is_open(each)]

    async def reconcile(self, key: str) -> None:
        request = self.requests.get(key)
        if request is None or not _is_open(request):
            return
        node = self.nodes.get(request.spec.username.removeprefix(NODE) if request.spec.username else "")
        if node is None or not is_for_itself(request, node, self.nodes.all()):
            return
        approved = CertificateSigningRequestCondition(
            type="Approved",
            status="True",
            reason="AutoApproved",
            message=MESSAGE,
            last_update_time=utc(self.clock.time_s()),
        )
        status = request.status or CertificateSigningRequestStatus()
        changed = replace(request, status=replace(status, conditions=[*status.conditions, approved]))
        await self.client.update(changed, subresource="approval")


def is_for_itself(request: CertificateSigningRequest, node: Node, nodes: Iterable[Node]) -> bool:
    """Whether a node asks for its own names, and for nobody else's."""
    try:
        found = parsed(request.spec.request)
    except RequestFault:
        return False
    if serving_fault(found, request.spec.usages) or node_name_of(found) != request.spec.username:
        return False
    names = alternative_names(found)
    wanted = {*names["dns"], *(str(address) for address in names["ip"])}
    if not wanted <= _names_of(node):
        return False
    others = [each for each in nodes if each.metadata.name != node.metadata.name]
    return not any(wanted & _names_of(each) for each in others)


def _names_of(node: Node) -> set[str]:
    addresses = node.status.addresses if node.status else []
    return {node.metadata.name or "", *(each.address for each in addresses)}


def _is_open(request: CertificateSigningRequest) -> bool:
    """For this signer, and neither decided nor signed."""
    status = request.status or CertificateSigningRequestStatus()
    decided = bool(status.certificate) or any(each.type in ("Approved", "Denied") for each in status.conditions)
    return request.spec.signer_name == KUBELET_SERVING and not decided
