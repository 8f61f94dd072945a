"""Decode a dataset once: its images, grey and at one size, in one memory-mapped array.

    python -m core.data.pack --train_csv train.csv --train_dir images --size 448 --out pack
    python methods/csra_db_cas/train.py --train_csv train.csv --train_dir pack --img_size 448

The same command goes on where one was stopped. `--part 2/8` packs a part of it, for a job array.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from core.config.command_line import flags, run
from core.config.data import SourcesReading
from core.config.values import PositiveInt
from core.errors import UserError, format_size, list_first, pluralize

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    from core.data.images.pack_format import Plan


@dataclass(kw_only=True, slots=True)
class Config:
    """Decode the images of a folder into a pack, from which every method trains."""

    train_csv: tuple[Path, ...] = ()
    """Pack the images that these CSVs name, whatever their labels; all of --train_dir if none."""
    train_dir: Path | None = None
    """Folder of the images, searched with its sub-folders (data/images); with --verify, the files
    to compare the pack with."""
    size: Annotated[int, Meta(ge=1, le=65_535)] = 512
    """Side of the square images, in pixels: the --img_size of the training."""
    out: Path = Path("data/pack")
    """Folder of the pack."""
    part: str = ""
    """Pack only this part, as in 2/8 for the second of eight; --out reads as one pack when all of
    them are there."""
    num_workers: Literal["auto"] | PositiveInt = "auto"
    """Processes that decode images; auto: one a core."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about images that cannot be read, once the others are packed: name them and leave
    the pack unfinished, or mark them in it."""
    source: tuple[str, ...] = ()
    """What kind of table each --train_csv is; recognised by its columns when not given."""
    image_column: str | tuple[str, ...] = ""
    """Column that names the image, one for all --train_csv or one each; found by its usual names
    when not given."""
    verify: bool = False
    """Only compute the checksums of the pack in --out (or its --part) again, and compare it with
    the files of --train_dir where that is given."""
    overwrite: bool = False
    """Delete the pack in --out and make it anew."""

    @property
    def part_of(self) -> tuple[int, int]:
        """(part from 1, number of parts). Raises UserError for what is no such pair."""
        if not self.part:
            return 1, 1
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", self.part, re.ASCII)
        part, parts = map(int, found.groups()) if found else (0, 0)
        if not 1 <= part <= parts:
            raise UserError(f"--part {self.part} is no part: give it as 2/8, the second of eight")
        return part, parts

    @property
    def workers(self) -> int:
        """Processes that decode."""
        if self.num_workers != "auto":
            return self.num_workers
        has_affinity = hasattr(os, "sched_getaffinity")
        return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def main() -> None:
    """The command line."""
    config = flags(Config(), __doc__)
    if config.source and len(config.source) != len(config.train_csv):
        raise UserError("--source is given once for each --train_csv, or not at all")
    reading = SourcesReading(source=config.source, image_column=config.image_column)
    reading.check_lengths(len(config.train_csv))
    part, parts = config.part_of
    if config.verify:
        if config.overwrite or config.train_csv:
            raise UserError("--verify only looks at a pack: leave out --overwrite and --train_csv")
        from core.data.images.pack_format import part_folder
        from core.data.pack.verify import verify_pack

        folder = part_folder(config.out, part, parts)
        print(verify_pack(folder, config.train_dir, config.workers))
        return
    if file := next((one for one in (config.out, *config.out.parents) if one.is_file()), None):
        raise UserError(f"--out {config.out} cannot be made, as {file} is a file: give a folder")
    # late, so that --help and a mistyped flag are answered at once
    from core.data.pack.inputs import index_files, list_images, plan_part
    from core.data.pack.writer import write_pack

    source = config.train_dir or Path("data/images")
    names = list_images(source, config.train_csv, reading)
    plan, own = plan_part(names, config.size, part, parts)
    try:
        unreadable = write_pack(
            source,
            index_files(source, own),
            plan,
            config.out,
            workers=config.workers,
            skip_unreadable=config.on_bad_image == "skip",
            overwrite=config.overwrite,
        )
    except KeyboardInterrupt as stop:
        print("\nStopped. The same command goes on where this one was.")
        sys.exit(128 + stop.args[0] if stop.args else 130)
    for name, reason in unreadable.items():
        print(f"unreadable   {name}: {reason}")
    if unreadable and config.on_bad_image == "error":
        raise UserError(
            f"{len(unreadable):,} of {pluralize(plan.count, 'image')} cannot be read "
            f"({list_first(list(unreadable))}); the others are in {config.out}: mend these and "
            "give the same command again, or pass --on_bad_image skip to mark them"
        )
    _say_where(config, plan, len(unreadable))


def _say_where(config: Config, plan: Plan, unreadable: int) -> None:
    from core.data.images.pack_format import FACTS, part_folder

    marked = f", {unreadable:,} of them marked as unreadable" if unreadable else ""
    of_parts = f"part {plan.part} of {plan.parts}, " if plan.parts > 1 else ""
    print(
        f"pack         {config.out} ({of_parts}{pluralize(plan.count, 'image')} of {plan.size} px"
        f"{marked}, {format_size(plan.count * plan.size**2)})"
    )
    folders = [part_folder(config.out, part + 1, plan.parts) for part in range(plan.parts)]
    missing = [part for part, folder in enumerate(folders, 1) if not (folder / FACTS).is_file()]
    if missing:
        word = "part" if len(missing) == 1 else "parts"
        print(f"still to be packed: {word} {list_first(missing, 12)} of {plan.parts}")
        return
    csvs = " ".join(map(str, config.train_csv)) or "YOUR_LABELS.csv"
    print(
        f"train        python methods/standard_head/train.py --train_csv {csvs} --train_dir "
        f"{config.out} --img_size {plan.size}"
    )


if __name__ == "__main__":
    run(main)
