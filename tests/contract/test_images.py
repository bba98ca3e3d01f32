"""Images from data: URLs and from servers: what is fetched, and from where never."""

import base64
import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from schemas.ids import Clock
from tests.upstream import HANG, Recorded, Reply, Upstream
from workers import images
from workers.failures import Failures
from workers.http import Http
from workers.images import Image, from_data_url, image_of, images_of
from workers.providers.base import AttemptFailed
from workers.public import is_public

FAILURES = Failures("acme", (), Clock())
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(32))
PNG64 = base64.b64encode(PNG).decode()
JPEG = b"\xff\xd8\xff\xe0" + bytes(16)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


def picture(body: bytes = PNG, media_type: str = "image/png", **headers: str) -> Reply:
    return Reply(headers={"Content-Type": media_type, **headers}, steps=(body,))


def redirect(to: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": to})


async def refusal(url: str, http: Http, *, private: bool = False) -> str:
    """The message with which an image is refused."""
    with pytest.raises(AttemptFailed) as caught:
        await image_of(url, http, FAILURES, private=private)
    info = caught.value.info
    assert (info.status, info.type, info.param) == (400, "invalid_request_error", "messages")
    assert not caught.value.retryable and not caught.value.reached
    return info.message


@pytest.mark.parametrize(
    ("url", "image"),
    [
        (f"data:image/png;base64,{PNG64}", Image("image/png", PNG64)),
        (f"DATA:Image/PNG;Base64,{PNG64}", Image("image/png", PNG64)),
        (f"data:image/jpg;charset=x;base64,{PNG64}", Image("image/jpeg", PNG64)),
        (f"data:;base64,{PNG64}", Image("image/png", PNG64)),
        (f"data:application/octet-stream;base64,{PNG64}", Image("image/png", PNG64)),
        (f"data:image/png;base64,{PNG64.replace('=', '%3D')}", Image("image/png", PNG64)),
        (f"data:image/png;base64,{PNG64[:20]}\n{PNG64[20:]}", Image("image/png", PNG64)),
        ("data:image/svg+xml,%3Csvg/%3E", Image("image/svg+xml", "PHN2Zy8+")),
        (
            "data:,%ff%d8%ff" + "%00" * 9,
            Image("image/jpeg", base64.b64encode(JPEG[:3] + bytes(9)).decode()),
        ),
    ],
)
async def test_a_data_url_is_decoded(http: Http, url: str, image: Image) -> None:
    assert await image_of(url, http, FAILURES) == image


NO_IMAGES = [
    "data:image/png;base64",
    "data:image/png;base64,",
    "data:image/png,",
    "data:image/png;base64,####",
    "data:image/png;base64,QQ",
    "data:image/png;base64,QUJD=",
    "data:image/png;base64,Q",
    "data:image/png;base64,ÄÖÜ=",
    "data:image/png;base64,%ff%ff",
    "data:image/png,\ud800",
    "data:text/plain,hello",
    "data:text/html;base64,QUJD",
    "data:image/a b;base64,QUJD",
    "data:,",
    "data:",
]


async def test_a_data_url_without_an_image_is_refused(http: Http) -> None:
    for url in NO_IMAGES:
        assert "image" in await refusal(url, http), url


async def test_a_data_url_larger_than_the_limit_is_refused(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "LARGEST", 64)
    assert "larger" in await refusal("data:image/png;base64," + "QUJD" * 30, http)


def test_any_data_can_be_read_from_a_data_url() -> None:
    assert from_data_url("data:application/pdf;base64,QUJD", FAILURES) == (
        "application/pdf",
        "QUJD",
    )
    with pytest.raises(AttemptFailed) as caught:
        from_data_url("data:application/pdf;base64,?", FAILURES)
    assert caught.value.info.status == 400


@pytest.mark.parametrize(
    ("body", "said", "media_type"),
    [
        (PNG, "image/png", "image/png"),
        (PNG, "Image/PNG; charset=binary", "image/png"),
        (PNG, "application/octet-stream", "image/png"),
        (JPEG, "binary/octet-stream", "image/jpeg"),
        (b"GIF89a..........", "application/octet-stream", "image/gif"),
        (WEBP, "application/octet-stream", "image/webp"),
    ],
)
async def test_an_image_is_fetched_with_its_type(
    http: Http, upstream: Upstream, body: bytes, said: str, media_type: str
) -> None:
    upstream.script(picture(body, said))
    image = await image_of(f"{upstream.url}/a.png?sig=1#there", http, FAILURES, private=True)
    assert image == Image(media_type, base64.b64encode(body).decode())
    assert upstream.requests[0].path == "/a.png?sig=1"


async def test_nothing_of_ours_goes_along_and_no_cookie_comes_back(
    http: Http, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    upstream.script(Reply(status=302, headers={"Location": "/b", "Set-Cookie": "a=b"}), picture())
    await image_of(f"{upstream.url}/a", http, FAILURES, private=True)
    for request in upstream.requests:
        assert set(request.headers) == {
            *("Host", "Accept", "Accept-Encoding", "User-Agent", "Connection")
        }
        assert request.headers["User-Agent"] == "nexus"


async def test_redirects_are_followed_as_far_as_three(http: Http, upstream: Upstream) -> None:
    upstream.script(redirect("/b"), redirect("c", 307), redirect(f"{upstream.url}/d"), picture())
    await image_of(f"{upstream.url}/a", http, FAILURES, private=True)
    assert [request.path for request in upstream.requests] == ["/a", "/b", "/c", "/d"]
    upstream.script(redirect("/again"))
    message = await refusal(f"{upstream.url}/a", http, private=True)
    assert "redirects" in message and len(upstream.requests) == 8


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://me:secret@127.0.0.1/a", "http://a b/"]
)
async def test_a_redirect_is_judged_anew(http: Http, upstream: Upstream, to: str) -> None:
    upstream.script(redirect(to))
    assert "URL" in await refusal(f"{upstream.url}/a", http, private=True)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (picture(b"<html>", "text/html"), "not an image"),
        (picture(b"hello there", "application/octet-stream"), "not an image"),
        (picture(b"{}", "application/json"), "not an image"),
        (picture(b""), "is empty"),
        (picture(b"\x1f\x8b\x08", **{"Content-Encoding": "gzip"}), "compressed"),
        (Reply(status=404, steps=(b"no",)), "status 404"),
        (Reply(status=500), "status 500"),
        (Reply(status=204), "status 204"),
        (Reply(status=302), "could not be fetched|redirects|URL"),
    ],
)
async def test_what_is_no_image_is_refused(
    http: Http, upstream: Upstream, reply: Reply, says: str
) -> None:
    upstream.script(reply)
    message = await refusal(f"{upstream.url}/a?secret=1", http, private=True)
    assert any(one in message for one in says.split("|")), message
    assert f"'{upstream.url}/a'" in message and "secret" not in message


@pytest.mark.parametrize("tells_its_length", [True, False])
async def test_an_image_larger_than_the_limit_is_left(
    http: Http, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tells_its_length: bool
) -> None:
    monkeypatch.setattr(images, "LARGEST", 1000)
    headers = {"Content-Type": "image/png"}
    if tells_its_length:
        headers["Content-Length"] = "2000"
    steps = (bytes(600), HANG) if tells_its_length else (bytes(600), bytes(600), HANG)
    upstream.script(Reply(headers=headers, steps=steps))
    assert "larger" in await refusal(f"{upstream.url}/a", http, private=True)
    await upstream.requests[0].gone.wait()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(before=(HANG,)),
        Reply(headers={"Content-Type": "image/png"}, steps=(b"x", HANG)),
        Reply(headers={"Content-Type": "image/png"}, steps=(b"x", 0.05) * 100),
        redirect("/again"),
    ],
    ids=["silent", "stuck", "drip", "redirects"],
)
async def test_a_slow_server_has_so_long_for_everything(
    http: Http, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    monkeypatch.setattr(images, "FETCH_WITHIN", 0.3)
    if reply.status == 302:
        reply = Reply(status=302, headers=reply.headers, before=(0.2,))
    upstream.script(reply)
    assert "within" in await refusal(f"{upstream.url}/a", http, private=True)


async def test_a_connection_that_fails_is_the_clients_to_mend(http: Http) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
        assert "could not be fetched" in await refusal(url, http, private=True)


NOT_FOR_US = [
    "",
    "image.png",
    "//example.com/a.png",
    "file:///etc/passwd",
    "ftp://example.com/a.png",
    "gopher://example.com/a.png",
    "http://",
    "http:///a.png",
    "http://me@example.com/",
    "http://me:secret@example.com/",
    "http://:secret@example.com/",
    "http://example.com:22/",
    "http://example.com:8080/",
    "http://example.com:99999/",
    "http://example.com:port/",
    "http://[::1/",
    "http://no-such-host.invalid/a.png",
    "http://a..b/",
    "http://" + "a" * 300 + "/",
    "http://exa mple.com/",
    "http://\ud800.com/",
    "http://xn--a/",
]


async def test_a_url_that_is_none_for_us_is_refused(http: Http) -> None:
    for url in NOT_FOR_US:
        assert "secret" not in await refusal(url, http), url


PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
]


async def test_a_private_address_is_refused_however_it_is_written(http: Http) -> None:
    for address in PRIVATE:
        host = f"[{address}]" if ":" in address else address
        message = await refusal(f"http://{host}/latest/meta-data", http)
        assert "address" in message and not is_public(address), address


SPELLINGS = [
    *("localhost", "LOCALHOST.", "localhost.localdomain"),
    *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "017700000001"),
    *("0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "①②⑦.0.0.1", "127。0。0。1"),
    *("127.0.0.1.", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "0", "00000000", "%31%32%37.0.0.1"),
]


async def test_no_other_spelling_of_an_address_reaches_it(http: Http) -> None:
    for host in SPELLINGS:
        assert "address" in await refusal(f"http://{host}/", http), host


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_the_public_internet_is_public(address: str) -> None:
    assert is_public(address)


def test_a_name_is_no_address() -> None:
    assert not is_public("example.com") and not is_public("2130706433") and not is_public("")


def answering(addresses: list[list[str]]) -> Any:
    """A name service that gives these addresses, one list per question."""

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, kind, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, kind, 6, "", (one, port))
            for one in addresses.pop(0)
        ]

    return getaddrinfo


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["2606:4700::1111", "::ffff:10.0.0.1"], []],
)
async def test_a_name_with_any_private_address_is_refused(
    http: Http, monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answering([found]))
    assert "address" in await refusal("http://innocent.example/", http)


async def test_the_images_of_a_request_are_each_fetched_once(
    http: Http, upstream: Upstream
) -> None:
    upstream.script(lambda request: picture(PNG + request.path.encode()))
    urls = [f"{upstream.url}/{number % 12}" for number in range(30)]
    found = await images_of([*urls, f"data:image/png;base64,{PNG64}"], http, FAILURES, private=True)
    assert len(found) == 13 and len(upstream.requests) == 12
    for number, url in enumerate(urls[:12]):
        assert base64.b64decode(found[url].data) == PNG + f"/{number}".encode()


async def test_the_images_of_a_request_have_a_limit_together(
    http: Http, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FETCHED_BYTES", 1000)
    upstream.script(picture(PNG + bytes(400)))
    urls = [f"{upstream.url}/{number}" for number in range(5)]
    with pytest.raises(AttemptFailed, match="together"):
        await images_of(urls, http, FAILURES, private=True)
    monkeypatch.setattr(images, "FETCHED_COUNT", 4)
    with pytest.raises(AttemptFailed, match="More than 4 images") as caught:
        await images_of(urls, http, FAILURES, private=True)
    assert (caught.value.info.status, caught.value.info.param) == (400, "messages")


async def test_the_images_of_a_request_have_so_long_together(
    http: Http, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FETCH_ALL_WITHIN", 0.3)
    upstream.script(Reply(before=(HANG,)))
    urls = [f"{upstream.url}/{number}" for number in range(10)]
    with pytest.raises(AttemptFailed, match="not all fetched") as caught:
        await images_of(urls, http, FAILURES, private=True)
    assert caught.value.info.status == 400
    for request in upstream.requests:
        await request.gone.wait()


async def test_one_bad_image_ends_the_fetching_of_the_others(
    http: Http, upstream: Upstream
) -> None:
    def reply(request: Recorded) -> Reply:
        return Reply(before=(HANG,)) if request.path == "/slow" else Reply(status=404)

    upstream.script(reply)
    with pytest.raises(AttemptFailed, match="404"):
        await images_of(
            [f"{upstream.url}/slow", f"{upstream.url}/no"], http, FAILURES, private=True
        )
    for request in upstream.requests:
        if request.path == "/slow":
            await request.gone.wait()


def test_the_public_internet_is_fetched_from_and_no_way_leads_from_it_to_a_private_address() -> (
    None
):
    """In a network of its own, where one address of this machine is a public one."""
    if subprocess.run(["unshare", "-rn", "ip", "link"], capture_output=True).returncode:
        pytest.skip("this machine does not let us have a network of our own")
    command = ["unshare", "-rn", sys.executable, "-m", "tests.contract.public_child"]
    child = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found = json.loads(child.stdout)
    told = found["told"]
    good = {url for url, what in told.items() if what == "image/png"}
    assert good == {
        "http://93.184.216.34/a.png",
        "http://93.184.216.34/to-picture",
        "http://pictures.example/a.png",
    }
    refused = [what for url, what in told.items() if url not in good]
    assert len(refused) == 6
    assert sum("no public address" in what for what in refused) == 5
    assert sum("port 8080" in what for what in refused) == 1
    assert found["private"] == []
    assert found["public"].count("/to-rebinding") == 1
