"""The users of the bus as a nats-server reads them in its configuration."""

import json
from collections.abc import Mapping, Sequence

from ledger.permissions import ROLES, USERS, Permissions

_ANSWER_WITHIN = "2m"


def authorization(passwords: Mapping[str, str]) -> str:
    """The `authorization { users = [...] }` block with a password for each of `USERS`."""
    users = ",\n".join(_user(name, passwords[name]) for name in USERS)
    return f"authorization {{\n  users = [\n{users}\n  ]\n}}\n"


def _user(name: str, password: str) -> str:
    who = f"user: {json.dumps(name)}, password: {json.dumps(password)}"
    if name not in ROLES:
        return f"    {{ {who} }}"
    return f"    {{ {who}, permissions: {{\n{_rules(ROLES[name])}\n    }} }}"


def _rules(permissions: Permissions) -> str:
    lines = [
        f"      publish: {_publish(permissions.publish)}",
        f"      subscribe: {{ allow: {_list(permissions.subscribe)} }}",
    ]
    if permissions.answers:
        lines.append(f'      allow_responses: {{ max: 1, expires: "{_ANSWER_WITHIN}" }}')
    return "\n".join(lines)


def _publish(subjects: Sequence[str]) -> str:
    return f"{{ allow: {_list(subjects)} }}" if subjects else '{ deny: [">"] }'


def _list(subjects: Sequence[str]) -> str:
    lines = "".join(f"        {json.dumps(subject)}\n" for subject in subjects)
    return f"[\n{lines}      ]"
