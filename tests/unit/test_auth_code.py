"""Properties of the code that looks at credentials: what it compares, and what it loads."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingress import auth, client_keys, credentials, forwarding, jwks, tickets, tokens
from schemas.config import JwtConfig
from tests.key_door import ADMIN, KEY, Door


def test_keys_of_ours_are_found_in_any_text() -> None:
    door = Door(api_keys=("plain", "with=sign"))
    for text in (KEY, f"key={KEY}", f"a,{KEY};b", "x plain y", "k=plain", "with=sign", ADMIN):
        assert door.keys.hold_any(text.encode()), text
    for text in ("", "plainer", "nothing of ours", "onx-", "sk-of-some-client", "linux x64"):
        assert not door.keys.hold_any(text.encode()), text


DOORS = (auth, client_keys, credentials, forwarding, jwks, tickets, tokens)
# Neither side is what a client could guess at: both are ours, or what is compared is public.
HARMLESS = {
    "nanoseconds(key.expires_at) == until_ns",
    "self._version != self._registry.version",
    "self._jwks.version != self._version",
    "claims.iss != issuer",
    "base64.urlsafe_b64encode(data).rstrip(b'=') == part",
    "document != self._document",
    "fits == algorithm",
    "jwk.get('alg', name) != name",
    "name == PROVIDER_KEY",
}


@pytest.mark.parametrize("module", DOORS, ids=lambda module: module.__name__)
def test_no_secret_is_compared_letter_by_letter(module: Any) -> None:
    """`==` ends at the first difference, which can be measured from outside."""
    tree = ast.parse(Path(module.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            sides = (node.left, *node.comparators)
            counted = any(
                isinstance(side, ast.Constant)
                or (isinstance(side, ast.Call) and ast.unparse(side.func) == "len")
                or ast.unparse(side).isupper()
                for side in sides
            )
            assert counted or ast.unparse(node) in HARMLESS, ast.unparse(node)


def test_nobody_pays_for_tokens_who_has_none() -> None:
    code = "import sys, ingress.auth; sys.exit('jwt' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert not JwtConfig().enabled
