"""The viewer as a web application: passwords, hosts, what a browser may load, and the size of uploads."""

import hmac
from importlib import resources

import gradio as gr
from fastapi import FastAPI
from gradio.themes import Base
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unweave.viewer.app import build
from unweave.viewer.session import MOST_BYTES, Session

HEADERS = {  # the browser refuses requests of Gradio's page to other machines
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MOST_SENT = 4 * MOST_BYTES  # above it Gradio only reports a failure; below it the session reports the reason
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


def application(session: Session, password: str, only_here: bool) -> FastAPI:
    """The viewer of a session; visitors need the password unless it is empty.

    With `only_here` it accepts only host names of this machine, which prevents DNS rebinding: another page that gives
    its own name this machine's address.
    """

    def admits(_: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    guards = [Middleware(_Headers)]
    if only_here:
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK))
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None, middleware=guards),
        build(session),
        "/",
        auth=admits if password else None,
        auth_message="Enter any name, and the password with which the viewer was started.",
        show_error=False,
        max_file_size=MOST_SENT,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=resources.files("unweave.viewer").joinpath("view.css").read_text(encoding="utf-8"),
    )


class _Headers:
    """Adds `HEADERS` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)
