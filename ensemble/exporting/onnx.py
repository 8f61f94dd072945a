"""ONNX export of a graph, and its check by ONNX Runtime against `ensemble.infer`."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import UserError, format_size
from ensemble.exporting.graph import EnsembleGraph

BOUND = 1e-4
# for resized images: OpenCV rounds some pixels to the next of 256 levels
RESIZED_BOUND = 1e-3
# limit of a protobuf
LARGEST = 2_000_000_000
INPUT, OUTPUT = "images", "probabilities"


def check_installed() -> None:
    """Raise UserError with the install command if a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "ONNX needs packages that are not installed: pip install -c constraints.txt -e "
            '".[export]"'
        ) from error


def write_onnx(
    path: Path, graph: EnsembleGraph, images: torch.Tensor, metadata: Mapping[str, Any]
) -> None:
    """Write the graph for any number of images like `images` (B, 1, H, W), `metadata` as JSON.

    A graph that resizes accepts any height and width. Raises UserError if the weights are too
    large for one file or PyTorch cannot export the graph.
    """
    import onnx

    size = sum(one.numel() * one.element_size() for one in graph.state_dict().values())
    if size > LARGEST:
        raise UserError(
            f"the weights have {format_size(size)}, but an ONNX file has {format_size(LARGEST)} "
            "at most: export fewer checkpoints, or use --format folder"
        )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    dimensions = {0: torch.export.Dim("batch")}
    if graph.size:
        dimensions |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(dimensions,),
                external_data=False,
                verbose=False,
            )
    # the exporter raises many kinds of errors
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"this model cannot be exported to ONNX: {reason}") from error
    assert program is not None
    document = program.model_proto
    _delete_traces(document)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in metadata.items()
    }
    onnx.helper.set_model_props(document, texts)
    onnx.checker.check_model(document)
    path.write_bytes(document.SerializeToString())


def _delete_traces(message: Any) -> None:
    """Delete the stack trace of each node, which has paths of this machine."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _delete_traces(part)


def largest_difference(
    path: Path,
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    batches: Sequence[NDArray[np.uint8]],
    *,
    integers: bool,
    bound: float = BOUND,
) -> float:
    """Largest difference between ONNX Runtime and `predict` over uint8 batches (B, 1, H, W).

    integers: the graph takes uint8, else float32. Raises UserError if it is more than `bound`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for pixels in batches:
        given = pixels if integers else pixels.astype(np.float32) / 255
        (found,) = session.run([OUTPUT], {INPUT: given})
        expected = predict(pixels)
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else 1.0
        # `not <=`, as NaN fails every comparison
        if not difference <= bound:
            raise UserError(
                f"ONNX Runtime differs from PyTorch by {difference:.1e} on a batch of "
                f"{len(pixels)}, more than {bound:.0e}: nothing was written; leave out "
                "--calibration, change --tta_config or the merge modes, or use --format folder"
            )
        largest = max(largest, difference)
    return largest
