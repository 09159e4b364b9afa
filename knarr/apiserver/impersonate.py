"""Acting as somebody else: the headers Impersonate-User, -Group, -Uid and -Extra-<key> (kubectl --as).

Who may is said by the verb impersonate on users, groups, service accounts, uids and userextras; each name in the
headers is asked for. Without a user there is nobody to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from knarr.api.errors import BadRequest
from knarr.apiserver.action import Action
from knarr.apiserver.authorize import Authorizer
from knarr.client.transport import User

PREFIX = "impersonate-"
EXTRA = "impersonate-extra-"
SEPARATOR = "\n"
"""Between the values of a header that came more than once: no value can contain it."""
AUTHENTICATED, UNAUTHENTICATED, ANONYMOUS = "system:authenticated", "system:unauthenticated", "system:anonymous"
ACCOUNT = "system:serviceaccount:"


def wanted(headers: Mapping[str, str]) -> bool:
    """Whether a request acts as somebody else."""
    return any(name.startswith(PREFIX) for name in headers)


async def impersonated(user: User, headers: Mapping[str, str], authorizer: Authorizer) -> User:
    """Whom `user` acts as. Raises BadRequest, Forbidden."""
    name = headers.get("impersonate-user", "")
    groups = tuple(group for group in headers.get("impersonate-group", "").split(SEPARATOR) if group)
    uid = headers.get("impersonate-uid", "")
    extra = {
        unquote(header[len(EXTRA) :]).lower(): tuple(value.split(SEPARATOR))
        for header, value in headers.items()
        if header.startswith(EXTRA)
    }
    if not name:
        if groups or uid or extra:
            raise BadRequest(f"requested {_listed(groups, uid, extra)} without impersonating a user name")
        return user
    for action in _actions(name, groups, uid, extra):
        await authorizer.authorize(user, action)
    return User(name, _groups(name, groups), uid, extra)


def _actions(name: str, groups: tuple[str, ...], uid: str, extra: Mapping[str, tuple[str, ...]]) -> Iterator[Action]:
    """What must be allowed."""
    namespace, account = _account(name)
    if account:
        yield Action("impersonate", "", "v1", "serviceaccounts", namespace=namespace, name=account)
    else:
        yield Action("impersonate", "", "v1", "users", name=name)
    for group in groups:
        yield Action("impersonate", "", "v1", "groups", name=group)
    for key, values in extra.items():
        for value in values:
            yield Action("impersonate", "authentication.k8s.io", "v1", "userextras", key, name=value)
    if uid:
        yield Action("impersonate", "authentication.k8s.io", "v1", "uids", name=uid)


def _groups(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """With those that come with a name."""
    namespace, account = _account(name)
    if account and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    if AUTHENTICATED in groups or UNAUTHENTICATED in groups:
        return groups
    return (*groups, UNAUTHENTICATED if name == ANONYMOUS else AUTHENTICATED)


def _account(name: str) -> tuple[str, str]:
    """Namespace and name of a service account; empty when the user is none."""
    if not name.startswith(ACCOUNT):
        return "", ""
    namespace, _, account = name[len(ACCOUNT) :].partition(":")
    return (namespace, account) if namespace and account and ":" not in account else ("", "")


def _listed(groups: tuple[str, ...], uid: str, extra: Mapping[str, tuple[str, ...]]) -> str:
    found = [f"group {group}" for group in groups] + ([f"uid {uid}"] if uid else [])
    return ", ".join(found + [f"extra {key}" for key in extra])
