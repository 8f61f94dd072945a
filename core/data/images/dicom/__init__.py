"""DICOM: header, limits, pixel data and window."""
