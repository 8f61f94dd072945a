"""Export: ONNX graph, hub folder, and model card."""
