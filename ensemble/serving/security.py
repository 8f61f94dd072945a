"""Host and origin checks of the page, against DNS rebinding and cross-site requests.

starlette's TrustedHostMiddleware has fixed names only; here every numeric address is allowed, as it
cannot be rebound.
"""

import base64
import hashlib
import ipaddress
import re
import socket
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# a name or an address, and a port
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@/]+)(:\d{1,5})?")


class SecurityMiddleware:
    """Refuse requests to other host names and from other sites; add `headers` to all responses."""

    def __init__(self, app: ASGIApp, *, host: str, headers: Mapping[str, str]) -> None:
        self.app, self.headers = app, headers
        self.names = {"localhost", socket.gethostname().lower(), host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        app = self.app
        if refused := self.refusal(Headers(scope=scope), scope["method"]):
            app = JSONResponse({"error": refused}, status_code=403)
        await app(scope, receive, with_headers)

    def refusal(self, headers: Headers, method: str) -> str:
        """Reason to refuse a request with these headers; "" for none."""
        host = headers.get("host", "").lower()
        if not self.is_ours(host):
            return (
                f"unknown host '{host[:100]}': open the page by the address that ensemble.serve "
                "printed"
            )
        origin = headers.get("origin")
        other = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        # another site may link to the page, but not send a form to it
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        opens = is_link and origin is None
        if (other and not opens) or (origin is not None and origin != f"http://{host}"):
            return "requests from other sites are refused"
        return ""

    def is_ours(self, host: str) -> bool:
        """True if a Host header names this server."""
        parts = _HOST.fullmatch(host)
        if parts is None:
            return False
        name = parts[1].strip("[]")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True


def safe_headers(page: str) -> dict[str, str]:
    """Headers of all responses: no other sources, only the scripts of `page`, no caching."""
    hashes = {}
    for tag in ("script", "style"):
        digests = (
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        hashes[tag] = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
