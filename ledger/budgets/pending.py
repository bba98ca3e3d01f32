"""What was decided and is not in the ledger yet."""

from collections.abc import Mapping


class Pending:
    """Nano-dollars by account, each decision known by whose it is and by its request."""

    def __init__(self) -> None:
        self._decided: dict[tuple[str, str], Mapping[str, int]] = {}
        self._nano: dict[str, int] = {}

    def __contains__(self, decision: tuple[str, str]) -> bool:
        return decision in self._decided

    def nano(self, account: str) -> int:
        """What all decisions together take of an account."""
        return self._nano.get(account, 0)

    def add(self, whose: str, request: str, amounts: Mapping[str, int]) -> None:
        """Note a decision, once."""
        if (whose, request) in self._decided:
            return
        self._decided[whose, request] = amounts
        for account, nano in amounts.items():
            self._nano[account] = self._nano.get(account, 0) + nano

    def drop(self, whose: str, request: str) -> None:
        """Its event came, or never will."""
        for account, nano in self._decided.pop((whose, request), {}).items():
            left = self._nano[account] - nano
            if left:
                self._nano[account] = left
            else:
                del self._nano[account]
