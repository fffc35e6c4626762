"""``ultrasam web``: the page, on this machine."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence

from ultrasam.cli.errors import guarded
from ultrasam.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="ultrasam web",
        description="Serve the page on this machine: open an image, DICOM or cine, click, and download masks. "
        "The last line printed is the address. Stop with Ctrl+C.",
    )
    parser.add_argument("--weights", help="weight file or name; default: the model that comes with the package")
    parser.add_argument("--config", metavar="FILE",
                        help="configuration of a prompted classifier whose checkpoint does not hold it as plain "
                        "values; it is executed")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: cuda where there is a GPU")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: %(default)s)")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="a further host name that the page is opened by, such as that of a reverse proxy; "
                        "may be repeated")  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--max-upload-mb", type=int, default=256, help="size of one file (default: %(default)s)")
    parser.add_argument("--max-memory-mb", type=int, default=1024,
                        help="all open files together; the one not used for longest makes room "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-files", type=int, default=16, help="files open at once (default: %(default)s)")
    parser.add_argument("--idle-minutes", type=int, default=60,
                        help="a file whose page is closed is dropped after so long (default: %(default)s)")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 2 where that cannot start."""
    options = build_parser().parse_args(argv)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ultrasam.web import server
    from ultrasam.web.limits import MEGABYTE, Limits

    for name in ("max_upload_mb", "max_memory_mb", "max_files", "idle_minutes"):
        value = getattr(options, name)
        if value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port must be 0 to 65535, got {options.port}")
    server.require_packages()
    from ultrasam.web.store import Store

    limits = Limits(
        upload_bytes=options.max_upload_mb * MEGABYTE,
        memory_bytes=max(options.max_memory_mb, options.max_upload_mb) * MEGABYTE,
        sessions=options.max_files,
        idle_seconds=60.0 * options.idle_minutes,
    )
    with server.bind(options.host, options.port) as taken:
        if options.host not in server.LOCAL_HOSTS:
            print(
                f"warning: the page listens on {options.host}, so that everyone who reaches this machine can use it, "
                "without a password and unencrypted",
                file=sys.stderr,
            )
        given = () if options.config is None else (options.config,)
        model = server.load_model(options.weights, options.device, *given)
        engine = server.make_engine(model, limits.cache_bytes)
        store = Store(limits, engine.forget)
        address = server.address_of(taken, options.host)

        def ready() -> None:
            print(address, flush=True)
            if options.open:
                webbrowser.open(address)

        try:
            app = server.make_app(engine, limits, options.host, tuple(options.allow_host), store)
            with store.expiring():
                server.make_server(app, ready).run(sockets=[taken])
        except KeyboardInterrupt:
            # uvicorn has shut down already and passes the interrupt on.
            return 0
        finally:
            engine.stop()
    return 0
