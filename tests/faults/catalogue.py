"""What can go wrong at a provider: each fault as a scripted server plays it, whole and streamed."""

import json
from typing import Literal, NamedTuple

from tests.flow.gateway import UP_KEY
from tests.upstream import (
    CUT,
    DONE,
    HANG,
    Reply,
    Step,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)
from workers.reply import MAX_BODY_BYTES
from workers.sse import MAX_EVENT_BYTES

ATTEMPT_SECONDS = 3.0
DEADLINE_SECONDS = 18.0
SHORT_WAIT = 1
# Less than the gateway is ever willing to wait, and still more than a call has.
LONG_WAIT = 19
SAID = f"These are the words of the provider about {UP_KEY}."
Place = Literal["", "refused", "tls", "dns"]


class Fault(NamedTuple):
    """`name` is for paths and models, `what` for people. `place` is an address where nobody can
    answer; else `whole` and `stream` play the answers. `wait` is what a Retry-After says."""

    name: str
    what: str
    whole: Reply = Reply()
    stream: Reply = Reply()
    place: Place = ""
    wait: int = 0

    def reply(self, stream: bool) -> Reply:
        return self.stream if stream else self.whole


_ANSWER = json.dumps(chat_answer("Hello")).encode()
_HALF = len(_ANSWER) // 2
_ERROR = {"error": {"message": SAID, "type": "server_error", "code": "odd", "param": None}}
_TWO = (event(chat_chunk("Hel")), event(chat_chunk("lo")))
_MEGABYTE = b"x" * 2**20
_JSON = {"Content-Type": "application/json"}
_SIZED = {**_JSON, "Content-Length": str(len(_ANSWER))}


def _status(status: int, wait: int = 0) -> Fault:
    headers = {"Retry-After": str(wait)} if wait else {}
    reply = json_reply(_ERROR, status, headers)
    longer = ", longer than the call may take" if wait > DEADLINE_SECONDS else ""
    what = f"status {status}" + (f", `Retry-After: {wait}`{longer}" if wait else "")
    return Fault(f"{status}-{wait}" if wait else str(status), what, reply, reply, wait=wait)


def _midway(name: str, what: str, *then: Step) -> Fault:
    """What happens after half an answer, or after two chunks."""
    whole = Reply(headers=_SIZED, steps=(_ANSWER[:_HALF], *then))
    return Fault(name, what, whole, event_stream(*_TWO, *then))


def _same(name: str, what: str, reply: Reply) -> Fault:
    return Fault(name, what, reply, reply)


def _huge(size: int, begin: bytes) -> tuple[Step, ...]:
    return (begin, *(_MEGABYTE for _ in range(size // len(_MEGABYTE) + 1)))


def _slowly(data: bytes) -> tuple[Step, ...]:
    return tuple(step for at in range(len(data)) for step in (data[at : at + 1], 0.25))


def _faults() -> tuple[Fault, ...]:
    html = b"<html><body>Welcome to the proxy</body></html>"
    bad_text = json.dumps(chat_answer("H@llo")).encode().replace(b"@", b"\xff")
    bad_chunk = event(json.dumps(chat_chunk("H@llo")).encode().replace(b"@", b"\xff"))
    return (
        Fault("refused", "refuses the connection", place="refused"),
        Fault("dns", "has a name that does not exist", place="dns"),
        Fault("tls", "has a certificate that nobody signed", place="tls"),
        *map(_status, (400, 401, 403, 404, 408, 413, 422, 429)),
        _status(429, SHORT_WAIT),
        _status(429, LONG_WAIT),
        *map(_status, (500, 502, 503)),
        _status(503, SHORT_WAIT),
        _status(529),
        _same("redirect", "redirects (307)", Reply(307, {"Location": "/spare/v1"})),
        _same("hang-head", "is silent", Reply(before=(HANG,))),
        Fault(
            "hang-body",
            "is silent after its head",
            Reply(headers=_SIZED, steps=(HANG,)),
            event_stream(HANG),
        ),
        _midway("hang-midway", "falls silent midway", HANG),
        _same("cut-head", "cuts the connection before its head", Reply(before=(CUT,))),
        Fault(
            "cut-body",
            "cuts the connection after its head",
            Reply(headers=_SIZED, steps=(b"{", CUT)),
            event_stream(_TWO[0][:20], CUT),
        ),
        _midway("cut-midway", "cuts the connection midway", CUT),
        _midway_end(),
        Fault(
            "malformed",
            "sends broken JSON (stream: as its third event)",
            json_reply(b'{"choices": [{"mess'),
            event_stream(*_TWO, event(b'{"choices": [{"del'), DONE),
        ),
        Fault(
            "malformed-first",
            "sends what is no event (stream: at once)",
            json_reply(b"data: data"),
            event_stream(b"{]\n\ndata: {]\n\n", DONE),
        ),
        Fault(
            "utf8",
            "sends invalid UTF-8",
            json_reply(bad_text),
            event_stream(bad_chunk, DONE),
        ),
        _same(
            "html", "answers with an HTML page", Reply(200, {"Content-Type": "text/html"}, (html,))
        ),
        Fault("empty", "answers with nothing", json_reply(b""), event_stream()),
        Fault(
            "no-answer",
            "answers with JSON that is no answer",
            json_reply({"ok": True}),
            event_stream(event({"ok": True}), DONE),
        ),
        _same("error-in-200", "answers 200 with an error object", json_reply(_ERROR)),
        Fault(
            "error-first",
            "answers 200 with an error of type `rate_limit_error` (stream: as its first event)",
            json_reply({"error": {"message": SAID, "type": "rate_limit_error"}}),
            event_stream(event({"error": {"message": SAID, "type": "rate_limit_error"}})),
        ),
        Fault(
            "error-midway",
            "answers with an error beside `choices: null` (stream: as its third event)",
            json_reply({"choices": None, **_ERROR}),
            event_stream(*_TWO, event(_ERROR)),
        ),
        Fault(
            "huge",
            "sends more than 64 MiB (stream: an event of more than 16 MiB)",
            Reply(headers=_JSON, steps=_huge(MAX_BODY_BYTES, b'{"choices": "')),
            event_stream(*_huge(MAX_EVENT_BYTES, b"data: ")),
        ),
        Fault(
            "drip",
            "answers slowly without end (stream: with an end)",
            Reply(headers=_SIZED, steps=_slowly(_ANSWER)),
            chat_stream(*"Hello, you", pause=ATTEMPT_SECONDS / 7),
        ),
    )


def _midway_end() -> Fault:
    whole = Reply(headers=_JSON, steps=(_ANSWER[:_HALF],))
    return Fault(
        "end-midway", "ends its answer midway as if it were whole", whole, event_stream(*_TWO)
    )


FAULTS = _faults()
