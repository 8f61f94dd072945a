"""A graph as an ONNX file, and the check that ONNX Runtime computes what `ensemble.infer` does."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import UserError, size_of
from ensemble.exporting.graph import Merged

BOUND = 1e-4
BATCHES = (1, 2, 5)
# a protobuf holds no more
LARGEST = 2_000_000_000
INPUT, OUTPUT = "images", "probabilities"
MISSING = (
    'ONNX needs packages that are not installed: pip install -c constraints.txt -e ".[export]"'
)

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


def check_installed() -> None:
    """Raise UserError with the command that installs what is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(MISSING) from error


def check_bytes(graph: Merged) -> None:
    """Raise UserError where the weights do not fit one file."""
    size = sum(one.numel() * one.element_size() for one in graph.state_dict().values())
    if size > LARGEST:
        raise UserError(
            f"the weights have {size_of(size)}, and an ONNX file holds {size_of(LARGEST)} at most: "
            "export fewer checkpoints, or take --format folder"
        )


def write_onnx(
    path: Path, graph: Merged, size: int, *, integers: bool, metadata: Mapping[str, Any]
) -> None:
    """Write the graph for images of `size` pixels and any batch, `metadata` as JSON by its keys.

    `integers`: it takes uint8, else float32. Nothing of this machine is in the file. Raises
    UserError where PyTorch cannot express the graph, and OSError where it cannot be written.
    """
    import onnx

    images = torch.zeros(2, 1, size, size, dtype=torch.uint8 if integers else torch.float32)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    # it raises about anything
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"this model cannot be expressed in ONNX: {reason}") from error
    assert program is not None
    document = program.model_proto
    _without_traces(document)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in metadata.items()
    }
    onnx.helper.set_model_props(document, texts)
    onnx.checker.check_model(document)
    path.write_bytes(document.SerializeToString())


def _without_traces(document: Any) -> None:
    """Delete what PyTorch tells of where each node comes from: it has paths of this machine."""
    graph = document.graph
    for part in (
        document,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *document.functions,
    ):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    for function in document.functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def largest_difference(
    path: Path,
    predict: Predict,
    batches: Sequence[NDArray[np.uint8]],
    *,
    integers: bool,
    calibrated: bool,
) -> float:
    """Between ONNX Runtime and `predict`, on a CPU, over uint8 batches (B, 1, S, S).

    `calibrated`: a calibration is part of the graph. Raises UserError where it is more than BOUND.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for pixels in batches:
        given = pixels if integers else pixels.astype(np.float32) / 255
        (said,) = session.run([OUTPUT], {INPUT: given})
        expected = predict(pixels)
        difference = float(np.abs(said - expected).max()) if said.shape == expected.shape else 1.0
        # NaN is above no bound
        if not difference <= BOUND:
            without = "leave --calibration out, take " if calibrated else "take "
            raise UserError(
                f"ONNX Runtime differs from PyTorch by {difference:.1e} on a batch of "
                f"{len(pixels)}, more than {BOUND:.0e}: nothing was written; {without}other views "
                "or merges, or --format folder"
            )
        largest = max(largest, difference)
    return largest


def random_batches(size: int) -> list[NDArray[np.uint8]]:
    """Batches of noise, of each of BATCHES."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (count, 1, size, size), dtype=np.uint8) for count in BATCHES]
