"""Pack images: decode a dataset once into one memory-mapped array of grey images of one size.

    python -m core.data.pack --train_csv train.csv --train_dir images --size 448 --out pack
    python methods/csra_db_cas/train.py --train_csv train.csv --train_dir pack --img_size 448

Rerun the same command to resume after a stop. `--part 2/8` packs one part, for job arrays.
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
from core.runtime.log import logger

if TYPE_CHECKING:  # imported late, to keep --help fast
    from core.data.images.pack_format import Plan


@dataclass(kw_only=True, slots=True)
class Config:
    """Decode the images of a folder into a pack, which every method can train from."""

    train_csv: tuple[Path, ...] = ()
    """CSVs that list the images to pack; all images of --train_dir if none."""
    train_dir: Path | None = None
    """Image folder, searched with sub-folders (default data/images); with --verify, the files to
    compare the pack with."""
    size: Annotated[int, Meta(ge=1, le=65_535)] = 512
    """Side of the square images, in pixels: the --img_size of the training."""
    out: Path = Path("data/pack")
    """Folder of the pack."""
    part: str = ""
    """Pack only this part, for example 2/8; --out is one pack once all parts are finished."""
    num_workers: Literal["auto"] | PositiveInt = "auto"
    """Decoding processes; auto: one per core."""
    on_bad_image: Literal["error", "skip"] = "error"
    """For unreadable images, after packing the others: error lists them and leaves the pack
    unfinished, skip marks them in it."""
    source: tuple[str, ...] = ()
    """Dataset of each --train_csv; default: detect it by the columns."""
    image_column: str | tuple[str, ...] = ""
    """Image column, one for all --train_csv or one each; default: the usual names."""
    verify: bool = False
    """Only recompute the checksums of the pack in --out (or its --part), and compare it with the
    files of --train_dir if given."""
    overwrite: bool = False
    """Delete the pack in --out and pack again."""

    @property
    def part_of(self) -> tuple[int, int]:
        """(part from 1, number of parts). Raises UserError for an invalid --part."""
        if not self.part:
            return 1, 1
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", self.part, re.ASCII)
        part, parts = map(int, found.groups()) if found else (0, 0)
        if not 1 <= part <= parts:
            raise UserError(f"--part {self.part} is not a valid part: give it like 2/8")
        return part, parts

    @property
    def workers(self) -> int:
        """Number of decoding processes."""
        if self.num_workers != "auto":
            return self.num_workers
        has_affinity = hasattr(os, "sched_getaffinity")
        return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def main() -> None:
    """Entry point of the command."""
    config = flags(Config(), __doc__)
    if config.source and len(config.source) != len(config.train_csv):
        raise UserError("--source is given once for each --train_csv, or not at all")
    reading = SourcesReading(source=config.source, image_column=config.image_column)
    reading.check_lengths(len(config.train_csv))
    part, parts = config.part_of
    if config.verify:
        if config.overwrite or config.train_csv:
            raise UserError("--verify only reads a pack: leave out --overwrite and --train_csv")
        from core.data.images.pack_format import part_folder
        from core.data.pack.verify import verify_pack

        folder = part_folder(config.out, part, parts)
        logger.info(verify_pack(folder, config.train_dir, config.workers))
        return
    if file := next((one for one in (config.out, *config.out.parents) if one.is_file()), None):
        raise UserError(
            f"--out {config.out} cannot be made because {file} is a file: give a folder"
        )
    # late, to keep --help and flag errors fast
    from core.data.images.find_files import missing_remedy
    from core.data.pack.inputs import index_files, list_images, plan_part
    from core.data.pack.writer import write_pack

    source = config.train_dir or Path("data/images")
    skips = config.on_bad_image == "skip"
    remedy = missing_remedy("--train_dir", skips=skips)
    names = list_images(source, config.train_csv, reading, remedy)
    plan, own = plan_part(names, config.size, part, parts)
    try:
        unreadable = write_pack(
            source,
            index_files(source, own),
            plan,
            config.out,
            workers=config.workers,
            skip_unreadable=skips,
            overwrite=config.overwrite,
        )
    except KeyboardInterrupt as stop:
        logger.info("\nStopped. Rerun the same command to resume.")
        sys.exit(128 + stop.args[0] if stop.args else 130)
    for name, reason in unreadable.items():
        logger.info(f"unreadable   {name}: {reason}")
    if unreadable and config.on_bad_image == "error":
        raise UserError(
            f"{len(unreadable):,} of {pluralize(plan.count, 'image')} cannot be read "
            f"({list_first(list(unreadable))}); the others are in {config.out}: fix these and "
            "rerun the command, or pass --on_bad_image skip to mark them"
        )
    _print_summary(config, plan, len(unreadable))


def _print_summary(config: Config, plan: Plan, unreadable: int) -> None:
    from core.data.images.pack_format import FACTS, part_folder

    marked = f", {unreadable:,} of them marked as unreadable" if unreadable else ""
    of_parts = f"part {plan.part} of {plan.parts}, " if plan.parts > 1 else ""
    logger.info(
        f"pack         {config.out} ({of_parts}{pluralize(plan.count, 'image')} of {plan.size} px"
        f"{marked}, {format_size(plan.count * plan.size**2)})"
    )
    folders = [part_folder(config.out, part + 1, plan.parts) for part in range(plan.parts)]
    missing = [part for part, folder in enumerate(folders, 1) if not (folder / FACTS).is_file()]
    if missing:
        word = "part" if len(missing) == 1 else "parts"
        logger.info(f"not packed yet: {word} {list_first(missing, 12)} of {plan.parts}")
        return
    csvs = " ".join(map(str, config.train_csv)) or "YOUR_LABELS.csv"
    logger.info(
        f"train        python methods/standard_head/train.py --train_csv {csvs} --train_dir "
        f"{config.out} --img_size {plan.size}"
    )


if __name__ == "__main__":
    run(main)
