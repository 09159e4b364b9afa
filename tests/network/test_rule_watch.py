"""Who changed which rules, told by the kernel of a network namespace of the test's own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator

import pytest

from knarr.network.rule_watch import RuleWatch
from tests.network.lab import IS_ROOT

OURS = "add table ip ours; add chain ip ours c; add rule ip ours c accept"
TABLES = ("ours",)


class Rules:
    """A namespace, and a watch over the table `ours` in it."""

    def __init__(self) -> None:
        self.name = f"kr{uuid.uuid4().hex[:8]}"
        self.watch = RuleWatch(f"/run/netns/{self.name}")

    def nft(self, text: str) -> None:
        command = ["nsenter", f"--net=/run/netns/{self.name}", "nft", "-f", "-"]
        subprocess.run(command, input=text.replace("; ", "\n") + "\n", text=True, check=True)

    def write(self, text: str, *, meanwhile: str = "", whole: bool = False) -> bool:
        """We write something, and somebody else may at the same time; answers whether all is as we wrote it."""
        self.watch.begin(TABLES)
        self.nft(text)
        if meanwhile:
            self.nft(meanwhile)
        self.watch.end(TABLES, 1, whole=whole)
        return self.watch.intact(TABLES)


@pytest.fixture
def rules() -> Iterator[Rules]:
    if not IS_ROOT:
        pytest.skip("needs root: makes network namespaces")
    made = Rules()
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        yield made
    finally:
        made.watch.close()
        subprocess.run(["ip", "netns", "del", made.name], check=True)


def test_nothing_is_known_before_everything_is_written(rules: Rules) -> None:
    assert not rules.watch.intact(TABLES)
    assert not rules.write(OURS)
    assert rules.write("flush table ip ours; add rule ip ours c drop", whole=True)
    assert rules.write("add rule ip ours c accept")
    assert rules.watch.intact(TABLES)


@pytest.mark.parametrize("when", ["meanwhile", "later"])
@pytest.mark.parametrize(
    ("change", "intact"),
    [
        ("add table ip theirs; add chain ip theirs c; add rule ip theirs c drop", True),
        ("add table ip theirs; add table inet others", True),
        ("add rule ip ours c drop", False),
        ("flush chain ip ours c", False),
        ("delete table ip ours", False),
        ("flush ruleset", False),
        ("add table ip theirs; add rule ip ours c drop", False),
    ],
)
def test_what_others_do_matters_where_it_is_about_our_table(rules: Rules, when: str, change: str, intact: bool) -> None:
    assert rules.write(OURS, meanwhile=change if when == "meanwhile" else "", whole=True) == (when == "later" or intact)
    if when == "later":
        rules.nft(change)
        assert rules.watch.intact(TABLES) == intact
        if not intact:
            assert not rules.watch.intact(TABLES), "until it is written whole"


def test_it_is_found_out_before_the_next_write_too(rules: Rules) -> None:
    assert rules.write(OURS, whole=True)
    rules.nft("add rule ip ours c drop")
    assert not rules.write("add rule ip ours c accept")
    assert rules.write("flush table ip ours; add rule ip ours c accept", whole=True)
