"""Commands under torchrun's own agent whose processes start in no time.

`launch_server.py` imports everything once, then forks for each line of standard input, a JSON
object: `module`, the command's; `arguments`; `output`, a file for what is printed; `processes` on
each of `nodes`, and which `node` of these it is; `port`; `fabric`, whether as `fabric run` does or
as torchrun; `moment`: [rank, kind, at, what]: after number `at` of its updates ("update"), batches
of an evaluation ("batch"), folds ("fold"), reports that it begins ("report"), blocks of predictions
or of a pack ("block"), that rank gets a signal (0: none), or, where `what` is "nan", has such
losses from there on; `batch_seconds`, how long each batch of an evaluation takes. Without
`processes` it is one process, as of plain `python`. The answer is the process id of the launcher.
{"wait": pid, "seconds": N} answers its exit code; null where it is still there then.

A rank N prints to `output` with the ending .toldN and writes its process id to .rankN; .momentN
appears when its moment has come.
"""

import gc
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import core
import core.data
import core.data.pack.writer
import core.models.predict
import core.runs.log
import core.training.finish
import core.training.loop
import core.training.step_monitor
import ensemble
import ensemble.predict.blocks
from core.config.command_line import run
from tests.helpers.faults.preloaded_modules import command_module, import_all
from tests.helpers.training.small_run import draw_nothing

# as torchrun reads it from the environment; also under `fabric run`, which has no flag for it
SIGNALS = "PET_SIGNALS_TO_HANDLE"


def serve() -> None:
    """Answer requests until standard input ends."""
    import_all()
    draw_nothing()
    # or else each fork's garbage collector walks through, and copies, all that was imported
    gc.collect()
    gc.freeze()
    # its reports of what ended hold tracebacks of its own
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = {"code": ended(request["wait"], request["seconds"])}
        else:
            pid = os.fork()
            if pid == 0:
                os._exit(launched(request))
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a child, if it ends in time."""
    watched = os.pidfd_open(pid)
    try:
        if not select.select([watched], [], [], seconds)[0]:
            return None
    finally:
        os.close(watched)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def launched(request: dict[str, Any]) -> int:
    """A launcher, or the one process, in a session of its own; its exit code."""
    os.setsid()
    print_to(Path(request["output"]))
    os.environ.update(request["environment"])
    processes, nodes = request["processes"], request["nodes"]
    if not processes:
        command(request)
        return 0
    if request["fabric"]:
        places = {"DEVICES": processes, "NUM_NODES": nodes, "CLI_USED": 1, "ACCELERATOR": "cpu"}
        os.environ.update({f"LT_{name}": str(value) for name, value in places.items()})
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id="none",
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{request['port']}",
        rdzv_configs={"rank": request["node"], "timeout": 60},
        max_restarts=0,
        start_method="fork",
        signals_to_handle=os.environ.get(SIGNALS, LaunchConfig.signals_to_handle),
    )
    try:
        elastic_launch(config, command)(request)
    except BaseException as error:
        # torchrun's own words are of no interest here
        print(f"launcher: {type(error).__name__}", flush=True)
        return 1
    return 0


def command(request: dict[str, Any]) -> None:
    """One rank; where it fails, it ends the process."""
    rank = int(os.environ.get("RANK", "0"))
    output = Path(request["output"])
    print_to(output.with_suffix(f".told{rank}"))
    output.with_suffix(f".rank{rank}").write_text(str(os.getpid()))
    counts: Counter[str] = Counter()
    at_rank, at_kind, at, what = request["moment"] or (None, None, None, None)
    spoiled = False

    def count(kind: str) -> None:
        nonlocal spoiled
        counts[kind] += 1
        if (rank, kind, counts[kind]) == (at_rank, at_kind, at):
            output.with_suffix(f".moment{rank}").touch()
            spoiled = what == "nan"
            if what and not spoiled:
                os.kill(os.getpid(), what)

    def counted(owner: Any, name: str, kind: str, *, before: bool = False) -> None:
        function = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            if before:
                count(kind)
            result = function(*given, **named)
            if not before:
                count(kind)
            return result

        setattr(owner, name, call)

    counted(core.runs.log.FoldLog, "advance", "update")
    counted(core.training.loop.FoldTrainer, "fit", "fold")
    counted(core.training.finish, "write_report", "report", before=True)
    counted(ensemble.predict.blocks.Parts, "write", "block")
    counted(core.data.pack.writer, "lines_of", "block")
    read, mark = core.models.predict.unspoiled, core.training.step_monitor.StepMonitor.mark

    def batches(loader: Any) -> Iterator[Any]:
        for batch in read(loader):
            yield batch
            count("batch")
            time.sleep(request["batch_seconds"])

    def marked(self: Any, update: int, loss: Tensor, norm: Tensor) -> Tensor:
        return mark(self, update, loss * torch.nan if spoiled else loss, norm)

    core.models.predict.unspoiled = batches
    core.training.step_monitor.StepMonitor.mark = marked  # type: ignore[method-assign]
    sys.argv = [f"{request['module'].replace('.', '/')}.py", *request["arguments"]]
    module = command_module(request["module"])
    sys.modules["__main__"] = module
    code = 0
    try:
        run(module.main)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        # to take the interpreter apart costs half a second
        os._exit(code)
    # torch's agent keeps a function's process until all have ended, or ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def print_to(path: Path) -> None:
    """Let this process print to a file."""
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    serve()
