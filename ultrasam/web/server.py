"""Runs the page: a socket first, then the model, then requests."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrasam.errors import ConfigError
from ultrasam.web.guard import App, Guard
from ultrasam.web.limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from ultrasam.inference import UltraSam
    from ultrasam.web.engine import Engine
    from ultrasam.web.store import Store

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def require_packages() -> None:
    """Refuse to start without the packages of the extra ``web``.

    Raises:
        ConfigError: one is not installed.
    """
    for package in ("fastapi", "uvicorn"):
        try:
            __import__(package)
        except ImportError as error:
            raise ConfigError(f"the page needs the package {package}; run pip install 'ultrasam[web]'") from error


def make_app(
    engine: Engine,
    limits: Limits,
    host: str = "127.0.0.1",
    names: tuple[str, ...] = (),
    store: Store | None = None,
) -> App:
    """Return the guarded application.

    Args:
        engine: the model.
        limits: what the server keeps and takes.
        host: address that the server listens on.
        names: further names that it answers to, also those of proxies.
        store: of the open files; None for a new one.
    """
    from ultrasam.web.api import create_app

    local = host in LOCAL_HOSTS
    hosts = (host,) if local else (host, socket.gethostname())
    return Guard(create_app(engine, limits, store), hosts, any_address=not local, proxied=names)


def bind(host: str, port: int) -> socket.socket:
    """Take an address, not listening yet.

    Raises:
        ConfigError: the port is in use or not allowed, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host} is no address of this machine ({error.strerror}); use 127.0.0.1") from error
    try:
        # Else a server that was stopped a moment ago keeps its port for a minute.
        if sys.platform != "win32":
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is in use; choose another with --port") from error
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} may not be used ({error.strerror}); choose one above 1023") from error
        raise ConfigError(f"--host {host} cannot be used ({error.strerror}); use 127.0.0.1") from error
    return taken


def address_of(taken: socket.socket, host: str) -> str:
    """Return the address to open in a browser on this machine."""
    port = taken.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def load_model(weights: str | Path | None, device: str | None, config: str | None = None) -> UltraSam:
    """Load the network, and answer one prompt, so that the first click does not pay for what torch makes once.

    Args:
        weights: file or name; None for the model that comes with the package.
        device: as for ``UltraSam.from_checkpoint``.
        config: configuration of a prompted classifier whose checkpoint does not hold it as plain values.
    """
    import numpy as np

    from ultrasam.downstream.page import prompted_model
    from ultrasam.inference import UltraSam

    model = prompted_model(weights, config, device) or UltraSam.from_checkpoint(weights, device)
    model.session(np.zeros((64, 64, 3), np.uint8)).predict(points=[[32, 32]])
    return model


def make_engine(model: UltraSam, cache_bytes: int) -> Engine:
    """Return what predicts for the page; of a prompted classifier with the classes of the objects."""
    from ultrasam.downstream.page import ClassifyingEngine
    from ultrasam.downstream.prompted import PromptedUltraSam
    from ultrasam.web.engine import Engine

    return ClassifyingEngine(model, cache_bytes) if isinstance(model, PromptedUltraSam) else Engine(model, cache_bytes)


def make_server(app: App, on_ready: Callable[[], None]) -> uvicorn.Server:
    """Return a server, to be run on a socket of `bind`; ``on_ready`` is called when it would answer."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                on_ready()

    options: dict[str, Any] = {
        "log_level": "warning",
        # Addresses hold the names of sessions, which are secrets.
        "access_log": False,
        "server_header": False,
        "ws": "none",
        "lifespan": "off",
        "timeout_graceful_shutdown": 3,
        # A reader who looks at the image before clicking again keeps the connection.
        "timeout_keep_alive": 75,
    }
    return Server(uvicorn.Config(app, **options))  # type: ignore[arg-type]
