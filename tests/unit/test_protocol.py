"""The parser of the NATS protocol gives the same messages however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import Message, Parser, ProtocolError, ServerInfo, header_block

Heard = list[tuple[bytes, Message] | tuple[bytes, bytes]]

words = st.text("abcXYZ019_-.$*>é", min_size=1, max_size=20)
payloads = st.binary(max_size=200) | st.sampled_from([b"\r\n", b"MSG a 1 5\r\n", b"PING\r\n"])
blocks = st.dictionaries(
    st.text("ABCabc-", min_size=1, max_size=8), st.text("xyz 12", max_size=9), max_size=3
).map(header_block)
statuses = st.sampled_from([b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 409 Consumer Deleted\r\n\r\n"])
sids = st.integers(1, 9999).map(lambda number: b"%d" % number)
messages = st.builds(
    Message, words, st.just("") | words, payloads, st.just(b"") | blocks | statuses
)
controls = st.sampled_from(
    [
        (b"PING", b""),
        (b"PONG", b""),
        (b"+OK", b""),
        (b"-ERR", b"'Slow Consumer'"),
        (b"INFO", b'{"version":"2.15.1"}'),
    ]
)
operations = st.lists(st.tuples(sids, messages) | controls, max_size=30)


def on_the_wire(operation: tuple[bytes, Message] | tuple[bytes, bytes]) -> bytes:
    first, second = operation
    if isinstance(second, bytes):
        return first + (b" " + second if second else b"") + b"\r\n"
    names = b" ".join(filter(None, (second.subject.encode(), first, second.reply.encode())))
    size = len(second.headers) + len(second.data)
    if second.headers:
        head = b"HMSG %b %d %d\r\n" % (names, len(second.headers), size)
    else:
        head = b"MSG %b %d\r\n" % (names, size)
    return head + second.headers + second.data + b"\r\n"


def listening_parser() -> tuple[Parser, Heard]:
    heard: Heard = []
    return Parser(
        lambda sid, message: heard.append((sid, message)),
        lambda verb, rest: heard.append((verb, rest)),
    ), heard


@given(operations, st.data())
def test_any_split_of_the_bytes_gives_the_same_operations(sent: Heard, data: st.DataObject) -> None:
    stream = b"".join(map(on_the_wire, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=40)))
    parser, heard = listening_parser()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < stop:
            parser.feed(stream[start:stop])
    assert heard == sent


@given(operations)
def test_byte_by_byte_gives_the_same_operations(sent: Heard) -> None:
    parser, heard = listening_parser()
    for byte in b"".join(map(on_the_wire, sent)):
        parser.feed(bytes([byte]))
    assert heard == sent


def test_a_large_message_in_many_reads_arrives_whole() -> None:
    body = bytes(range(256)) * 32768
    stream = on_the_wire((b"1", Message("a", "", body))) + b"PING\r\n"
    parser, heard = listening_parser()
    for start in range(0, len(stream), 65536):
        parser.feed(stream[start : start + 65536])
    assert heard == [(b"1", Message("a", "", body)), (b"PING", b"")]


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"MSG\r\n",
        b"MSG a 1 x\r\n",
        b"HMSG a 1 x 2\r\n12\r\n",
        b"x" * 1_100_000,
    ],
)
def test_what_is_not_nats_is_a_protocol_error(garbage: bytes) -> None:
    parser, _ = listening_parser()
    with pytest.raises(ProtocolError):
        parser.feed(garbage)


def test_a_subject_that_is_not_utf8_does_not_break_the_stream() -> None:
    parser, heard = listening_parser()
    parser.feed(b"MSG a.\xff 1 2\r\nhi\r\nPING\r\n")
    assert heard == [(b"1", Message("a.\ufffd", "", b"hi")), (b"PING", b"")]


def test_headers_are_read_by_their_exact_name() -> None:
    block = header_block({"Nats-Sequence": "17", "Empty": "", "X-Text": "grüß dich: ja"})
    message = Message("a", "", b"", block)
    assert message.header("Nats-Sequence") == "17"
    assert message.header("Empty") == ""
    assert message.header("X-Text") == "grüß dich: ja"
    assert message.header("Sequence") is None
    assert message.header("nats-sequence") is None
    assert message.status == 0


def test_status_and_description_come_from_the_first_header_line() -> None:
    none = Message("a", "", b"", b"NATS/1.0 503\r\n\r\n")
    gone = Message("a", "", b"", b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending: 1\r\n\r\n")
    assert (none.status, none.description) == (503, "")
    assert (gone.status, gone.description) == (409, "Consumer Deleted")
    assert gone.header("Nats-Pending") == "1"
    assert Message("a", "", b"", b"NATS/1.0 abc\r\n\r\n").status == 0
    assert Message("a", "", b"").status == 0


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\n", "\r"])
def test_a_header_with_a_line_break_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        header_block({"Name": value})
    with pytest.raises(ValueError, match="line break"):
        header_block({value: "x"})


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.15.1", (2, 15, 1)), ("2.14.0-RC.1", (2, 14, 0)), ("2.14", (2, 14, 0)), ("", (0, 0, 0))],
)
def test_versions_compare_as_numbers(version: str, numbers: tuple[int, int, int]) -> None:
    assert ServerInfo(version=version).version_tuple == numbers
