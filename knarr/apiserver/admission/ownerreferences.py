"""OwnerReferencesPermissionEnforcement: who makes an object depend on another must be allowed to.

Off unless it is configured, as upstream. Who changes an object's owners must be able to delete it (its owner's
deletion will), and who lets it hold up the deletion of an owner (blockOwnerDeletion) must be able to set that owner's
finalizers.
"""

from __future__ import annotations

from knarr.api.meta.v1 import OwnerReference
from knarr.api.resources import Registry
from knarr.apiserver.action import Action
from knarr.apiserver.admission import Attributes
from knarr.apiserver.admission.refusal import name_of, refusal
from knarr.apiserver.authorize import Authorizer


class OwnerReferences:
    """Looks at metadata.ownerReferences of every kind."""

    def __init__(self, authorizer: Authorizer, registry: Registry) -> None:
        self._authorizer = authorizer
        self._registry = registry

    async def validate(self, attributes: Attributes) -> None:
        """Raises Forbidden."""
        if attributes.obj is None or attributes.operation not in ("CREATE", "UPDATE"):
            return
        if attributes.subresource == "status" and attributes.resource.plural == "pods":
            return
        new: list[OwnerReference] = attributes.obj.metadata.owner_references
        old: list[OwnerReference] = attributes.old.metadata.owner_references if attributes.old is not None else []
        if new == old:
            return
        await self._must_delete(attributes)
        held = {owner.uid for owner in old if owner.block_owner_deletion}
        for owner in new:
            if owner.block_owner_deletion and owner.uid not in held:
                await self._must_finalize(owner, attributes)

    async def _must_delete(self, attributes: Attributes) -> None:
        resource = attributes.resource
        action = Action(
            "delete",
            resource.group,
            resource.version,
            resource.plural,
            attributes.subresource,
            attributes.namespace if resource.namespaced else "",
            name_of(attributes),
        )
        allowed, reason = await self._authorizer.decide(attributes.user, action)
        if not allowed:
            raise refusal(attributes, f"cannot set an ownerRef on a resource you can't delete: {reason}, <nil>")

    async def _must_finalize(self, owner: OwnerReference, attributes: Attributes) -> None:
        group, _, version = owner.api_version.rpartition("/")
        kind = self._registry.by_kind(group, version, owner.kind)
        because = "cannot set blockOwnerDeletion"
        if kind is None:
            detail = f"because cannot find RESTMapping for APIVersion {owner.api_version} Kind {owner.kind}"
            raise refusal(attributes, f"{because} in this case {detail}")
        namespace = attributes.namespace if kind.namespaced else ""
        action = Action("update", group, version, kind.plural, "finalizers", namespace, owner.name)
        allowed, reason = await self._authorizer.decide(attributes.user, action)
        if not allowed:
            refers = "if an ownerReference refers to a resource you can't set finalizers on"
            raise refusal(attributes, f"{because} {refers}: {reason}, <nil>")
