"""The files of the page, read once: nothing else can be asked for."""

from __future__ import annotations

from importlib.resources import files

from fastapi.responses import Response

from ultrasam.web.limits import WebError

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Page:
    """HTML, style sheet and scripts of the folder ``static``."""

    def __init__(self) -> None:
        folder = files("ultrasam.web") / "static"
        self._files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}

    def answer(self, name: str) -> Response:
        """Return a file of the page.

        Raises:
            WebError: there is none of that name.
        """
        if name not in self._files:
            raise WebError(404, "There is nothing at this address.")
        return Response(self._files[name], media_type=_TYPES[name.rpartition(".")[2]])
