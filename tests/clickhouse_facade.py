"""ClickHouse's HTTP interface over the embedded engine, as far as clickhouse-connect speaks it.

It lets the HTTP client library run where no server can be had. It proves our use of the library,
not a server: no concurrency, authentication, replication or errors in the middle of a stream.
By hand: `python -m tests.clickhouse_facade DIRECTORY PORT`, and NEXUS_TEST_CLICKHOUSE_URL names it.
"""

import gzip
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

_INSERT = re.compile(rb"\A(INSERT INTO .*? FORMAT (\w+))\s*\n(.*)\Z", re.DOTALL | re.IGNORECASE)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_TRANSPORT = {
    "query", "database", "default_format", "session_id", "session_timeout", "session_check",
    "query_id", "compress", "decompress", "buffer_size", "wait_end_of_query", "role", "quota_key",
    "enable_http_compression", "client_protocol_version", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip
_UNPACK = {"lz4": lz4.frame.decompress, "gzip": gzip.decompress}


class Facade(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    path_of_engine = ""
    engine = threading.Lock()

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping" or "query=" not in self.path:
            self._answer(200, b"Ok.\n", {})
        else:
            self.do_POST()

    def do_POST(self) -> None:
        arguments = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = _UNPACK.get(self.headers.get("Content-Encoding", ""), bytes)(self._body())
        statement = arguments.get("query", "").encode()
        body = statement + b"\n" + body if statement else body
        try:
            result, form = self._run(body, arguments)
        except Exception as error:
            text = str(error)
            code = re.search(r"Code: (\d+)", text)
            headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1000"}
            self._answer(500, text.encode(), headers)
            return
        self._answer(200, result, {"X-ClickHouse-Format": form, "X-ClickHouse-Timezone": "UTC"})

    def _run(self, body: bytes, arguments: dict[str, str]) -> tuple[bytes, str]:
        """A connection for each request: nothing of a failed one is left for the next."""
        with self.engine:
            connection = chdb.connect(self.path_of_engine)
            try:
                if database := arguments.get("database"):
                    connection.query(f"use `{database}`")
                for name, value in arguments.items():
                    if name not in _TRANSPORT and not name.startswith("param_"):
                        connection.query(f"set {name} = '{value}'")
                return self._execute(connection, body, arguments)
            finally:
                connection.close()

    def _execute(
        self, connection: Any, body: bytes, arguments: dict[str, str]
    ) -> tuple[bytes, str]:
        insert = _INSERT.match(body)
        if insert:
            with tempfile.NamedTemporaryFile(suffix=".native") as file:
                file.write(insert[3])
                file.flush()
                into = insert[1].decode().rpartition(" FORMAT ")[0]
                connection.query(f"{into} FROM INFILE '{file.name}' FORMAT {insert[2].decode()}")
            return b"", ""
        sql = body.decode()
        asked = _FORMAT.search(sql)
        form = asked[1] if asked else arguments.get("default_format", "TabSeparated")
        bound = {
            name.removeprefix("param_"): value
            for name, value in arguments.items()
            if name.startswith("param_")
        }
        result = connection.query(sql, form, params=bound)
        return result.bytes() or b"", form

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


if __name__ == "__main__":
    Facade.path_of_engine = str(Path(sys.argv[1]).absolute())
    anchor = chdb.connect(Facade.path_of_engine)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Facade)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
