"""Which user a container runs as."""

from __future__ import annotations

from pathlib import Path

import pytest

from knarr.node.runtime.contract import RuntimeFailure, SecurityContext
from knarr.node.runtime.users import User, check_non_root, resolve


@pytest.fixture
def tree(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\nbroken\n#no:x:1:1::/:\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nlogs:x:50:web,other\nnumbers:x:77:33\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("image_user", "security", "user"),
    [
        ("", {}, User(0, 0, (0,))),
        ("web", {}, User(33, 44, (44, 50))),
        ("33", {}, User(33, 44, (44, 50))),
        ("web:logs", {}, User(33, 50, (50,))),
        ("web:9", {}, User(33, 9, (9,))),
        ("4000", {}, User(4000, 0, (0,))),
        ("web", {"run_as_user": 5}, User(5, 0, (0,))),
        ("web", {"run_as_user": 33}, User(33, 44, (44, 50))),
        ("web", {"run_as_group": 7}, User(33, 7, (7, 50))),
        ("", {"run_as_user": 1, "run_as_group": 2, "supplemental_groups": (3,)}, User(1, 2, (2, 3))),
    ],
)
def test_names_and_numbers_are_resolved_in_the_image(
    tree: str, image_user: str, security: dict[str, object], user: User
) -> None:
    assert resolve(tree, image_user, SecurityContext(**security)) == user  # type: ignore[arg-type]


@pytest.mark.parametrize("image_user", ["nobody", "web:nogroup"])
def test_a_name_that_the_image_does_not_have_is_refused(tree: str, image_user: str) -> None:
    with pytest.raises(RuntimeFailure, match="no matching entries"):
        resolve(tree, image_user, SecurityContext())


def test_an_image_cannot_point_at_the_machines_own_users(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("evil:x:1234:1234::/:/bin/sh\n")
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/passwd").symlink_to(outside)
    with pytest.raises(RuntimeFailure):
        resolve(str(tree), "evil", SecurityContext())


@pytest.mark.parametrize(
    ("image_user", "security", "refused"),
    [
        ("", {}, "image will run as root"),
        ("0:5", {}, "image will run as root"),
        ("web", {}, r"non-numeric user \(web\)"),
        ("", {"run_as_user": 0}, "breaks non-root policy"),
        ("33", {}, None),
        ("", {"run_as_user": 5}, None),
    ],
)
def test_run_as_non_root(image_user: str, security: dict[str, object], refused: str | None) -> None:
    context = SecurityContext(run_as_non_root=True, **security)  # type: ignore[arg-type]
    if refused is None:
        check_non_root(image_user, context)
        return
    with pytest.raises(RuntimeFailure, match=refused) as refusal:
        check_non_root(image_user, context)
    assert refusal.value.reason == "CreateContainerConfigError"
