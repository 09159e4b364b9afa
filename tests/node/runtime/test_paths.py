"""Paths never lead out of the tree they belong to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knarr.node.runtime.paths import TooManyLinks, within

STEP = st.sampled_from(["..", ".", "a", "b", "c", "", "link", "up", "abs"])
PATH = st.builds("/".join, st.lists(STEP, max_size=8))


@given(st.dictionaries(st.sampled_from(["link", "up", "abs", "a/link", "a/up", "b/abs"]), PATH), PATH)
@settings(deadline=None)
def test_no_links_and_no_dots_lead_out(links: dict[str, str], path: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        root = os.path.join(above, "root")
        for folder in ("a/b", "b", "c"):
            os.makedirs(os.path.join(root, folder))
        for name, aim in links.items():
            os.symlink(aim or ".", os.path.join(root, name))
        try:
            found = within(root, path)
        except TooManyLinks:
            return
        assert found == root or found.startswith(f"{root}/")
        assert ".." not in found.split("/")
        # What is there is reached without passing any link, so nothing can lead elsewhere.
        assert os.path.realpath(found) == found


def test_absolute_links_start_at_the_trees_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/real/passwd")
    assert within(str(tmp_path), "etc/passwd") == str(tmp_path / "real/passwd")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(TooManyLinks):
        within(str(tmp_path), "a/x")
