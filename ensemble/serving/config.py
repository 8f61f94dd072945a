"""The settings of `python -m ensemble.serve`."""

import ipaddress
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from core.config.values import PositiveInt
from ensemble.predict.config import MergeConfig, ModelsConfig, PostprocessConfig


@dataclass(kw_only=True, slots=True)
class Config:
    """A web page, for this machine alone unless --host says otherwise, on which to try models."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    postprocessing: PostprocessConfig = field(default_factory=PostprocessConfig)
    amp: bool = True
    """bf16 (or fp16) autocast on a GPU; a CPU computes in fp32 whatever is given."""
    host: str = "127.0.0.1"
    """Address to listen at. With any other than this machine's own, everybody who reaches it may
    send images: there is no password and no encryption."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    """Port to listen at; 0 takes a free one."""
    max_megabytes: PositiveInt = 64
    """Largest file that is taken, in megabytes; up to eight such are held in memory."""

    def check(self) -> None:
        """Raise UserError where two settings contradict each other."""
        self.merge.check(self.models, many_images=False)
        self.postprocessing.check()

    @property
    def for_this_machine(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
