"""The page, the file of a fit by ranges of bytes, and its pictures by the IIIF Image API, on this machine alone."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from secrets import token_hex
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.errors import InputError, one_line
from viewing import iiif
from viewing.images import Picture, encoded
from viewing.site import VIEWER, Site, page

HOST = "127.0.0.1"
_HOSTS = [HOST, "localhost"]  # other names that lead here are somebody else's, who wants to read what is served
_AT_ONCE = 2  # pictures that are made
_FRESH = [(b"cache-control", b"no-cache")]  # browsers ask whether what they keep is still so
_OPEN = [  # pages of other sites may read it (CORS)
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-expose-headers", b"Link"),
]


def make_app(site: Site, pictures: dict[str, Picture]) -> ASGIApp:
    """
    Inputs
        pictures: those that are served by IIIF, by their identifiers
    """
    service = Service(pictures, tag=f'"{token_hex(8)}"')

    def index(_: HttpRequest) -> Response:
        return HTMLResponse(page(site.description))

    def fit(request: HttpRequest) -> Response:
        if request.path_params["name"] != site.name or not site.fit.is_file():  # it may have been removed since
            raise HTTPException(404)
        return FileResponse(site.fit, media_type="application/octet-stream")

    iiif_app = Starlette(routes=service.routes, exception_handlers={HTTPException: _told})
    routes = [
        Route("/", index),
        Route("/index.html", index),
        Route("/{name}.miner", fit),
        Mount("/iiif", app=_with_headers(_answering_options(iiif_app), _OPEN)),
        Mount("/", app=StaticFiles(directory=VIEWER)),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)
    return _with_headers(Starlette(routes=routes, middleware=[hosts]), _FRESH)


def _told(_: HttpRequest, error: HTTPException) -> Response:
    return PlainTextResponse(f"{error.detail}\n", error.status_code)


def _with_headers(app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> ASGIApp:
    """These headers in whatever it answers."""

    async def adding(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            await send(message | {"headers": [*message["headers"], *headers]} if is_start else message)

        await app(scope, receive, sent)

    return adding


def _answering_options(app: ASGIApp) -> ASGIApp:
    """Browsers ask by OPTIONS what a page of another site may do."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        is_question = scope["type"] == "http" and scope["method"] == "OPTIONS"
        await (Response(status_code=204) if is_question else app)(scope, receive, send)

    return answering


@dataclass(frozen=True)
class Service:
    """The IIIF Image API.

    pictures: by their identifiers
    tag: of all that this process serves, for caches: another one may serve others by the same names
    """

    pictures: dict[str, Picture]
    tag: str

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/{name}", self.base),
            Route("/{name}/info.json", self.information),
            Route("/{name}/{region}/{size}/{rotation}/{last}", self._with_pool()),
        ]

    def base(self, request: HttpRequest) -> Response:
        self._named(request)
        return RedirectResponse(f"{_address(request)}/info.json", 303)

    def information(self, request: HttpRequest) -> Response:
        picture = self._named(request)
        is_linked = "application/ld+json" in request.headers.get("accept", "")
        media_type = f'application/ld+json;profile="{iiif.CONTEXT}"' if is_linked else "application/json"
        headers = {"ETag": self.tag, "Vary": "Accept", "Link": f'<{iiif.PROFILE}>;rel="profile"'}
        if self._is_known(request):
            return Response(status_code=304, headers=headers)
        text = json.dumps(iiif.information(_address(request), picture.size), indent=2)
        return Response(text, media_type=media_type, headers=headers)

    def _with_pool(self) -> Callable[[HttpRequest], Awaitable[Response]]:
        """Makes pictures in threads of its own: those that serve files stay free. Whoever has left before his turn gets
        none: viewers that zoom ask for much that they soon drop."""
        pool, turns = ThreadPoolExecutor(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)

        async def picture(request: HttpRequest) -> Response:
            async with turns:
                if await request.is_disconnected():
                    return Response(status_code=503)  # which nobody reads
                return await asyncio.get_running_loop().run_in_executor(pool, self.picture, request)

        return picture

    def picture(self, request: HttpRequest) -> Response:
        picture, parts = self._named(request), request.path_params
        words = [parts[name] for name in ("region", "size", "rotation", "last")]
        try:
            asked = iiif.parse(*words, of=picture.size, n_channels=picture.n_channels)
        except iiif.RequestError as error:
            raise HTTPException(error.status, str(error)) from error
        canonical = f'<{_address(request)}/{asked.path}>;rel="canonical"'
        headers = {"ETag": self.tag, "Link": f'<{iiif.PROFILE}>;rel="profile",{canonical}'}
        if self._is_known(request):
            return Response(status_code=304, headers=headers)
        try:
            data = encoded(picture, asked)
        except InputError as error:  # its file was changed, or is damaged
            raise HTTPException(500, one_line(error)) from error
        return Response(data, media_type=iiif.MEDIA_TYPES[asked.format], headers=headers)

    def _named(self, request: HttpRequest) -> Picture:
        name = request.path_params["name"]
        if name not in self.pictures:
            raise HTTPException(404, "no such picture" if self.pictures else "no such picture; a volume has none")
        return self.pictures[name]

    def _is_known(self, request: HttpRequest) -> bool:
        """Whether the client has the same already."""
        known = request.headers.get("if-none-match", "").split(",")
        return bool({"*", self.tag, f"W/{self.tag}"} & {tag.strip() for tag in known})


def _address(request: HttpRequest) -> str:
    """Of a picture, by the name of this machine that was asked."""
    return f"{request.base_url}iiif/{quote(request.path_params['name'], safe='')}"
