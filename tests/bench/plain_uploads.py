"""The server of tests/bench/uploads.py: the site, and beside it the same upload into a plain file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

import uvicorn
from django.conf import settings

if __name__ == "__main__":
    from saas.asgi import application  # sets Django up before anything below is imported

from django.urls import include, path
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from modeling.uploads import VaultUploadHandler
from tenants.access import TenantAPIView


class PlainWriter:
    """Stands where the vault's writer stands: the same bytes as they come, synced and renamed at the end."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._draft, self._file = folder / ".draft", folder / "plain"
        self._sink = self._draft.open("wb", buffering=0)
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[self._sink.write(view) :]
        self.size_bytes += len(data)
        return len(data)

    def finish(self) -> None:
        """As the vault: durable, then visible."""
        os.fsync(self._sink.fileno())
        self._sink.close()
        self._draft.rename(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def abort(self) -> None:
        """Nothing is left open."""
        self._sink.close()


class PlainUploadHandler(VaultUploadHandler):
    """The same handler with the plain writer in place of the vault's."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """As the real one."""
        super().new_file(*args, **kwargs)
        if self._writer is not None:
            self._writer.abort()
        self._writer = PlainWriter(Path(settings.DATA_DIR) / "plain")  # type: ignore[assignment]


class PlainView(TenantAPIView):
    """POST /bench/files: authenticated and parsed as /v1/files is."""

    scope_name = "files"
    scoped = False
    parser_classes = (MultiPartParser,)

    def post(self, request: Request) -> Response:
        """Keep the file as it is."""
        handler = PlainUploadHandler(request.auth.tenant, request._request)  # type: ignore[union-attr]
        request._request.upload_handlers = [handler]
        upload: Any = request.FILES["file"]
        upload.writer.finish()
        return Response({"bytes": upload.writer.size_bytes})


urlpatterns = [path("bench/files", PlainView.as_view()), path("", include("saas.urls"))]


def main(serve: Callable[..., Any], port: int) -> None:
    """Serve until stopped, as saas/stack.py words it."""
    settings.ROOT_URLCONF = "tests.bench.plain_uploads"
    uvicorn.run(
        serve, host="127.0.0.1", port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=2
    )


if __name__ == "__main__":
    main(application, int(sys.argv[1]))
