"""The public internet and nothing else: for what a client only names, such as the URL of an image.

Whoever may call the gateway must not reach through it what only the gateway can reach.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

_AT_ONCE = 64
_LOOKUPS_AT_ONCE = 4
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# RFC 6052: an IPv4 address in its last 32 bits.
_NAT64 = IPv6Network("64:ff9b::/96")


class NotPublic(Exception):
    """An address that not everybody may reach; nothing was sent to it."""


def is_public(address: str) -> bool:
    """Whether a literal address is one of the public internet.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is what that one is.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        ip = _stood_for(ip) or ip
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast


def session(*, private: bool) -> aiohttp.ClientSession:
    """A client session without cookies, proxies, credentials or kept connections.

    It connects to public addresses only, unless `private` says that any will do; else its requests
    raise NotPublic. To be made inside an event loop.
    """
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(private=private),
        use_dns_cache=False,
        socket_factory=None if private else _opened,
        force_close=True,
        limit=_AT_ONCE,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={hdrs.USER_AGENT: "nexus", hdrs.ACCEPT_ENCODING: "identity"},
        auto_decompress=False,
    )


class _Resolver(AbstractResolver):
    """Looks names up; one of them with any address that is not public has none.

    It has threads of its own, which end with it, so that slow names of clients do not keep those of
    providers waiting.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM
        )
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        if not self._private and not all(is_public(str(info[4][0])) for info in found):
            raise NotPublic(host)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _opened(info: AddrInfoType) -> socket.socket:
    """The socket for exactly the address that is judged here: the last door, and the only one that
    a literal address in a URL passes."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise NotPublic(address[0])
    return socket.socket(family, kind, protocol)


def _stood_for(ip: IPv6Address) -> IPv4Address | None:
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour
