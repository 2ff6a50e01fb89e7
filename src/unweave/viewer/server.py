"""`unweave view`: starts the viewer's server."""

import ipaddress
import os
import socket
import tempfile
from importlib.util import find_spec

from unweave.config import Sampling
from unweave.errors import UserError, require
from unweave.record import log
from unweave.viewer.session import Session


def view(run: str, host: str, port: int, password: str, data: str, device: str, sampling: Sampling) -> None:
    """Opens a run and serves its page until Ctrl-C. Raises `UserError` without Gradio, for an address or port that is
    not available, and as `Session.open` does."""
    require(find_spec("gradio") is not None, "the viewer is not installed: pip install 'unweave[viewer]'")
    with _listen(host, port) as listener, tempfile.TemporaryDirectory(prefix="unweave-view-") as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}  # read when Gradio is imported
        import uvicorn

        from unweave.viewer.web import application

        log(f"opening {run}")
        app = application(Session.open(run, data, device, sampling), password, only_here=_is_loopback(host))
        _warn(host, password)
        log(f"open http://{_named(host)}:{listener.getsockname()[1]} in a browser; Ctrl-C stops")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run([listener])
    raise KeyboardInterrupt  # uvicorn returns after Ctrl-C; raised also where Ctrl-C is ignored, as after a shell's `&`


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the model so that a port in use is reported at once; 0 takes a free port."""
    require(0 <= port < 65536, f"port is {port}: choose from 0 to 65535, 0 for a free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(f"cannot listen on {host}, port {port}: {reason}. Choose another --port or --host") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _warn(host: str, password: str) -> None:
    if _is_loopback(host):
        return
    if password:
        log("warning: the password and all pictures are sent unencrypted; use a tunnel outside a network you trust")
    else:
        log(f"warning: anyone who can connect to {host} can see, send pictures and rename units: give a --password")
