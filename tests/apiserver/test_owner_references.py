"""OwnerReferencesPermissionEnforcement, where it is on (hostile input, row 34)."""

from __future__ import annotations

from typing import Any

from knarr.api.registry import built_in
from knarr.apiserver.access import AccessSettings
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.server import APIServer, InProcessTransport, Settings
from knarr.client.client import Client
from tests.apiserver.access import binding, path_of, role, rule, user
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, Door, config_map

ANN = user("ann")


async def opened(*, on: bool) -> Door:
    door = Door()
    settings = Settings(access=AccessSettings(owner_references=on))
    door.server = APIServer(door.store, built_in(), door.clock, settings, tokens=door.tokens)
    door.client = Client(InProcessTransport(door.server), door.server.registry, ADMINISTRATOR)
    await bootstrap(door.client, ["10.96.0.0/16"], ["10.96.0.10"], "127.0.0.1", 6443)
    maker = role("maker", rule("get create update", "configmaps"), namespace="default")
    deleter = role("deleter", rule("delete", "configmaps"), namespace="default")
    finalizer = role("finalizer", rule("update", "configmaps/finalizers", names="owner"), namespace="default")
    for obj in (maker, deleter, finalizer, binding("maker", "Role/maker", "User:ann", namespace="default")):
        await door.done("POST", path_of(obj), obj)
    return door


async def allow(door: Door, name: str) -> None:
    give = binding(name, f"Role/{name}", "User:ann", namespace="default")
    await door.done("POST", path_of(give), give)


def owned(uid: str, name: str = "owned", *, blocks: bool, kind: str = "ConfigMap") -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": kind, "name": "owner", "uid": uid, "blockOwnerDeletion": blocks}
    made = config_map(name)
    made["metadata"]["ownerReferences"] = [owner]
    return made


async def test_owners_are_set_by_those_who_may_delete() -> None:
    door = await opened(on=True)
    uid = (await door.done("POST", CONFIG_MAPS, config_map("owner")))["metadata"]["uid"]
    status, refused = await door("POST", CONFIG_MAPS, owned(uid, blocks=False), user=ANN)
    assert status == 403
    assert refused["message"].startswith(
        'configmaps "owned" is forbidden: cannot set an ownerRef on a resource you can\'t delete'
    )
    await allow(door, "deleter")
    await door.done("POST", CONFIG_MAPS, owned(uid, blocks=False), user=ANN)
    status, refused = await door("POST", CONFIG_MAPS, owned(uid, "two", blocks=True), user=ANN)
    assert (status, refused["message"]) == (
        403,
        'configmaps "two" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you '
        "can't set finalizers on: , <nil>",
    )
    status, _ = await door("PUT", f"{CONFIG_MAPS}/owned", owned(uid, blocks=True), user=ANN)
    assert status == 403
    await allow(door, "finalizer")
    await door.done("PUT", f"{CONFIG_MAPS}/owned", owned(uid, blocks=True), user=ANN)
    status, refused = await door("POST", CONFIG_MAPS, owned(uid, "three", blocks=True, kind="Nothing"), user=ANN)
    assert (status, "cannot find RESTMapping" in refused["message"]) == (403, True)
    await door.store.close()


async def test_it_is_off_by_default() -> None:
    door = await opened(on=False)
    uid = (await door.done("POST", CONFIG_MAPS, config_map("owner")))["metadata"]["uid"]
    await door.done("POST", CONFIG_MAPS, owned(uid, blocks=True), user=ANN)
    await door.store.close()
