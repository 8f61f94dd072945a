"""One page of HTML that holds all it shows, and the run folder's pictures beside it."""

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
from core.report.worst_images import EACH, MOST_CLASSES, Worst

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a page shows; what is empty is left out."""

    title: str
    lead: str
    """A line under the title: of how many images and classes."""
    sections: Sequence[Table | Picture]
    """In this order."""
    worst: Sequence[Worst] = ()
    command: str = ""
    """How to repeat it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else a reader must know to trust the numbers."""
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def command_again(
    program: Sequence[str],
    unwanted: Collection[str] = ("--overwrite",),
    more: Sequence[str] = (),
) -> str:
    """`program`, this command's words but those unwanted, and `more`, for a shell; of a flag that
    is there twice the last one counts, and stays alone."""
    flag, found = "", dict[str, list[str]]()
    for word in [*(word for word in sys.argv[1:] if word not in unwanted), *more]:
        if word.startswith("--"):
            flag = word.partition("=")[0].replace("-", "_")
            found.pop(flag, None)
        found.setdefault(flag, []).append(word)
    return shlex.join([*program, *chain(*found.values())])


def write_report(run_dir: Path, contents: Contents) -> Path:
    """Write run_dir/plots/*.png and run_dir/report.html, and return the latter's path.

    Each file appears whole or not at all. Raises UserError where one cannot be written.
    """
    plots = run_dir / "plots"
    try:
        # not its parents: a run folder that was removed stays so
        plots.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(plots, error) from error
    files = {plots / f"{p.name}.png": p.png for p in contents.sections if isinstance(p, Picture)}
    page = run_dir / "report.html"
    for path, content in (files | {page: render(contents)}).items():
        write_atomically(path, methodcaller("write_bytes", content))
    return page


def render(contents: Contents) -> bytes:
    """The page in UTF-8; it embeds its pictures and needs no network.

    Names from files are text on it. Its one script serves tables, and no other would run.
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
    # a file's name may be no UTF-8
    return page.encode("utf-8", errors="replace")
