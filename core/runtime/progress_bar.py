"""Progress bar by the monotonic clock."""

import time
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):
    """tqdm's bar that continues if the wall clock is set back, where tqdm's would freeze."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # a disabled bar has none of these
        if not self.disable:
            self._time = time.monotonic
            self.start_t = self.last_print_t = self._time()
