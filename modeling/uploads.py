"""Uploads stream straight into the vault: no temporary files, no plaintext on disk, and no files anywhere else."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import IO, Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_protect

from billing import limits
from modeling.actions.files import stored_bytes
from modeling.actions.upload_parts import PART_BYTES_MOST
from saas.lib.errors import Refusal
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope

CHUNK_BYTES = 1 << 18
ENVELOPE_BYTES = 1 << 16  # what a multipart body may hold beside the file


class FilesRefused(Refusal, SuspiciousOperation):
    """A file where none is taken; while CSRF is checked Django itself answers, with 400 for a SuspiciousOperation."""


class RefuseUploadHandler(FileUploadHandler):
    """The default of every page: files are taken by the upload pages and calls only."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Refuse at the first byte of a file."""
        raise FilesRefused(_("Files are not accepted here."), status=415, code="no_files_here")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Never reached."""
        return raw_data

    def file_complete(self, file_size: int) -> UploadedFile | None:  # type: ignore[type-arg]
        """Never reached."""
        return None


def upload_answer(request: HttpRequest, add: Callable[[], str]) -> HttpResponse:
    """What a page that takes a file answers once `add` has made something of it, which returns the address to go on.

    JSON to upload.js, which shows progress and a refusal in place; otherwise a redirect, and a refusal rises.
    """
    wants_json = "application/json" in request.headers.get("Accept", "")
    try:
        place = add()
    except Refusal as refusal:
        if wants_json:
            return JsonResponse(refusal.body(), status=refusal.status)
        raise
    return JsonResponse({"location": place}, status=201) if wants_json else redirect(place)


class VaultUpload(UploadedFile):  # type: ignore[type-arg]
    """A file of a form whose bytes are in the vault already; `writer` waits for finish() or abort().

    `sha256` is that of a part's bytes; b"" for a whole file.
    """

    def __init__(
        self,
        writer: vault.VaultWriter,
        *,
        name: str,
        content_type: str | None,
        size: int,
        sha256: bytes = b"",
    ) -> None:
        super().__init__(None, name, content_type, size)
        self.writer, self.sha256 = writer, sha256


class VaultUploadHandler(FileUploadHandler):
    """Streams one file into the tenant's vault, up to the plan's storage limit. Call `abort()` when all is done.

    `most_bytes` bounds the file itself, for a part of a larger one, whose checksum is counted.
    """

    chunk_size = CHUNK_BYTES

    def __init__(
        self,
        tenant: Tenant,
        request: HttpRequest | None = None,
        *,
        kind: str = "upload",
        most_bytes: int | None = None,
    ) -> None:
        super().__init__(request)
        self.tenant = tenant
        self._kind, self._most = kind, most_bytes
        self._digest = None if most_bytes is None else hashlib.sha256()
        self._writer: vault.VaultWriter | None = None
        self._stored, self._allowance = 0, most_bytes or 0
        if most_bytes is None:  # the room for parts was taken when their upload was announced
            with scope(tenant):
                limits.require_writable(tenant)
                self._stored = stored_bytes(tenant)
                self._allowance = limits.ceiling(tenant, "storage_bytes") - self._stored

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: dict[str, str],  # noqa: N803 - Django's name
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> tuple[Any, Any] | None:
        """Refuse by the declared length before reading the body; hold no connection while a slow client sends."""
        if content_length - ENVELOPE_BYTES > self._allowance:
            self._refuse(content_length - ENVELOPE_BYTES)
        if not connection.in_atomic_block:
            connection.close()
        return None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Begin the object; a second file in one form is refused."""
        super().new_file(*args, **kwargs)
        if self._writer is not None:
            raise Refusal(_("Send one file at a time."), param="file", code="one_file")
        self._writer = vault.create(self.tenant, self._kind)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Seal a chunk; nothing is handed on to another handler."""
        assert self._writer is not None
        if start + len(raw_data) > self._allowance:
            self._refuse(start + len(raw_data))
        self._writer.write(raw_data)
        if self._digest is not None:
            self._digest.update(raw_data)
        return None

    def file_complete(self, file_size: int) -> UploadedFile | None:  # type: ignore[type-arg]
        """The form's file: a name and a writer that holds everything."""
        assert self._writer is not None
        digest = b"" if self._digest is None else self._digest.digest()
        name = self.file_name or "file"
        return VaultUpload(
            self._writer, name=name, content_type=self.content_type, size=file_size, sha256=digest
        )

    def upload_interrupted(self) -> None:
        """The client left."""
        self.abort()

    def abort(self) -> None:
        """Forget what was not finished; harmless after finish()."""
        if self._writer is not None:
            self._writer.abort()

    def _refuse(self, size: int) -> None:
        self.abort()
        if self._most is not None and size > self._most:
            raise Refusal(
                _("A part has at most %(most)s MiB.") % {"most": self._most >> 20},
                status=413,
                code="part_too_large",
                param="data",
            )
        with scope(self.tenant):
            limits.require(self.tenant, "storage_bytes", self._stored + size)


View = Callable[..., HttpResponse]


def takes_upload(view: View) -> View:
    """For upload pages: `@csrf_exempt @member("member", scoped=False) @takes_upload def view(request, …)`.

    Installs the vault handler before the form is read, then checks the CSRF token as usual (which reads the form).
    `request.FILES["file"]` is a VaultUpload; what the view does not finish is forgotten.
    """
    return _taking(view, VaultUploadHandler)


def takes_part(view: View) -> View:
    """The same for one part of a larger upload, in the form field `data`."""
    return _taking(view, functools.partial(VaultUploadHandler, kind="part", most_bytes=PART_BYTES_MOST))


def _taking(view: View, handler: Callable[..., VaultUploadHandler]) -> View:
    @functools.wraps(view)
    def enter(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            return csrf_protect(view)(request, *args, **kwargs)
        uploading = handler(request.tenant, request)
        request.upload_handlers = [uploading]
        request.csrf_processing_done = False
        try:
            return csrf_protect(view)(request, *args, **kwargs)
        finally:
            uploading.abort()

    return enter
