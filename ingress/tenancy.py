"""Whose call it is: the tenant of a credential, narrowed by what the request itself says."""

import hashlib
import re

import msgspec

from ingress.auth import Principal
from ingress.call_budget import CallBudget
from ledger.access.registry import Registry
from schemas.errors import Forbidden

_NOTHING = CallBudget()
_LONGEST_USER = 128
_PLAIN_USER = re.compile(r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?")


def narrowed(
    principal: Principal, budget: CallBudget | None, end_user: str, registry: Registry
) -> Principal:
    """The caller within the project and for the user that the request names.

    What the credential is bound to cannot be left: whoever is bound to nothing may name any id, and
    the named project's rules then hold as for its own keys. `end_user` is OpenAI's `user`: it
    stands for the user where nothing else does. Who comes without a credential of ours may name
    nobody. Raises Forbidden (`foreign_project`, `foreign_user`).
    """
    asked = budget or _NOTHING
    if asked.project_id and asked.project_id != principal.tenant.project:
        principal = _within_project(principal, asked.project_id, registry)
    if asked.user_id and asked.user_id != principal.tenant.user:
        principal = _for_user(principal, asked.user_id)
    elif end_user and not principal.tenant.user and principal.kind != "client":
        principal = _of_tenant(principal, user=plain_user(end_user))
    return principal


def plain_user(text: str) -> str:
    """A client's own name for its user as an id: itself within the bounds of ids, else a digest."""
    if len(text) <= _LONGEST_USER and _PLAIN_USER.fullmatch(text):
        return text
    return f"sha256-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _within_project(principal: Principal, project_id: str, registry: Registry) -> Principal:
    tenant = principal.tenant
    project = registry.project(project_id)
    team = project.team if project is not None else ""
    if tenant.project or principal.kind == "client" or (team and tenant.team not in ("", team)):
        raise _foreign("project", project_id, tenant.project)
    narrow = _of_tenant(principal, project=project_id, team=tenant.team or team)
    # The team of the credential itself is in its rules already.
    added = [project, registry.team(team) if team and not tenant.team else None]
    holders = [holder for holder in added if holder is not None]
    return msgspec.structs.replace(
        narrow,
        models=(
            *principal.models,
            *(one.allowed_models for one in holders if one.allowed_models is not None),
        ),
        tier=next((tier for tier in (principal.tier, *(one.tier for one in holders)) if tier), ""),
        payloads=principal.payloads or (project.payloads if project is not None else None),
    )


def _for_user(principal: Principal, user_id: str) -> Principal:
    if principal.tenant.user or principal.kind == "client":
        raise _foreign("user", user_id, principal.tenant.user)
    return _of_tenant(principal, user=user_id)


def _of_tenant(principal: Principal, **ids: str) -> Principal:
    return msgspec.structs.replace(
        principal, tenant=msgspec.structs.replace(principal.tenant, **ids)
    )


def _foreign(what: str, named: str, bound_to: str) -> Forbidden:
    why = f"is for the {what} {bound_to!r} only" if bound_to else f"may not name this {what}"
    return Forbidden(
        f"budget.{what}_id names the {what} {named!r}, but the credential {why}.",
        code=f"foreign_{what}",
        param=f"budget.{what}_id",
    )
