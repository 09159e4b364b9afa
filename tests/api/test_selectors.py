"""Label and field selectors, as typed after -l and --field-selector."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from knarr.api.meta.v1 import LabelSelector, LabelSelectorRequirement
from knarr.api.selectors import parse_field_selector, parse_selector, selector_of

LABELS = {"app": "web", "tier": "front", "size": "10", "example.com/zone": "a"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app = web , tier != back", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app in (web,api)", True),
        ("app in (api)", False),
        ("app notin (api)", True),
        ("missing notin (api)", True),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("!app", False),
        ("size>9", True),
        ("size<9", False),
        ("app>1", False),
        ("example.com/zone=a", True),
        ("missing=", False),
        ("app in (web", None),
        ("app=web,", None),
        ("app web", None),
        ("=web", None),
        ("size>many", None),
        ("app=wéb", None),
        ("a/b/c=d", None),
        ("app=web)", None),
    ],
)
def test_label_selectors(text: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(ValueError):
            parse_selector(text)
    else:
        assert parse_selector(text).matches(LABELS) is matches


def test_a_number_with_an_underscore_is_no_number() -> None:
    assert not parse_selector("size>1").matches({"size": "1_0"})


def test_nothing_and_everything() -> None:
    everything = selector_of(LabelSelector())
    assert everything is not None
    assert everything.matches({})
    assert selector_of(None) is None
    unknown = LabelSelector(match_expressions=[LabelSelectorRequirement(key="a", operator="Like")])
    with pytest.raises(ValueError, match="Like"):
        selector_of(unknown)


words = some.text("abcXYZ019", min_size=1, max_size=6)
expressions = some.builds(
    LabelSelectorRequirement,
    key=words,
    operator=some.sampled_from(("In", "NotIn")),
    values=some.lists(words, min_size=1, max_size=3, unique=True),
) | some.builds(LabelSelectorRequirement, key=words, operator=some.sampled_from(("Exists", "DoesNotExist")))


@given(
    some.builds(
        LabelSelector,
        match_labels=some.dictionaries(words, words, max_size=3),
        match_expressions=some.lists(expressions, max_size=3),
    ),
    some.lists(some.dictionaries(words, words, max_size=4), max_size=5),
)
def test_a_selector_means_the_same_once_written_and_read(selector: LabelSelector, labels: list[dict[str, str]]) -> None:
    first = selector_of(selector)
    assert first is not None
    again = parse_selector(str(first))
    assert all(first.matches(each) == again.matches(each) for each in (*labels, selector.match_labels))


@given(some.text(max_size=30))
def test_any_text_is_a_selector_or_a_value_error(text: str) -> None:
    for parse in (parse_selector, parse_field_selector):
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("metadata.name=web", [("metadata.name", "web", True)]),
        ("a==1,b!=2", [("a", "1", True), ("b", "2", False)]),
        ("a=", [("a", "", True)]),
        (r"a=x\,y,b=\\", [("a", "x,y", True), ("b", "\\", True)]),
        (r"a=x\\,b=y", [("a", "x\\", True), ("b", "y", True)]),
        (r"a=x\=y", [("a", "x=y", True)]),
    ],
)
def test_field_selectors(text: str, wanted: list[tuple[str, str, bool]]) -> None:
    found = parse_field_selector(text).requirements
    assert [(each.field, each.value, each.equal) for each in found] == wanted


def test_a_field_selector_without_an_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="can't understand 'phase'"):
        parse_field_selector("phase")


# Against a model: what a selector is made of, written in some way, and read again

KEYS = some.sampled_from(["a", "b", "in", "notin", "x.y/z", "A-b_c.1"])
WORDS = some.sampled_from(["", "a", "b", "in", "notin", "1", "10", "x", "A.b"])
NUMBERS = some.integers(0, 20).map(str)
CONDITIONS = some.one_of(
    some.tuples(KEYS, some.sampled_from(["=", "==", "!="]), WORDS.map(lambda word: [word])),
    some.tuples(KEYS, some.sampled_from(["in", "notin"]), some.lists(WORDS, min_size=1, max_size=3)),
    some.tuples(KEYS, some.sampled_from([">", "<"]), NUMBERS.map(lambda number: [number])),
    some.tuples(KEYS, some.sampled_from(["exists", "!"]), some.just([])),
)


def told(condition: tuple[str, str, list[str]], space: str) -> str:
    key, operator, values = condition
    match operator:
        case "exists":
            return f"{space}{key}{space}"
        case "!":
            return f"{space}!{space}{key}{space}"
        case "in" | "notin":
            return f"{space}{key} {operator} {space}({space}{f'{space},{space}'.join(values)}{space}){space}"
    return f"{space}{key}{space}{operator}{space}{values[0]}{space}"


def meant(condition: tuple[str, str, list[str]], labels: dict[str, str]) -> bool:
    key, operator, values = condition
    match operator:
        case "exists":
            return key in labels
        case "!":
            return key not in labels
        case "=" | "==" | "in":
            return key in labels and labels[key] in values
        case "!=" | "notin":
            return not (key in labels and labels[key] in values)
    if key not in labels or not labels[key].isdigit():
        return False
    return int(labels[key]) > int(values[0]) if operator == ">" else int(labels[key]) < int(values[0])


@given(
    some.lists(CONDITIONS, max_size=4),
    some.sampled_from(["", " ", "\t", " \n "]),
    some.dictionaries(KEYS, WORDS | NUMBERS, max_size=4),
)
def test_a_selector_means_what_its_conditions_mean(
    conditions: list[tuple[str, str, list[str]]], space: str, labels: dict[str, str]
) -> None:
    selector = parse_selector(",".join(told(condition, space) for condition in conditions))
    assert selector.matches(labels) is all(meant(condition, labels) for condition in conditions)
    assert parse_selector(str(selector)) == selector


@given(some.lists(some.tuples(some.sampled_from(["a", "b.c"]), some.booleans(), some.text(max_size=5)), max_size=3))
def test_a_field_selector_is_read_as_it_was_written(terms: list[tuple[str, bool, str]]) -> None:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")

    read = parse_field_selector(
        ",".join(f"{field}{'=' if equal else '!='}{escaped(value)}" for field, equal, value in terms)
    )
    assert [(each.field, each.equal, each.value) for each in read.requirements] == terms


@pytest.mark.parametrize("text", ["a=b=c", "a=\\", "a=\\x", "a", "a=b,c"])
def test_a_field_selector_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid (field )?selector"):
        parse_field_selector(text)
