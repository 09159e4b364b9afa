"""One Ingress that Envoy refuses is found among many, and the others get what they asked for."""

from __future__ import annotations

import pytest

from knarr.api.networking.v1 import Ingress
from knarr.edge.ingress.picture import key_of
from knarr.edge.ingress.trial import Trial
from tests.edge.ingress.objects import ingress


def made(number: int, generation: int = 1) -> Ingress:
    one = ingress(f"n{number:02}")
    one.metadata.uid, one.metadata.generation = f"uid-{number}", generation
    return one


def tried(trial: Trial, ingresses: list[Ingress], bad: set[tuple[str, int]]) -> tuple[list[str], dict[str, int]]:
    """Go on until nothing changes any more: who was blamed, and what Envoy has."""
    blamed = []
    for _ in range(200):
        included = trial.included(ingresses)
        has = {key_of(each): each.metadata.generation or 0 for each in included}
        if bad & has.items():
            guilty = trial.refused()
            if guilty is not None:
                blamed.append(key_of(guilty))
        elif not trial.accepted():
            return blamed, has
    raise AssertionError("no end")


@pytest.mark.parametrize("numbers", [{0}, {6}, {3, 11}, set(range(16)), {15}])
def test_each_bad_one_is_blamed_once_and_the_good_ones_are_served(numbers: set[int]) -> None:
    ingresses = [made(number) for number in range(16)]
    bad = {(key_of(made(number)), 1) for number in numbers}
    blamed, has = tried(Trial(), ingresses, bad)
    assert sorted(blamed) == sorted(key for key, _ in bad)
    assert sorted(has) == sorted(key_of(each) for each in ingresses if (key_of(each), 1) not in bad)


def test_one_that_becomes_bad_stays_as_it_was_until_it_is_good_again() -> None:
    trial = Trial()
    assert tried(trial, [made(1), made(2)], set()) == ([], {"default/n01": 1, "default/n02": 1})
    bad = {("default/n01", 2)}
    assert tried(trial, [made(1, 2), made(2, 2)], bad) == (["default/n01"], {"default/n01": 1, "default/n02": 2})
    assert tried(trial, [made(1, 2), made(2, 3)], bad) == ([], {"default/n01": 1, "default/n02": 3})
    assert tried(trial, [made(1, 3), made(2, 3)], bad) == ([], {"default/n01": 3, "default/n02": 3})


def test_one_that_was_made_anew_does_not_inherit() -> None:
    trial = Trial()
    tried(trial, [made(1)], set())
    again = made(1, 2)
    again.metadata.uid = "another"
    assert tried(trial, [again], {("default/n01", 2)}) == (["default/n01"], {})
