"""What Envoy is told, in which order, and what its answers mean: without an Envoy."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.edge.ingress import wire
from knarr.edge.ingress.xds import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    Built,
    Conversation,
    Rejection,
)


def thing(version: str) -> Built:
    return Built(version, {"type_url": "x", "value": b""})


def wanted(**kinds: dict[str, str]) -> dict[str, dict[str, Built]]:
    names = {"clusters": CLUSTER, "endpoints": ENDPOINTS, "secrets": SECRET, "listeners": LISTENER, "routes": ROUTES}
    return {
        kind: {name: thing(version) for name, version in kinds.get(word, {}).items()} for word, kind in names.items()
    }


class Peer:
    """Envoy's side of a conversation: it confirms what it is told, and asks for what a cluster or listener names."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.told: list[str] = []

    def subscribe(self, kind: str, *names: str) -> None:
        self.conversation.hear({"type_url": wire.TYPE_URL + kind, "resource_names_subscribe": list(names)})

    def take(self, error: str = "") -> str | None:
        """One message; answers its kind and names."""
        message = self.conversation.next()
        if message is None:
            return None
        kind = message["type_url"].removeprefix(wire.TYPE_URL)
        names = [each["name"] for each in message["resources"]]
        said = f"{kind.rpartition('.')[2]} {' '.join([*names, *('-' + name for name in message['removed_resources'])])}"
        self.told.append(said.strip())
        request: dict[str, Any] = {"type_url": message["type_url"], "response_nonce": message["nonce"]}
        if error:
            request["error_detail"] = {"message": error}
        self.rejection = self.conversation.hear(request)
        return kind

    def follow(self) -> list[str]:
        """Take everything as Envoy does: endpoints are asked for once a cluster is there, and so on."""
        told: list[str] = self.told
        told.clear()
        while (message := self.take()) is not None:
            if message == CLUSTER:
                self.subscribe(ENDPOINTS, *self.conversation.wanted[CLUSTER])
                self.subscribe(LISTENER)
            elif message == LISTENER:
                self.subscribe(SECRET, *self.conversation.wanted[SECRET])
                self.subscribe(ROUTES, *self.conversation.wanted[ROUTES])
        return told


def started(**kinds: dict[str, str]) -> Peer:
    peer = Peer(Conversation(wanted(**kinds)))
    peer.subscribe(CLUSTER)
    return peer


WHOLE = {
    "clusters": {"a": "1"},
    "endpoints": {"a": "1"},
    "secrets": {"s": "1"},
    "listeners": {"http": "1"},
    "routes": {"http": "1"},
}


def test_everything_is_told_from_the_back_to_the_front() -> None:
    peer = started(**WHOLE)
    assert peer.follow() == [
        "Cluster a",
        "ClusterLoadAssignment a",
        "Listener http",
        "Secret s",
        "RouteConfiguration http",
    ]
    assert peer.conversation.settled


def test_nothing_wanted_is_told_too_so_that_envoy_need_not_wait() -> None:
    peer = started()
    assert peer.follow() == ["Cluster", "Listener"]
    assert peer.conversation.settled


def test_a_route_waits_for_the_endpoints_of_its_cluster_and_a_cluster_goes_after_its_routes() -> None:
    peer = started(**WHOLE)
    peer.follow()
    peer.conversation.wanted = wanted(
        clusters={"b": "1"},
        endpoints={"b": "1"},
        secrets={"s": "1"},
        listeners={"http": "1"},
        routes={"http": "2"},
    )
    peer.told.clear()
    assert peer.take() == CLUSTER
    assert peer.take() is None  # until Envoy has asked for the endpoints
    assert not peer.conversation.settled
    peer.subscribe(ENDPOINTS, "b")
    while peer.take():
        pass
    assert peer.told == ["Cluster b", "ClusterLoadAssignment b", "RouteConfiguration http", "Cluster -a"]
    assert peer.conversation.settled


def test_a_change_of_endpoints_is_a_message_about_them_alone() -> None:
    peer = started(**{**WHOLE, "clusters": {"a": "1", "b": "1"}, "endpoints": {"a": "1", "b": "1"}})
    peer.follow()
    peer.conversation.wanted = wanted(**{**WHOLE, "clusters": {"a": "1", "b": "1"}, "endpoints": {"a": "2", "b": "1"}})
    assert peer.follow() == ["ClusterLoadAssignment a"]


def test_a_cluster_that_changes_is_told_its_endpoints_again() -> None:
    peer = started(**WHOLE)
    peer.follow()
    peer.conversation.wanted = wanted(**{**WHOLE, "clusters": {"a": "2"}})
    assert peer.follow() == ["Cluster a", "ClusterLoadAssignment a"]


def test_one_message_of_a_kind_is_under_way_at_a_time_and_endpoints_go_beside_their_cluster() -> None:
    """Envoy confirms a cluster only when it has its endpoints."""
    conversation = Conversation(wanted(**WHOLE))
    conversation.hear({"type_url": wire.TYPE_URL + CLUSTER})
    message = conversation.next()
    assert message
    conversation.hear({"type_url": wire.TYPE_URL + LISTENER})
    assert conversation.next() is None
    conversation.hear({"type_url": wire.TYPE_URL + ENDPOINTS, "resource_names_subscribe": ["a"]})
    beside = conversation.next()
    assert beside
    assert beside["type_url"] == wire.TYPE_URL + ENDPOINTS
    conversation.hear({"type_url": message["type_url"], "response_nonce": "an older one"})
    conversation.hear({"type_url": beside["type_url"], "response_nonce": beside["nonce"]})
    assert conversation.next() is None
    conversation.hear({"type_url": message["type_url"], "response_nonce": message["nonce"]})
    listener = conversation.next()
    assert listener
    assert listener["type_url"] == wire.TYPE_URL + LISTENER


def test_what_is_refused_is_named_and_not_sent_again_until_it_changes() -> None:
    peer = started(**{**WHOLE, "clusters": {"good": "1", "bad": "1"}, "endpoints": {"good": "1"}})
    peer.take(error="Error adding/updating cluster(s) bad: too bad")
    assert peer.rejection == Rejection(CLUSTER, ("bad",), "Error adding/updating cluster(s) bad: too bad")
    peer.subscribe(ENDPOINTS, "good")
    assert peer.take() == ENDPOINTS
    assert peer.take() is None
    peer.conversation.wanted = wanted(**{**WHOLE, "clusters": {"good": "1", "bad": "2"}, "endpoints": {"good": "1"}})
    peer.told.clear()
    peer.take()
    assert peer.told == ["Cluster bad"]
    assert not peer.conversation.rejected


def test_an_envoy_that_comes_back_to_a_new_stream_says_what_it_has() -> None:
    conversation = Conversation(wanted(**WHOLE))
    peer = Peer(conversation)
    conversation.hear(
        {"type_url": wire.TYPE_URL + CLUSTER, "initial_resource_versions": {"a": "1", "old": "1"}},
    )
    conversation.hear(
        {
            "type_url": wire.TYPE_URL + ENDPOINTS,
            "resource_names_subscribe": ["a", "old"],
            "initial_resource_versions": {"a": "1", "old": "1"},
        }
    )
    conversation.hear({"type_url": wire.TYPE_URL + LISTENER, "initial_resource_versions": {"http": "1"}})
    while peer.take():
        pass
    assert peer.told == ["Cluster", "Listener", "Cluster -old"]


# The wire


def test_a_message_can_be_read_again() -> None:
    sent = {
        "type_url": "t",
        "nonce": "7",
        "resources": [{"name": "ü", "version": "1", "resource": {"type_url": "u", "value": b"\x00" * 300}}],
        "removed_resources": ["a", "b"],
    }
    message = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
    assert wire.decode(message, wire.encode(message, sent)) == sent


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\xff" * 11, b"\x0b", b"\x80"])
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode("envoy.service.discovery.v3.DeltaDiscoveryRequest", data)


def test_a_field_that_the_table_does_not_have_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        wire.encode(CLUSTER, {"no_such_field": 1})
