"""What a client asked for, as it travels through the work queue."""

from typing import Literal

import msgspec

from schemas.usage import Price

Lane = Literal["interactive", "batch"]


class Tenant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked: the ids that every event of the call carries."""

    key_id: str = ""
    project: str = ""
    team: str = ""
    user: str = ""
    app: str = ""


class Timeouts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Seconds: to connect, to the first byte, between two chunks, and for one whole attempt.

    A stream is bounded by `first_byte` and `idle`, a single answer by `total`.
    """

    connect: float = 10.0
    first_byte: float = 60.0
    idle: float = 60.0
    total: float = 600.0


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place where a call can run."""

    provider: str
    engine: str
    pool: str
    price: Price | None = None
    timeouts: Timeouts = Timeouts()


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model call on its way to a worker.

    `model` is the name the client used, `plan` the ordered targets and `at` the one to run now.
    `body` is the client's request as canonical (OpenAI-shaped) JSON; a body too large for the bus
    lies in the object store under `body_ref` instead. Times are nanoseconds since 1970 UTC.
    `headers` are client headers to pass on; they never carry a credential of ours. `credentials`
    are the client's own keys by provider, each sealed for this call and provider.

    `hold_nano` is reserved in each of `accounts` by `holder`. `prompt_estimate` is in tokens,
    `alert_nano` the cost above which the client wants an alert. `admitted_ns` is when the ledger
    had acknowledged the call's start (0: not said); `hold_used` says that an attempt may have cost
    something since the last hold, so that a further one takes its own.
    """

    id: str
    model: str
    plan: tuple[Target, ...]
    tenant: Tenant
    ingress: str
    received_ns: int
    deadline_ns: int
    stream: bool = False
    operation: str = "chat"
    dialect: str = "openai"
    lane: Lane = "interactive"
    at: int = 0
    attempts: int = 0
    body: bytes = b""
    body_ref: str = ""
    headers: dict[str, str] = {}
    credentials: dict[str, bytes] = {}
    trace: str = ""
    accounts: tuple[str, ...] = ()
    holder: str = ""
    hold_nano: int = 0
    prompt_estimate: int = 0
    alert_nano: int | None = None
    tracking_id: str = ""
    admitted_ns: int = 0
    hold_used: bool = False

    @property
    def target(self) -> Target:
        return self.plan[self.at]


encode_call = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
