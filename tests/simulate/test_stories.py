"""Every loop has users in the simulated runs: who adds a loop adds a story, or says here why not."""

from __future__ import annotations

from knarr.controllers import ALL
from knarr.controllers.csr_approving import CertificateApproval
from knarr.controllers.csr_cleaner import CertificateCleaner
from tests.simulate.rules import RULES
from tests.simulate.runs import BY_NAME, play
from tests.simulate.stories import STORIES
from tests.simulate.world import OBSERVED, loops_of

WITHOUT_STORY = {
    CertificateApproval: "one write for each request, decided by its key and by who asks: tests/controllers",
    CertificateCleaner: "a request goes hours after it came, and nothing depends on it: tests/controllers",
}


def test_every_loop_is_driven_by_a_story_or_says_why_not() -> None:
    driven = {loop for story in STORIES for loop in loops_of(story.kinds)}
    assert {loop.name for loop in ALL} - {loop.name for loop in driven} == {loop.name for loop in WITHOUT_STORY}


def test_every_story_can_be_played_alone_and_ends_as_declared() -> None:
    assert [str(outcome) for outcome in (play(1, name) for name in sorted(BY_NAME)) if outcome.broken] == []


def test_a_rule_is_about_kinds_that_are_observed() -> None:
    assert all(set(rule.kinds) <= set(OBSERVED) for rule in RULES)
