"""How questions come in and answers go out, on the governor's own connection."""

import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from ledger.budgets.messages import encode
from ledger.connection import Connection, Message, Subscription
from schemas import subjects

log = logging.getLogger("nexus.governor")

Reply = Callable[[msgspec.Struct | None], None]

_Question = TypeVar("_Question")


def serve(
    connection: Connection,
    subject: str,
    decode: Callable[[bytes], _Question],
    handle: Callable[[_Question, Reply], None],
) -> Subscription:
    """Call `handle(question, reply)` for every question; `reply` may be called later, once.

    A question whose answer would go elsewhere than to an inbox is dropped: who answers may publish
    what the asker may not.
    """

    def on_message(message: Message) -> None:
        if message.reply and not message.reply.startswith(subjects.INBOXES):
            log.warning("a question was dropped: its answer would go to %s", message.reply)
            return
        try:
            question = decode(message.data)
        except msgspec.DecodeError as error:
            log.warning("question not readable", extra={"subject": subject, "reason": str(error)})
            return
        reconnects = connection.reconnects

        def reply(answer: msgspec.Struct | None) -> None:
            # After a reconnect the server knows of no question, and forbids to answer it: whoever
            # asked asks again.
            if message.reply and connection.connected and connection.reconnects == reconnects:
                connection.publish(message.reply, b"" if answer is None else encode(answer))

        handle(question, reply)

    return connection.subscribe(subject, on_message)
