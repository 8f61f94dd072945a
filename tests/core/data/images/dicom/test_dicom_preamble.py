"""DICOM without preamble, meta information or file ending, and files that are not DICOM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from core.data.images.dicom.header import from_headers
from core.data.images.find_files import images_among, match_images, scan_folder
from core.errors import UserError
from tests.helpers.data.dicom_files import (
    close,
    data_set,
    dataset,
    decode_error,
    dicom,
    percentiles,
    read,
)
from tests.helpers.fuzz.image_files import saved

DEEP = np.random.default_rng(0).integers(0, 4096, (60, 40), dtype=np.uint16)
GREY = (DEEP // 16).astype(np.uint8)
IMPLICIT, LITTLE = uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian
BIG, DEFLATED = uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian


def whole(syntax: uid.UID) -> bytes:
    pixels = DEEP.byteswap() if syntax == BIG else DEEP
    about: dict[str, Any] = {"PatientID": "7", "StudyInstanceUID": "1.2", "ViewPosition": "PA"}
    return dicom(DEEP, syntax=syntax, PixelData=pixels.tobytes(), **about)


def without_syntax() -> bytes:
    """Meta information that names no transfer syntax, before an implicit data set."""
    name = b"\2\0\2\0UI\x08\0" + b"1.2.3.4\0"
    return (
        b"DICM\2\0\0\0UL\4\0" + len(name).to_bytes(4, "little") + name + data_set(whole(IMPLICIT))
    )


BARE = {
    "implicit": data_set(whole(IMPLICIT)),
    "explicit": data_set(whole(LITTLE)),
    "big-endian": data_set(whole(BIG)),
    **{f"meta, {one.name}": whole(one)[132:] for one in (IMPLICIT, LITTLE, BIG, DEFLATED)},
    "magic word, meta": whole(LITTLE)[128:],
    "magic word": b"DICM" + data_set(whole(IMPLICIT)),
    "preamble that poses as TIFF": b"II*\0\x54\0\0\0" + bytes(120) + whole(LITTLE)[128:],
    "blank preamble": bytes(128) + data_set(whole(IMPLICIT)),
    "blank preamble, meta": bytes(128) + whole(LITTLE)[132:],
    "preamble, implicit": bytes(128) + b"DICM" + data_set(whole(IMPLICIT)),
    "preamble, explicit": b"x" * 128 + b"DICM" + data_set(whole(LITTLE)),
    "preamble, big-endian": bytes(128) + b"DICM" + data_set(whole(BIG)),
    "no syntax": bytes(128) + without_syntax(),
    "magic word, no syntax": without_syntax(),
}


@pytest.mark.parametrize("what", BARE)
def test_bare_data_sets_are_read(tmp_path: Path, what: str) -> None:
    assert close(read(BARE[what]), percentiles(DEEP))
    (tmp_path / "image.dcm").write_bytes(BARE[what])
    headers = from_headers([str(tmp_path / "image.dcm")])
    assert [*np.concatenate([*headers.values()])] == ["7", "1.2", "PA"]
    decode_error(BARE[what][:400])


def test_compressed_pixels_need_a_transfer_syntax() -> None:
    data = dicom(GREY, saved(GREY, "JPEG2000", no_jp2=True), uid.JPEG2000Lossless)
    for bare in (data_set(data), bytes(128) + b"DICM" + data_set(data)):
        assert "it has no Transfer Syntax UID" in decode_error(bare)
    assert np.array_equal(read(data[132:]), GREY)


NO_DICOM = {
    "text": b"no image at all, but words\n" * 90,
    "table": b"ImageID,Mass\na.png,1\n" * 90,
    "zeros": bytes(4000),
    "noise": np.random.default_rng(1).bytes(4000),
    "UTF-16": "a table of words".encode("utf-16") * 90,
    "group 8, then noise": b"\x08\0" + np.random.default_rng(1).bytes(4000),
    "falling tags": data_set(whole(LITTLE))[10:60] + data_set(whole(LITTLE))[:60],
    "one element": b"\x08\0\x05\0CS\x04\0ABCD",
}


@pytest.mark.parametrize("what", NO_DICOM)
def test_an_invalid_data_set_is_refused(tmp_path: Path, what: str) -> None:
    assert "it is not a PNG, JPEG, TIFF or DICOM file" in decode_error(NO_DICOM[what])
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM1").write_bytes(NO_DICOM[what])
    assert images_among(tmp_path / "series", ["IM1"]) == []


def test_deflated_content_is_bounded_without_the_length_of_the_meta_information(
    tmp_path: Path,
) -> None:
    bare = whole(DEFLATED)[132 + 12 :]
    for data in (bare, b"DICM" + bare, bytes(128) + b"DICM" + bare):
        assert "its content is deflated" in decode_error(data)
        (tmp_path / "image.dcm").write_bytes(data)
        with pytest.raises(UserError, match="its content is deflated"):
            from_headers([str(tmp_path / "image.dcm")])


NAMES = ["a.dcm", "B.DCM", "c.ima", "e.dicom", "IM0001", "1.2.840.113619.2", "h.001", "sub/IM0001"]
OTHERS = ["DICOMDIR.bak", "readme.txt", "t.csv", "md5sums", "x.sha256", ".hidden.dcm"]


def test_all_images_of_a_folder_are_found(tmp_path: Path) -> None:
    for name, bare in zip(NAMES, BARE.values(), strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bare)
    for name in OTHERS:
        (tmp_path / name).write_bytes(b"0123456789abcdef  a.dcm\n" * 50)
    (tmp_path / "DICOMDIR").write_bytes(dataset(SOPClassUID=uid.MediaStorageDirectoryStorage))
    assert sorted(images_among(tmp_path, scan_folder(tmp_path))) == sorted(NAMES)
    paths = [str(tmp_path / name) for name in NAMES]
    assert from_headers(paths)
    assert match_images(["a", "B", "c", "e", *NAMES[4:]], tmp_path).paths == paths
