"""Methods, one folder each; `load_model` loads a checkpoint of any of them."""

from core.models.load import ModelInfo, load_model, method_names

__all__ = ["ModelInfo", "load_model", "method_names"]
