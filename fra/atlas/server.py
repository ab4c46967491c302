"""Serves the folder of an atlas to browsers of this machine."""

from __future__ import annotations

import errno
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"
NAMES = {"127.0.0.1", "localhost"}
"""Names by which a browser may reach it. A page of the web that gave this machine's address another name could else
read the faces (DNS rebinding)."""


class Handler(SimpleHTTPRequestHandler):
    """Serves files; requests under another name than this machine's own are refused."""

    extensions_map = {  # noqa: RUF012  declared so in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def send_head(self) -> Any:
        """Open the file that is requested; refuses other names of this machine, and lists no folder."""
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in NAMES:
            self.send_error(403, "Only localhost is served")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Add headers: an atlas that was written again is loaded again, and nothing else may read it."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: each visit requests a dozen files."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """The server of a folder on the loopback address; call `serve_forever` on it. Port 0 chooses a free one.

    Raises:
        OSError: The port is in use; the message names the remedy.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(
            errno.EADDRINUSE, f"port {port} is in use: choose another, or 0 for a free one"
        ) from None
