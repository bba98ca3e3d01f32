"""Puts the frames of one call in order: by fence, then by index, without gaps or repeats."""

from schemas.frames import FIRST_FENCE, Chunk, Failure, Fence, Finish, Frame


class Interrupted(Exception):
    """A further attempt began after bytes of an earlier one had gone out to the client."""


class Sequencer:
    """Feed it frames as they come, also twice or out of order; it gives them out once, in order.

    A frame below the highest fence is dropped. A higher fence restarts the answer while nothing of
    it has been shown; afterwards it can only end it: by its own failure, or as Interrupted.
    """

    __slots__ = ("_fence", "_next", "_pending", "_shown")

    def __init__(self) -> None:
        self._fence: Fence = FIRST_FENCE
        self._next = 1
        self._pending: dict[int, Frame] = {}
        self._shown = False

    @property
    def has_gap(self) -> bool:
        """True while a later frame is here and an earlier one is missing."""
        return bool(self._pending)

    def accept(self, frame: Frame) -> list[Frame]:
        """The frames that can be given out now. Raises Interrupted."""
        if frame.fence < self._fence:
            return []
        if frame.fence > self._fence:
            if self._shown and not isinstance(frame, Failure):
                raise Interrupted
            self._fence, self._next = frame.fence, 1
            self._pending.clear()
        if frame.index == self._next and not self._pending:
            self._next += 1
            return [self._show(frame)]
        if frame.index < self._next:
            return []
        self._pending[frame.index] = frame
        ready = []
        while (following := self._pending.pop(self._next, None)) is not None:
            self._next += 1
            ready.append(self._show(following))
        return ready

    def _show(self, frame: Frame) -> Frame:
        if isinstance(frame, Chunk | Finish):
            self._shown = True
        return frame
