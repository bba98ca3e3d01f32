"""An admin API that answers as a test says, what it shows, and the commands that ask it."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from click.testing import CliRunner, Result

from compose.cli import nexus

ID, OTHER_ID = "key_00112233445566aa", "key_ffeeddccbbaa9988"
SECRET = "nx-" + "4" * 49


class Asked(NamedTuple):
    """A request as the server saw it; `path` is not unquoted."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str | None


class Server:
    """An HTTP server that gives scripted answers in order and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: list[tuple[int, bytes, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                url = urlsplit(self.path)
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append(
                    Asked(
                        self.command,
                        url.path,
                        dict(parse_qsl(url.query)),
                        json.loads(sent) if sent else None,
                        self.headers.get("authorization"),
                    )
                )
                status, body, headers = outer._answers.pop(0)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def will(self, body: Any, status: int = 200, **headers: str) -> None:
        """The next answer; text goes as it is, all else as JSON."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self._answers.append((status, data, {k.replace("_", "-"): v for k, v in headers.items()}))

    def will_refuse(self, status: int, message: str, **headers: str) -> None:
        self.will({"error": {"message": message, "type": "t", "code": None}}, status, **headers)

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def environment(server: Server) -> dict[str, str | None]:
    return {"NEXUS_URL": server.url, "NEXUS_TOKEN": "nx-admin"}


def nexus_cli(server: Server, *words: str) -> Result:
    """The command in this process; stdout is no terminal."""
    return CliRunner().invoke(nexus, words, env=environment(server), catch_exceptions=False)


def key(id: str = ID, **more: Any) -> dict[str, Any]:
    """A key as the API shows it."""
    blank = dict.fromkeys(
        ("name", "hint", "project", "team", "user", "allowed_models", "tier", "limits", "payloads",
         "expires_at", "revoked_at"),
    )  # fmt: skip
    return {
        "object": "key", "id": id, **blank, "status": "active", "source": "ledger", "metadata": {},
        "on_disconnect": "cancel", "budgets": [], "secrets": [{"hint": "nx-4444…4444",
        "until": None}], "created_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:00:00Z", **more,
    }  # fmt: skip


def budget(**more: Any) -> dict[str, Any]:
    return {
        "object": "budget", "name": "project:shop:month", "scope": "project", "id": "shop",
        "period": "month", "limit_usd": 100.0, "hard_stop": True, "warning_threshold": 0.8,
        "source": "ledger", "created_at": None, "updated_at": None, **more,
    }  # fmt: skip


def page(*data: dict[str, Any], next: str | None = None) -> dict[str, Any]:
    more = {"has_more": next is not None, "next": next}
    return {"object": "list", "data": data, **more, "as_of_seq": 7}


GRACE = [{"hint": "nx-3333…3333", "until": "2026-11-21T10:00:00Z"},
         {"hint": "nx-4444…4444", "until": None}]  # fmt: skip
