"""The demo: the serving application with a page in front of it that needs nothing from the network.

Plain HTML and JavaScript on FastAPI. The page talks to `/enhance` and `/critique` of components/serving/app.py, so it
has the limits of the server, and what it shows is what any client gets.
"""

from collections.abc import Collection
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from components.serving.app import create_app
from components.serving.service import PhotoService

PAGE = Path(__file__).with_name("page.html")
_POLICY = (
    "default-src 'none'; img-src blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_demo(service: PhotoService, hosts: Collection[str] = ()) -> FastAPI:
    """The application of ``service`` with the page at `/`; ``hosts`` as for `create_app`."""
    app = create_app(service, hosts)
    page = PAGE.read_text(encoding="utf-8").replace("{{strength}}", f"{service.strength:.2f}")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    return app
