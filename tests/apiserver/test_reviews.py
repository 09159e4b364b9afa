"""Questions about access, acting as others, and tokens: by requests, as clients make them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from knarr.apiserver.impersonate import SEPARATOR
from knarr.apiserver.static_tokens import TokenFileError, read_token_file
from knarr.client.transport import Request, User
from tests.apiserver.access import account, binding, node, path_of, role, rule, user
from tests.apiserver.pipeline.door import PODS, Door, open_door, pod
from tests.apiserver.pipeline.door import account as account_object

AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
ANN = user("ann", "devs")
READER = role("reader", rule("get list", "pods"), rule("get", urls="/metrics"))


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door() as opened:
        await opened.done("POST", path_of(READER), READER)
        give = binding("reader", "ClusterRole/reader", "Group:devs", namespace="default")
        await opened.done("POST", path_of(give), give)
        yield opened


def review(kind: str, group: str = "authorization.k8s.io", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{group}/v1", "kind": kind, **fields}


def about(verb: str, resource: str, namespace: str = "default", **more: str) -> dict[str, Any]:
    return {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace, **more}}


# Access reviews


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        (about("list", "pods"), True),
        (about("delete", "pods"), False),
        (about("list", "pods", "kube-system"), False),
        (about("get", "pods", subresource="log"), False),
        ({"nonResourceAttributes": {"verb": "get", "path": "/apis"}}, True),
        ({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}, False),
    ],
)
async def test_what_is_reviewed_is_what_is_decided(door: Door, spec: dict[str, Any], allowed: bool) -> None:
    mine = await door.done(
        "POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", review("SelfSubjectAccessReview", spec=spec), user=ANN
    )
    assert mine["status"]["allowed"] is allowed
    theirs = review("SubjectAccessReview", spec=spec | {"user": "ann", "groups": ["devs", "system:authenticated"]})
    answered = await door.done("POST", f"{AUTHORIZATION}/subjectaccessreviews", theirs)
    assert answered["status"] == mine["status"]
    assert answered["spec"] == theirs["spec"]


async def test_why_is_told(door: Door) -> None:
    body = review("SubjectAccessReview", spec=about("list", "pods") | {"groups": ["devs"]})
    answered = await door.done("POST", f"{AUTHORIZATION}/subjectaccessreviews", body)
    assert answered["status"] == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "reader/default" of ClusterRole "reader" to Group "devs"',
    }
    status, refused = await door("POST", f"{AUTHORIZATION}/subjectaccessreviews", body, user=ANN)
    assert (status, refused["reason"]) == (403, "Forbidden")


async def test_a_service_account_may_what_reviews_of_it_say(door: Door) -> None:
    """Conformance: SubjectReview, API Operations."""
    await door.done("POST", ACCOUNTS, account_object("robot"))
    robot = account("default", "robot")
    spec = about("list", "pods") | {"user": robot.name, "groups": list(robot.groups)}
    place = f"{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews"
    for expected in (False, True):
        both = [
            await door.done("POST", f"{AUTHORIZATION}/subjectaccessreviews", review("SubjectAccessReview", spec=spec)),
            await door.done("POST", place, review("LocalSubjectAccessReview", spec=spec)),
        ]
        assert [each["status"]["allowed"] for each in both] == [expected, expected]
        assert ((await door("GET", PODS, user=robot))[0] == 200) is expected
        if not expected:
            give = binding("robot", "ClusterRole/reader", "ServiceAccount:robot", namespace="default")
            await door.done("POST", path_of(give), give)


URL = {"nonResourceAttributes": {"verb": "get", "path": "/"}}


@pytest.mark.parametrize(
    ("kind", "fields", "field", "detail"),
    [
        ("SelfSubjectAccessReview", {"spec": {}}, "spec.resourceAttributes", "exactly one of nonResourceAttributes or"),
        (
            "SelfSubjectAccessReview",
            {"spec": about("get", "pods") | URL},
            "spec.nonResourceAttributes",
            "cannot be specified in combination with resourceAttributes",
        ),
        ("SelfSubjectAccessReview", {"spec": URL, "metadata": {"name": "a"}}, "metadata", "must be empty"),
        ("SubjectAccessReview", {"spec": URL}, "spec.user", "at least one of user or group must be specified"),
        ("LocalSubjectAccessReview", {"spec": URL | {"user": "a"}}, "spec.nonResourceAttributes", "disallowed on this"),
        (
            "LocalSubjectAccessReview",
            {"spec": about("get", "pods", "other") | {"user": "a"}},
            "spec.resourceAttributes.namespace",
            "must match metadata.namespace",
        ),
    ],
)
async def test_a_question_must_make_sense(
    door: Door, kind: str, fields: dict[str, Any], field: str, detail: str
) -> None:
    within = "namespaces/default/" if kind.startswith("Local") else ""
    status, refused = await door("POST", f"{AUTHORIZATION}/{within}{kind.lower()}s", review(kind, **fields))
    assert status == 422
    assert [cause["field"] for cause in refused["details"]["causes"]] == [field]
    assert detail in refused["message"]


async def test_all_rules_of_a_user_are_listed(door: Door) -> None:
    place = f"{AUTHORIZATION}/selfsubjectrulesreviews"
    body = review("SelfSubjectRulesReview", spec={"namespace": "default"})
    status = (await door.done("POST", place, body, user=ANN))["status"]
    assert {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]} in status["resourceRules"]
    assert any("/apis" in each["nonResourceURLs"] for each in status["nonResourceRules"])
    assert status["incomplete"] is False
    everything = (await door.done("POST", place, body))["status"]
    assert {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in everything["resourceRules"]
    assert (await door.done("POST", place, body, user=node("n")))["status"]["incomplete"] is True
    assert (await door("POST", place, review("SelfSubjectRulesReview", spec={})))[0] == 400


async def test_reviews_are_asked_and_never_kept(door: Door) -> None:
    revision = door.store.revision
    place = f"{AUTHORIZATION}/selfsubjectaccessreviews"
    await door.done("POST", place, review("SelfSubjectAccessReview", spec=URL))
    assert door.store.revision == revision
    for method in ("GET", "DELETE"):
        assert (await door(method, place))[0] == 405


async def test_whoami(door: Door) -> None:
    body = review("SelfSubjectReview", "authentication.k8s.io")
    who = User("ann", ("devs", "system:authenticated"), "u1", {"a": ("b",)})
    answered = await door.done("POST", f"{AUTHENTICATION}/selfsubjectreviews", body, user=who)
    assert answered["status"]["userInfo"] == {
        "username": "ann",
        "uid": "u1",
        "groups": ["devs", "system:authenticated"],
        "extra": {"a": ["b"]},
    }


# Acting as somebody else


async def acting(door: Door, who: User, **headers: str) -> tuple[int, Any]:
    """Status, and who one is then."""
    named = {"accept": "application/json", "content-type": "application/json"}
    named |= {f"impersonate-{name.replace('_', '-')}": value for name, value in headers.items()}
    body = msgspec.json.encode(review("SelfSubjectReview", "authentication.k8s.io"))
    place = f"{AUTHENTICATION}/selfsubjectreviews"
    answer = await door.server.handle(Request("POST", place, {}, named, body, who))
    data = msgspec.json.decode(answer.body)
    return answer.status, data["status"]["userInfo"] if answer.status == 201 else data


ROOT = user("root", "system:masters")


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"user": "bob"}, {"username": "bob", "groups": ["system:authenticated"]}),
        (
            {"user": "bob", "group": SEPARATOR.join(("devs", "ops"))},
            {"username": "bob", "groups": ["devs", "ops", "system:authenticated"]},
        ),
        (
            {"user": "system:serviceaccount:a:b"},
            {
                "username": "system:serviceaccount:a:b",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            },
        ),
        (
            {"user": "bob", "uid": "7", "extra_scopes": SEPARATOR.join(("x", "y")), "extra_a%2Fb": "c"},
            {
                "username": "bob",
                "uid": "7",
                "groups": ["system:authenticated"],
                "extra": {"scopes": ["x", "y"], "a/b": ["c"]},
            },
        ),
    ],
)
async def test_who_may_act_as_others_is_them(door: Door, headers: dict[str, str], wanted: dict[str, Any]) -> None:
    headers = {name.replace("extra_", "extra-"): value for name, value in headers.items()}
    assert await acting(door, ROOT, **headers) == (201, wanted)


async def test_an_anonymous_user_may_be_played(door: Door) -> None:
    status, refused = await acting(door, ROOT, user="system:anonymous")
    assert (status, 'User "system:anonymous" cannot create' in refused["message"]) == (403, True)


@pytest.mark.parametrize("headers", [{"group": "devs"}, {"uid": "7"}, {"extra-a": "b"}])
async def test_without_a_user_there_is_nobody_to_be(door: Door, headers: dict[str, str]) -> None:
    """Hostile input, row 36."""
    status, refused = await acting(door, ROOT, **headers)
    assert (status, refused["reason"]) == (400, "BadRequest")
    assert "without impersonating a user" in refused["message"]


async def test_each_part_of_somebody_is_a_right_of_its_own(door: Door) -> None:
    some = role(
        "some",
        rule("impersonate", "users", names="bob"),
        rule("impersonate", "groups", names="devs"),
        rule("impersonate", "userextras/scopes", "authentication.k8s.io", names="x"),
        rule("impersonate", "uids", "authentication.k8s.io", names="7"),
    )
    local = role("local", rule("impersonate", "serviceaccounts"), namespace="default")
    for obj in (
        some,
        local,
        binding("some", "ClusterRole/some", "User:ann"),
        binding("local", "Role/local", "User:ann", namespace="default"),
    ):
        await door.done("POST", path_of(obj), obj)
    for headers in (
        {"user": "bob"},
        {"user": "bob", "group": "devs", "uid": "7", "extra-scopes": "x"},
        {"user": "system:serviceaccount:default:robot"},
    ):
        assert (await acting(door, ANN, **headers))[0] == 201, headers
    for headers, message in (
        ({"user": "eve"}, 'users "eve" is forbidden: User "ann" cannot impersonate resource "users" in API group ""'),
        ({"user": "bob", "group": "system:masters"}, 'groups "system:masters" is forbidden'),
        ({"user": "bob", "uid": "8"}, 'uids.authentication.k8s.io "8" is forbidden'),
        ({"user": "bob", "extra-scopes": "z"}, 'cannot impersonate resource "userextras/scopes"'),
        ({"user": "system:serviceaccount:kube-system:robot"}, 'in the namespace "kube-system"'),
    ):
        status, refused = await acting(door, ANN, **headers)
        assert (status, message in refused["message"]) == (403, True), refused


# Tokens


async def token_of(door: Door, name: str = "default", **spec: Any) -> str:
    body = review("TokenRequest", "authentication.k8s.io", spec=spec)
    token: str = (await door.done("POST", f"{ACCOUNTS}/{name}/token", body))["status"]["token"]
    return token


async def reviewed(door: Door, token: str, **spec: Any) -> dict[str, Any]:
    body = review("TokenReview", "authentication.k8s.io", spec={"token": token, **spec})
    status: dict[str, Any] = (await door.done("POST", f"{AUTHENTICATION}/tokenreviews", body))["status"]
    return status


async def test_a_new_token_passes_its_review(door: Door) -> None:
    """Conformance: ServiceAccount, create and review token."""
    await door.done("POST", ACCOUNTS, account_object("robot"))
    status = await reviewed(door, await token_of(door, "robot"))
    assert status["authenticated"] is True
    assert "error" not in status
    assert status["user"]["username"] == "system:serviceaccount:default:robot"
    assert status["user"]["groups"] == [
        "system:serviceaccounts",
        "system:serviceaccounts:default",
        "system:authenticated",
    ]
    (identity,) = status["user"]["extra"]["authentication.kubernetes.io/credential-id"]
    assert identity.startswith("JTI=")


async def test_audiences_are_looked_at(door: Door) -> None:
    token = await token_of(door, audiences=["vault", "other"])
    assert "authenticated" not in await reviewed(door, token)
    assert "invalid for the target audiences" in (await reviewed(door, token))["error"]
    assert (await reviewed(door, token, audiences=["vault", "x"]))["audiences"] == ["vault"]
    own = await token_of(door)
    assert (await reviewed(door, own))["audiences"] == list(door.tokens.audiences)
    assert "authenticated" not in await reviewed(door, own, audiences=["vault"])
    assert (await door("GET", "/apis", user=None, token=token))[0] == 401


@pytest.mark.parametrize("token", ["x", "abcdef.0123456789abcdef", "a.b.c", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0."])
async def test_a_bad_token_is_told_apart(door: Door, token: str) -> None:
    status = await reviewed(door, token)
    assert status.get("authenticated", False) is False
    assert status["error"]
    assert (await door("GET", "/apis", user=None, token=token))[0] == 401


async def test_a_review_needs_a_token(door: Door) -> None:
    body = review("TokenReview", "authentication.k8s.io", spec={"token": ""})
    assert (await door("POST", f"{AUTHENTICATION}/tokenreviews", body))[0] == 400


SECRETS = "/api/v1/namespaces/default/secrets"
NODES = "/api/v1/nodes"


def secret(name: str, kind: str = "Opaque", **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": encoded}


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("Pod", PODS, pod("web")),
        ("Secret", SECRETS, secret("web")),
        ("Node", NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "web"}}),
    ],
)
async def test_a_token_ends_with_what_it_is_bound_to(door: Door, kind: str, path: str, body: dict[str, Any]) -> None:
    made = await door.done("POST", path, body)
    bound = {"apiVersion": "v1", "kind": kind, "name": "web"}
    token = await token_of(door, boundObjectRef=bound | {"uid": made["metadata"]["uid"]})
    status = await reviewed(door, token)
    assert status["authenticated"]
    if kind != "Secret":
        assert status["user"]["extra"][f"authentication.kubernetes.io/{kind.lower()}-name"] == ["web"]
    request = review("TokenRequest", "authentication.k8s.io", spec={"boundObjectRef": bound | {"uid": "wrong"}})
    code, refused = await door("POST", f"{ACCOUNTS}/default/token", request)
    assert (code, refused["reason"]) == (409, "Conflict")  # hostile input, row 41
    await door.done("DELETE", f"{path}/web", gracePeriodSeconds="0")
    assert "authenticated" not in await reviewed(door, token)
    assert (await door("POST", f"{ACCOUNTS}/default/token", request))[0] == 404
    made = await door.done("POST", path, body)  # of the same name, but another
    assert "authenticated" not in await reviewed(door, token)


@pytest.mark.parametrize(
    ("bound", "code"),
    [
        ({"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}, 400),
        ({"apiVersion": "apps/v1", "kind": "Pod", "name": "a"}, 400),
        ({"apiVersion": "v1", "kind": "Pod", "name": "none"}, 404),
        ({"apiVersion": "v1", "kind": "Pod", "name": "others"}, 400),
    ],
)
async def test_a_token_is_bound_to_what_it_may_be_only(door: Door, bound: dict[str, Any], code: int) -> None:
    await door.done("POST", ACCOUNTS, account_object("robot"))
    await door.done("POST", PODS, pod("others", serviceAccountName="robot"))
    body = review("TokenRequest", "authentication.k8s.io", spec={"boundObjectRef": bound})
    assert (await door("POST", f"{ACCOUNTS}/default/token", body))[0] == code


async def test_a_token_ends_with_its_account_and_its_time(door: Door) -> None:
    await door.done("POST", ACCOUNTS, account_object("robot"))
    token = await token_of(door, "robot")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["kubernetes.io"]["serviceaccount"]["name"] == "robot"
    assert (await reviewed(door, token))["authenticated"]
    await door.done("DELETE", f"{ACCOUNTS}/robot")
    assert (await reviewed(door, token))["error"] == "service account robot has been deleted"


async def test_the_issuer_tells_how_its_tokens_are_checked(door: Door) -> None:
    """Conformance: OIDC Discovery (ServiceAccountIssuerDiscovery)."""
    robot = account("default", "robot")
    document = await door.done("GET", "/.well-known/openid-configuration", user=robot)
    keys = await door.done("GET", "/openid/v1/jwks", user=robot)
    assert document["jwks_uri"].endswith("/openid/v1/jwks")
    token = await token_of(door)
    key = next(key for key in keys["keys"] if key["kid"] == jwt.get_unverified_header(token)["kid"])
    algorithms = document["id_token_signing_alg_values_supported"]
    claims = jwt.decode(token, jwt.PyJWK(key), algorithms=algorithms, audience=document["issuer"])
    assert claims["iss"] == document["issuer"]
    assert (await door("GET", "/openid/v1/jwks", user=ANN))[0] == 403


async def test_a_token_kept_in_a_secret_lasts_as_long_as_that(door: Door) -> None:
    made = await door.done("POST", ACCOUNTS, account_object("robot"))
    token = door.tokens.legacy("default", "robot", made["metadata"]["uid"], "robot-token")
    kind = "kubernetes.io/service-account-token"
    body = secret("robot-token", kind, token=token)
    body["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "robot"}
    assert "authenticated" not in await reviewed(door, token)
    await door.done("POST", SECRETS, body)
    assert (await reviewed(door, token))["user"]["username"] == "system:serviceaccount:default:robot"
    await door.done("DELETE", f"{SECRETS}/robot-token")
    assert "authenticated" not in await reviewed(door, token)


def bootstrap_token(**changes: str) -> dict[str, Any]:
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    }
    return secret("bootstrap-token-abcdef", "bootstrap.kubernetes.io/token", **(data | changes))


def moment(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_bootstrap_token_opens_the_door(door: Door) -> None:
    await door.done("POST", "/api/v1/namespaces/kube-system/secrets", bootstrap_token(expiration=moment(5)))
    status = await reviewed(door, "abcdef.0123456789abcdef")
    assert status["user"] == {
        "username": "system:bootstrap:abcdef",
        "groups": [
            "system:bootstrappers",
            "system:bootstrappers:kubeadm:default-node-token",
            "system:authenticated",
        ],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"expiration": moment(-1)},
        {"expiration": "soon"},
        {"token-secret": "fedcba9876543210"},
        {"token-id": "fedcba"},
        {"usage-bootstrap-authentication": "false"},
        {"auth-extra-groups": "system:masters"},
    ],
)
async def test_a_bootstrap_token_that_is_wrong_in_one_point_does_not(door: Door, changes: dict[str, str]) -> None:
    await door.done("POST", "/api/v1/namespaces/kube-system/secrets", bootstrap_token(**changes))
    assert "authenticated" not in await reviewed(door, "abcdef.0123456789abcdef")


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text('one,ann,u1,"devs,ops"\n\ntwo,bob,u2\n')
    assert read_token_file(path) == {
        "one": User("ann", ("devs", "ops", "system:authenticated"), "u1"),
        "two": User("bob", ("system:authenticated",), "u2"),
    }
    for wrong in ("one,ann\n", ",ann,u1\n"):
        path.write_text(wrong)
        with pytest.raises(TokenFileError, match="line 1"):
            read_token_file(path)
    with pytest.raises(TokenFileError):
        read_token_file(tmp_path / "none")
