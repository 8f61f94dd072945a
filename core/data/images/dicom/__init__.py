"""DICOM: headers, parsing limits, pixel data and windowing."""
