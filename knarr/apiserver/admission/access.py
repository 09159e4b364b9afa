"""The rules of admission that ask who writes: escalation, nodes, certificate requests, owners.

One plugin, so that what none of them is about costs a look-up and no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from knarr.api.certificates.v1 import CertificateSigningRequest
from knarr.api.resources import Registry
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.certificates import CertificateRequests
from knarr.apiserver.admission.escalation import BINDINGS, ROLES, Escalation
from knarr.apiserver.admission.noderestriction import NodeRestriction
from knarr.apiserver.admission.ownerreferences import OwnerReferences
from knarr.apiserver.authorize import Authorizer
from knarr.clock import Clock
from knarr.store.contract import Store

Rule = Callable[[Attributes], Awaitable[None]]


class AccessAdmission(Plugin):
    """Refers each write to the rules for its kind."""

    def __init__(
        self, store: Store, registry: Registry, clock: Clock, authorizer: Authorizer, *, owner_references: bool = False
    ) -> None:
        escalation = Escalation(authorizer)
        requests = CertificateRequests(authorizer, clock)
        self.node_restriction = NodeRestriction(store)
        self._owners = OwnerReferences(authorizer, registry) if owner_references else None
        # Before validation, as upstream: who may not grant something is not told what else is wrong with it.
        self._mutate: dict[type[Any], Rule] = {
            **dict.fromkeys(ROLES, escalation.role),
            **dict.fromkeys(BINDINGS, escalation.binding),
            CertificateSigningRequest: requests.mutate,
        }
        self._validate: dict[type[Any], Rule] = {CertificateSigningRequest: requests.validate}

    async def mutate(self, attributes: Attributes) -> None:
        rule = self._mutate.get(attributes.resource.type)
        if rule is not None:
            await rule(attributes)

    async def validate(self, attributes: Attributes) -> None:
        await self.node_restriction.validate(attributes)
        rule = self._validate.get(attributes.resource.type)
        if rule is not None:
            await rule(attributes)
        if self._owners is not None:
            await self._owners.validate(attributes)
