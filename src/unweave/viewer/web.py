"""The viewer as a web application: who is let in, what a browser may load for it, and how much it may send."""

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

HEADERS = {  # what Gradio's page would ask of other machines is refused by the browser
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MOST_SENT = 4 * MOST_BYTES  # Gradio says of more only that it failed; up to that the session says why
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


def application(session: Session, password: str, only_here: bool) -> FastAPI:
    """The viewer of a session; visitors have to give a password where there is one.

    `only_here`, it answers to names of this machine only, so that no page from elsewhere can get at it by giving its
    own name this machine's address (DNS rebinding).
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
        auth_message="Any name, and the password that the viewer was started with.",
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
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)
