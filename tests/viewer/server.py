"""Serves a built OHIF, and an archive's DICOMweb from the same origin, so that the browser asks no other host."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.running_node import free_ports
from tests.waiting import eventually

CONFIGURATION = """
localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));
window.config = {
  routerBasename: '/', extensions: [], modes: [], showStudyList: false, maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false, strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' }, disableConfirmationPrompts: true, defaultDataSourceName: 'archive',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      friendlyName: 'archive', name: 'archive', qidoRoot: location.origin + '/dicom-web',
      wadoRoot: location.origin + '/dicom-web', wadoUriRoot: location.origin + '/wado', imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, qidoSupportsIncludeField: false,
      omitQuotationForMultipartRequest: true, bulkDataURI: { enabled: true, relativeResolution: 'studies' },
    },
  }],
};
"""
OF_ONE_CONNECTION = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "accept-encoding"}
"""Headers that a proxy does not hand on."""


@contextmanager
def serving(dist: Path, archive: str) -> Iterator[str]:
    """Serve a viewer.

    Parameters
    ----------
    dist
        The folder of its files.
    archive
        Base URL of the archive, above ``dicom-web``.

    Yields
    ------
    str
        The viewer's base URL.
    """
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(_viewer(dist, archive), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, name="viewer")
    thread.start()
    try:
        eventually(lambda: server.started, "the viewer is served")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def _viewer(dist: Path, archive: str) -> Starlette:
    # Orthanc closes idle connections without a word, so each request has one of its own
    client = httpx.AsyncClient(
        base_url=archive, trust_env=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
    )

    async def configuration(_: Request) -> Response:
        return Response(CONFIGURATION, media_type="text/javascript")

    async def page(_: Request) -> Response:
        return FileResponse(dist / "index.html")

    async def dicomweb(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in OF_ONE_CONNECTION}
        # the archive writes URLs of bulk data, which must lead back through here
        headers |= {"host": request.headers["host"], "accept-encoding": "identity"}
        query = f"?{request.url.query}" if request.url.query else ""
        answer = await client.request(
            request.method, request.url.path + query, headers=headers, content=await request.body()
        )
        kept = {name: value for name, value in answer.headers.items() if name not in OF_ONE_CONNECTION}
        return Response(answer.content, answer.status_code, kept)

    return Starlette(
        routes=[
            Route("/app-config.js", configuration),
            Route("/viewer", page),
            Route("/dicom-web/{path:path}", dicomweb, methods=["GET", "POST"]),
            Route("/wado", dicomweb),
            Mount("/", StaticFiles(directory=dist)),
        ]
    )
