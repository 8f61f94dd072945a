"""Multipart forms: the uploaded file, parsed in memory."""

from collections.abc import AsyncGenerator

import anyio
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from core.errors import UserError

# bytes parsed at a time, so that other requests are answered in between
_CHUNK = 2**20
# limits of text fields, which are ignored
_FIELDS, _FIELD_BYTES = 16, 2**16


def is_form(headers: Headers) -> bool:
    """True if the request's body is a multipart form."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


async def file_of_form(headers: Headers, body: bytes) -> bytes:
    """Content of the file in a form. Raises UserError for an invalid form or number of files."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _CHUNK):
            yield body[start : start + _CHUNK]
            await anyio.sleep(0)

    parser = MultiPartParser(
        headers, chunks(), max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
    )
    # larger files would be written to disk
    parser.spool_max_size = len(body)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        text = error.message if isinstance(error, MultiPartException) else "invalid charset"
        reason = text.rstrip(".").replace(". ", ", ").lower()
        raise UserError(
            f"the form cannot be read ({reason}): send one image as its file"
        ) from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise UserError("the form has no file: send one image, such as curl -F file=@image.png")
        return await files[0].read()
    finally:
        await form.close()
