"""Patterns of names: `*` stands for any characters, `?` for one; nothing else is special."""


def is_pattern(text: str) -> bool:
    """Whether it stands for other names than itself."""
    return "*" in text or "?" in text


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name fits the pattern; upper and lower case differ.

    Takes at most len(pattern) * len(name) steps, whoever wrote the pattern: of several `*` only the
    last one passed has to be tried again.
    """
    at = star = resume = 0
    starred = False
    position = 0
    while position < len(name):
        wanted = pattern[at : at + 1]
        if wanted == "*":
            starred, star, resume = True, at, position
            at += 1
        elif wanted and wanted in ("?", name[position]):
            at += 1
            position += 1
        elif starred:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")
