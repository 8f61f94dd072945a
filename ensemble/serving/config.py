"""Settings of `python -m ensemble.serve`."""

import ipaddress
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from core.config.values import PositiveInt, Switch
from ensemble.predict.config import MergeConfig, ModelsConfig, PostprocessConfig


@dataclass(kw_only=True, slots=True)
class Config:
    """Serve a web page to try models; only this machine can reach it unless --host is changed."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    postprocessing: PostprocessConfig = field(default_factory=PostprocessConfig)
    amp: Switch = "auto"
    """Autocast, as in ensemble.infer."""
    host: str = "127.0.0.1"
    """Address to listen at. With another than the default, anyone on the network can send images:
    without a password and unencrypted."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    """Port to listen at; 0 for a free one."""
    max_megabytes: PositiveInt = 64
    """Largest accepted file in megabytes; up to eight files are in memory."""

    def check(self) -> None:
        """Raise UserError if settings contradict each other."""
        self.merge.check(self.models, many_images=False)
        self.postprocessing.check()

    @property
    def for_this_machine(self) -> bool:
        """True if only this machine can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
