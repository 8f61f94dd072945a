"""The file of a multipart form, in memory alone."""

from collections.abc import AsyncGenerator

import anyio
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from core.errors import UserError

# parsed at a time: other requests are answered between two
_CHUNK = 2**20
# text fields beside the file, which are not used
_FIELDS, _FIELD_BYTES = 16, 2**16


def is_form(headers: Headers) -> bool:
    """Whether a request's body is a multipart form."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


async def file_of_form(headers: Headers, body: bytes) -> bytes:
    """The content of the one file in a form. Raises UserError for another number, and no form."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _CHUNK):
            yield body[start : start + _CHUNK]
            await anyio.sleep(0)

    parser = MultiPartParser(
        headers, chunks(), max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
    )
    # a larger file would be written to the disk
    parser.spool_max_size = len(body)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        reason = error.message.rstrip(".").replace(". ", ", ").lower()
        raise UserError(
            f"the form cannot be read ({reason}): send one image as its file"
        ) from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise UserError("the form has no file: send one image, as curl -F file=@image.png does")
        return await files[0].read()
    finally:
        await form.close()
