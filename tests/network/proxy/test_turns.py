"""Whose turn it is: which service has which counter."""

from __future__ import annotations

from knarr.network.proxy.nft_elements import packed
from knarr.network.proxy.turns import COUNTERS_MAX, SHARED, Turns


def test_no_two_services_share_a_counter_while_there_are_any() -> None:
    turns = Turns()
    chains = [turns.chain((f"default/web{number}", "tcp", False), 3) for number in range(COUNTERS_MAX)]
    assert len(set(chains)) == COUNTERS_MAX
    further = turns.chain(("default/further", "tcp", False), 3)
    assert further.number == SHARED
    assert further.name == "random-tcp-3"
    assert turns.chain(("default/further", "udp", False), 3).number != SHARED, "another protocol has its own"


def test_a_service_keeps_its_counter_while_the_number_of_its_endpoints_stays() -> None:
    turns = Turns()
    one, other = ("default/one", "tcp", False), ("default/other", "tcp", False)
    first = turns.chain(one, 2)
    assert turns.chain(one, 2) == first
    assert turns.chain(one, 3) != first
    assert turns.chain(other, 2) == first, "what is given back goes to the next"
    assert turns.chain(one, 2) != first


def test_chains_are_told_once_and_before_they_are_needed() -> None:
    turns = Turns()
    told = {chain.name for chain in turns.new_chains()}
    assert {"turn-tcp-1-0", "turn-tcp-2-0", "turn-tcp-4-7"} <= told
    turns.chain(("default/web", "tcp", False), 3)
    assert turns.new_chains() == []
    made = turns.chain(("default/web", "sctp", True), 7)
    assert made.name == "local-turn-sctp-7-0"
    assert made in turns.new_chains()
    assert turns.new_chains() == []


def test_chains_are_ready_for_services_that_get_an_endpoint_more_or_one_less() -> None:
    turns = Turns()
    for number in range(20):
        turns.chain((f"default/web{number}", "udp", False), 6)
    turns.prepare()
    turns.new_chains()
    for number in range(20):
        turns.chain((f"default/web{number}", "udp", False), 7)
    for number in range(20):
        turns.chain((f"default/web{number}", "udp", False), 5)
    assert turns.new_chains() == []


def test_a_chain_comes_with_the_one_that_it_goes_on_to() -> None:
    turns = Turns()
    turns.new_chains()
    turns.chain(("default/web", "sctp", True), 3)
    assert "local-turn-sctp-1-0" in {each.name for each in turns.new_chains()}


def test_keys_are_packed_as_the_kernel_keeps_them() -> None:
    assert packed("10.96.0.20 . tcp . 80") == bytes([10, 96, 0, 20, 6, 0, 0, 0, 0, 80, 0, 0])
    assert packed("10.96.0.20 . 80 . 3")[4:] == bytes([0, 80, 0, 0]) + (3).to_bytes(4, "little")
    assert packed("fd96::20 . 80") == bytes.fromhex("fd960000000000000000000000000020") + bytes([0, 80, 0, 0])
