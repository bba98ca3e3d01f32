"""Chunks of a stream on their way to the client, as every dialect hands them on."""

from workers.providers.base import Deltas


class Outgoing:
    """What has gathered since the last time: `parts` are canonical chunks as JSON, `text_bytes` the
    UTF-8 size of all the text in them so far."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.text_bytes = 0
        self._told = 0

    def deltas(self, *, first_byte: float, sent: float) -> Deltas:
        """The parts that have gathered, and the text that is new in them."""
        parts, self.parts = tuple(self.parts), []
        new_text = self.text_bytes - self._told
        self._told = self.text_bytes
        return Deltas(parts, first_byte, sent, new_text)
