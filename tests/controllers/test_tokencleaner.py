"""Bootstrap tokens that have expired are removed, at that moment; others stay."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import Mock

import pytest

from knarr.api.core.v1 import Secret
from knarr.api.errors import Conflict
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.controller import Controller
from knarr.clock import utc
from knarr.controllers.tokencleaner import TYPE, TokenCleaner, expiration_s
from tests.controllers.loops import Loops, play


def token(name: str, expiration: str, *, namespace: str = "kube-system", type_: str = TYPE) -> Secret:
    data = {"token-id": name.encode(), "token-secret": b"0123456789abcdef", "expiration": expiration.encode()}
    metadata = ObjectMeta(name=f"bootstrap-token-{name}", namespace=namespace)
    return Secret(metadata=metadata, type=type_, data={key: value for key, value in data.items() if value})


def test_a_token_goes_when_it_expires_and_nothing_else_does() -> None:
    def loops(parts: Loops) -> list[Controller]:
        return [TokenCleaner(parts.account("token-cleaner"), parts.informers, parts.clock)]

    async def scenario(parts: Loops) -> None:
        soon = (utc(parts.clock.time_s()) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        past = (utc(parts.clock.time_s()) - timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for each in (
            token("expire", soon),
            token("passed", past),
            token("always", ""),
            token("broken", "one day"),
            token("opaque", past, type_="Opaque"),
            token("others", past, namespace="default"),
        ):
            await parts.client.create(each)

        async def there() -> set[str]:
            secrets = (await parts.client.list(Secret)).items
            return {(each.metadata.name or "").removeprefix("bootstrap-token-") for each in secrets}

        stay = {"always", "opaque", "others"}
        await parts.clock.sleep(50)
        assert await there() == {*stay, "expire"}
        await parts.clock.sleep(15)
        assert await there() == stay

    play(loops, scenario)


def test_a_token_that_was_just_prolonged_stays_though_the_cache_does_not_show_it() -> None:
    async def scenario(parts: Loops) -> None:
        stale = await parts.client.create(token("longer", "2020-01-01T00:00:00Z"))
        await parts.client.update(token("longer", ""))
        cleaner = TokenCleaner(parts.client, parts.informers, parts.clock)
        cleaner.secrets = Mock(get=lambda key: stale)
        with pytest.raises(Conflict):
            await cleaner.reconcile("kube-system/bootstrap-token-longer")

    play(lambda parts: [], scenario)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
        ("1970-01-01T00:01:00", 0.0),
        ("x", 0.0),
        ("", None),
    ],
)
def test_expirations_are_moments(text: str, expected: float | None) -> None:
    assert expiration_s(token("a", text)) == expected
