"""Methods, one folder each. `load_model` turns a checkpoint of any of them back into a model."""

from core.models.load import ModelInfo, load_model, method_names

__all__ = ["ModelInfo", "load_model", "method_names"]
