"""The prices that `nexus prices update` has put beside the built-in ones: read when they change."""

import logging
from pathlib import Path

from schemas.prices import BrokenPrices, PriceBook

log = logging.getLogger("nexus.prices")

_Seen = tuple[int, int, int]
_NOTHING: _Seen = (0, 0, 0)


class PriceFile:
    """A file that may come, change and go while a process runs. `problem` says why it is not used,
    empty if it is used or does not exist."""

    def __init__(self, path: str, built_in: PriceBook) -> None:
        self.path = Path(path)
        self.problem = ""
        self._built_in = built_in
        self._seen: _Seen | None = None

    def look(self, using: PriceBook) -> PriceBook:
        """The book to use: that of the file if it is sound and newer than the built-in one. A file
        that turns out broken leaves in use what is."""
        seen = self._state()
        if seen == self._seen:
            return using
        self._seen = seen
        self.problem = ""
        if seen == _NOTHING:
            return self._built_in
        try:
            book = PriceBook.checked(self.path.read_bytes())
        except (OSError, BrokenPrices) as error:
            self.problem = f"{self.path}: {error}"
            log.warning("prices: the file cannot be used, %s", self.problem)
            return using
        if book.made <= self._built_in.made:
            self.problem = f"{self.path}: older than the built-in prices"
            return self._built_in
        log.info("prices: using %s of %s, from %s", book.edition, book.made, self.path)
        return book

    def _state(self) -> _Seen:
        try:
            found = self.path.stat()
        except OSError:
            return _NOTHING
        return found.st_mtime_ns, found.st_size, found.st_ino
