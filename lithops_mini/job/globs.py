"""Patterns for keys: ``*`` and ``?`` stay within a directory, ``**`` as a whole part of a path crosses them."""

from __future__ import annotations

import re

from lithops_mini.errors import InputError


def is_glob(text: str) -> bool:
    """Whether the text has a character with a meaning in patterns."""
    return any(character in text for character in "*?[")


def glob_prefix(pattern: str) -> str:
    """What every key that matches begins with: the pattern up to its first special character."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Translate a pattern for ``fullmatch``: ``*``, ``?``, ``[abc]``, ``[a-z]``, ``[!a]``, and ``**``, which as a part
    between slashes is any number of parts, none included, and at the end is everything below."""
    parts = pattern.split("/")
    expression = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            expression += "(?s:.+)" if last else "(?s:.+/)?"
        else:
            expression += _part(part, pattern) + ("" if last else "/")
    try:
        return re.compile(expression)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a pattern: {error}") from error


def _part(part: str, pattern: str) -> str:
    expression, position = "", 0
    while position < len(part):
        character = part[position]
        position += 1
        if character == "*":
            expression += "[^/]*"
            while part[position : position + 1] == "*":
                position += 1
        elif character == "?":
            expression += "[^/]"
        elif character == "[":
            end = part.find("]", position + (2 if part[position : position + 1] == "!" else 1))
            if end < 0:
                raise InputError(f"{pattern!r}: a '[' has no ']'; a literal one is written '[[]'")
            members = part[position:end]
            negation = "^" if members.startswith("!") else ""
            members = "".join(c if c == "-" else re.escape(c) for c in members.removeprefix("!"))
            expression += f"(?!/)[{negation}{members}]"
            position = end + 1
        else:
            expression += re.escape(character)
    return expression
