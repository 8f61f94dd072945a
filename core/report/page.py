"""Self-contained HTML report, and its figures as files in the run folder."""

import base64
import hashlib
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import methodcaller
from pathlib import Path

import jinja2

from core.io.atomic import cannot_write, write_atomically
from core.report.figures import Picture
from core.report.plots.style import GROUP_LABELS
from core.report.tables import GROUP, Table
from core.report.worst_images import EACH, MOST_CLASSES, WorstImages

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a report; empty parts are left out."""

    title: str
    lead: str
    """Line under the title: number of images and classes."""
    sections: Sequence[Table | Picture]
    """In order of display."""
    worst: Sequence[WorstImages] = ()
    command: str = ""
    """Command that reproduces the results."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Data, their digest and the starting weights."""
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def rerun_command(
    program: Sequence[str],
    unwanted: Collection[str] = ("--overwrite",),
    more: Sequence[str] = (),
) -> str:
    """Shell command: `program`, the flags of this command without the unwanted ones, and `more`.

    Of a repeated flag only the last one remains.
    """
    flag, found = "", dict[str, list[str]]()
    for word in [*(word for word in sys.argv[1:] if word not in unwanted), *more]:
        if word.startswith("--"):
            flag = word.partition("=")[0].replace("-", "_")
            found.pop(flag, None)
        found.setdefault(flag, []).append(word)
    return shlex.join([*program, *chain(*found.values())])


def write_report(run_dir: Path, contents: Contents) -> Path:
    """Write run_dir/plots/*.png and run_dir/report.html; returns the path of the page.

    Each file is written atomically. Raises UserError if one cannot be written.
    """
    plots = run_dir / "plots"
    try:
        # without parents: a run folder that was removed is not created again
        plots.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(plots, error) from error
    files = {plots / f"{p.name}.png": p.png for p in contents.sections if isinstance(p, Picture)}
    page = run_dir / "report.html"
    for path, content in (files | {page: render(contents)}).items():
        write_atomically(path, methodcaller("write_bytes", content))
    return page


def render(contents: Contents) -> bytes:
    """Render the page in UTF-8, with embedded figures.

    Names from files are escaped. The content policy admits only its own script, for the tables.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(_HERE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    page = environment.get_template("page.html.jinja").render(
        contents=contents,
        group=GROUP,
        group_labels=GROUP_LABELS,
        each=EACH,
        most_classes=MOST_CLASSES,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    # a file's name may not be valid UTF-8
    return page.encode("utf-8", errors="replace")
