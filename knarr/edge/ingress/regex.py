"""Regular expressions as Envoy takes them (RE2), told apart before Envoy sees them: it would refuse all routes for one.

RE2 has what most people write, but nothing that needs backtracking: no look-around, no references back to a group, no
possessive or atomic parts. https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re
import warnings

LENGTH_MAX = 1024
REPEAT_MAX = 1000
"""RE2's own bound of {n,m}; nested ones multiply."""
GROUP_START = re.compile(r"\?(?::|P<[A-Za-z_][A-Za-z0-9_]*>|[imsU]+(?:-[imsU]+)?[:)])")
ESCAPES = "AbBzdDwWsSfnrtvax"
"""Letters after a backslash that RE2 knows; `p` and `P` (classes of characters) only in their braces."""
BRACED = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}")


def fault_of(pattern: str) -> str:
    """What makes a pattern unusable; empty when nothing does."""
    if len(pattern) > LENGTH_MAX:
        return f"a pattern may have {LENGTH_MAX} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    return _foreign(pattern)


def groups_of(pattern: str) -> int:
    """How many groups a pattern without fault has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(pattern).groups


def _foreign(pattern: str) -> str:
    """What Python's expressions have and RE2's don't."""
    at, in_class, repeats = 0, False, 1
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            following = pattern[at + 1 : at + 2]
            if following.isalnum() and following not in ESCAPES:
                return f"\\{following} is not known here (RE2)"
            at += 2
            continue
        if in_class:
            in_class = character != "]" or pattern[at - 1] == "["
        elif character == "[":
            in_class = True
            if pattern[at + 1 : at + 2] == "^":
                at += 1
        elif pattern.startswith("(?", at) and not GROUP_START.match(pattern, at + 1):
            return f"{pattern[at : at + 4]} is not known here (RE2): no look-around, no conditions"
        elif character in "*+?}" and pattern[at + 1 : at + 2] == "+":
            return "possessive repeats are not known here (RE2)"
        elif character == "{" and (match := BRACED.match(pattern, at)) and match[1]:
            repeats *= max(int(match[1]), int(match[3] or 0), 1)
            if repeats > REPEAT_MAX:
                return f"repeats more than {REPEAT_MAX} times"
        at += 1
    return ""
