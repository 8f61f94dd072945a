"""Models served by the page in this process, for its tests."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from core.config.values import assign
from core.runtime.fabric import make_fabric
from ensemble.predict.calibration import Calibration, Identity, Temperature, write_calibration
from ensemble.serving.app import make_app
from ensemble.serving.config import Config
from ensemble.serving.model import ServedModels
from ensemble.serving.queue import Limits

LIMITS = Limits(bytes=1_000_000)


def serve(**settings: Any) -> tuple[ServedModels, TestClient]:
    """Models of these settings (by flag name), and a client of their page."""
    config = Config()
    assign(config, settings)
    config.check()
    served = ServedModels.load(config, make_fabric(amp="auto"))
    app = make_app(served, config.host, LIMITS)
    return served, TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def calibrated(path: Path, names: list[str]) -> Path:
    """A calibration with a temperature and thresholds; of the last class there is no threshold."""
    classes: dict[str, Identity | Temperature] = {
        name: Temperature(1.5 + place / 10, threshold=0.3, threshold_gated=0.2)
        for place, name in enumerate(names)
    }
    classes[names[-1]] = Identity()
    write_calibration(path, Calibration(classes, "Normal", 0.25), {})
    return path
