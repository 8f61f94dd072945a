"""DICOM files compressed by GDCM."""

import tempfile
from pathlib import Path

import gdcm

LOSSLESS = {
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "JPEG lossless, first order": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "RLE": gdcm.TransferSyntax.RLELossless,
}


def recompressed(data: bytes, syntax: int) -> bytes:
    """The file with its pixels compressed by GDCM."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.dcm", f"{folder}/out.dcm"
        Path(source).write_bytes(data)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), None
        reader.SetFileName(source)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(target).read_bytes()
