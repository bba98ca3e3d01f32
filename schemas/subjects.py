"""Names on the bus: streams, subjects, consumers, buckets. Nowhere else is one spelt."""

import hashlib
import re
from collections.abc import Iterator

LEDGER = "LEDGER"
WORK = "WORK"
RESP = "RESP"
SETTINGS_BUCKET = "settings"
SETTINGS = f"KV_{SETTINGS_BUCKET}"
BLOBS = "BLOBS"
SNAPSHOTS = "SNAPSHOTS"

LEDGER_SUBJECTS = "ledger.>"
WORK_SUBJECTS = "work.*.*"
RESP_SUBJECTS = "resp.*.*"
BLOB_SUBJECTS = "blob.*"
SNAPSHOT_SUBJECTS = "snapshot.*.*"
LIVE_EVENTS = "agent.events.>"
LEDGER_REPUBLISH_SOURCE = "ledger.*.*.>"
LIVE_ACCESS = "agent.events.access.>"
# Not by project, as all other events: whoever looks for the newest one finds it by few subjects.
LEDGER_ACCESS = "ledger.ingress.=.access.>"
# Whose project is nobody's: the states of all targets are one subject.
LEDGER_STATES = "ledger.worker.=.provider.state"
LIVE_STATES = "agent.events.provider.state"
# All that governors append, each of them only behind the last of them it knows.
LEDGER_GOVERNOR = "ledger.governor.>"

PROJECTOR = "analytics"
LANES = ("interactive", "batch")
ROLES = ("ingress", "worker", "governor", "analytics")

CANCELS = "cancel.*"
RUNNING = "running.*"
PINGS = "pool.ping.*"
GOVERNOR_BEAT = "governor.beat"
GOVERNOR_METRICS = "governor.metrics"
GOVERNOR_STATE = "governor.state"
GOVERNOR_LEASE = "governor.lease"
GOVERNOR_RETURN = "governor.return"
GOVERNOR_PULSE = "governor.pulse"
GOVERNOR_RECALL = "governor.recall"
GOVERNOR_HOLD = "governor.hold"
GOVERNOR_RESET = "governor.reset"
GOVERNOR_BUDGETS = "governor.budgets"
QUESTIONS = "ask.*"
# How targets fare, for every ingress.
TARGETS = "analytics.targets"
OPENING = "ask.opening"
INBOXES = "_INBOX"

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_TOKEN = 96


def token(text: str) -> str:
    """Any text as one subject token: reversible while short, hashed when long, never empty.

    Letters, digits, `-` and `_` stand for themselves; every other byte of the UTF-8 form becomes
    `=XX`; the empty text is `=`. What would grow over 96 characters becomes `=h` and its SHA-256.
    """
    if _PLAIN.fullmatch(text):
        return text
    if not text:
        return "="
    raw = text.encode("utf-8", "surrogatepass")
    encoded = "".join(
        chr(byte) if _PLAIN.fullmatch(chr(byte)) and byte < 128 else f"={byte:02X}" for byte in raw
    )
    if len(encoded) <= _LONGEST_TOKEN:
        return encoded
    return "=h" + hashlib.sha256(raw).hexdigest()


def text_of_token(encoded: str) -> str | None:
    """The text behind a token; None for one that was hashed."""
    if encoded == "=":
        return ""
    if encoded.startswith("=h"):
        return None
    return bytes(_bytes_of(encoded)).decode("utf-8", "surrogatepass")


def _bytes_of(encoded: str) -> Iterator[int]:
    position = 0
    while position < len(encoded):
        if encoded[position] == "=":
            yield int(encoded[position + 1 : position + 3], 16)
            position += 3
        else:
            yield ord(encoded[position])
            position += 1


def ledger(role: str, project: str, event_type: str) -> str:
    """Where a role appends an event: `ledger.<role>.<project token>.<event type>`."""
    return f"ledger.{role}.{token(project)}.{event_type}"


def ledger_parts(subject: str) -> tuple[str, str]:
    """(role, event type) of a ledger subject."""
    _, role, _, event_type = subject.split(".", 3)
    return role, event_type


def ledger_of(role: str) -> str:
    """All that a role appends."""
    return f"ledger.{role}.>"


def live(event_type: str) -> str:
    """Where monitors hear an event after it was committed."""
    return f"agent.events.{event_type}"


def work(pool: str, lane: str) -> str:
    return f"work.{token(pool)}.{lane}"


def consumer(pool: str, lane: str) -> str:
    """The durable pull consumer of one lane of a pool."""
    return f"{token(pool)}-{lane}"


def resp(ingress: str, call_id: str) -> str:
    return f"resp.{ingress}.{call_id}"


def resp_of_ingress(ingress: str) -> str:
    return f"resp.{ingress}.*"


def resp_of_call(call_id: str) -> str:
    """A call's frames whichever ingress asked; for readers of RESP only."""
    return f"resp.*.{call_id}"


def cancel(call_id: str) -> str:
    return f"cancel.{call_id}"


def running(call_id: str) -> str:
    """Answered by the worker that runs the call and still owns its job."""
    return f"running.{call_id}"


def blob(name: str) -> str:
    return f"blob.{name}"


def snapshot(of: str, generation: str) -> str:
    """The pieces of one snapshot; the next one has another generation."""
    return f"snapshot.{of}.{generation}"


def setting(key: str) -> str:
    """A key of the `settings` bucket, as any NATS key-value client sees it."""
    return f"$KV.{SETTINGS_BUCKET}.{key}"


def ping(pool: str) -> str:
    """Answered by any live worker of the pool; no responder means there is none."""
    return f"pool.ping.{token(pool)}"


def ask(question: str) -> str:
    return f"ask.{question}"


def inbox(user: str) -> str:
    """Below it is all that a user of the bus may be answered on."""
    return f"{INBOXES}_{token(user)}"


def api(*words: str) -> str:
    """A request to JetStream: `$JS.API.STREAM.INFO.LEDGER`."""
    return ".".join(("$JS.API", *words))


def acks(stream: str, consumer: str = "*") -> str:
    """What a consumer of a stream is told about its messages."""
    return f"$JS.ACK.{stream}.{consumer}.>"
