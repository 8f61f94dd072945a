"""Loading of one LabelTable from the settings: a single CSV, or several sources merged.

When merged, columns with the same meaning (`label_map`) become one label, which is unknown where a
source lacks it. Images, patients and studies get the prefix "SOURCE/".
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.config.data import DataConfig, LabelReading
from core.data.csv.label_values import label_key
from core.data.csv.labels import is_always_positive
from core.data.sources import PLAIN, read_source_table
from core.data.tables import merge
from core.data.tables.label_map import LabelMap, read_label_map
from core.data.tables.label_table import LabelTable
from core.data.tables.merge import SourceFile
from core.data.tables.prefixes import prefix_sources
from core.errors import UserError, list_first, normalize_name, suggest_name


def read_table(
    csv: str | Path,
    image_dir: str | Path | None,
    labels: Sequence[str] | None = None,
    reading: LabelReading | None = None,
    **fields: Any,
) -> LabelTable:
    """Read a CSV or the table of a known dataset, and find its images unless `image_dir` is None.

    `labels` are the label columns in order; by default they are detected from their cells. `fields`
    override those of `reading`. Columns not named there are found by their usual names; patient,
    study and view also by DICOM headers, if all images are DICOM. Cells of 1 and 0 become these
    targets, -1 and blank those of `uncertain` and `blank` in `reading`, by default NaN (blank: the
    default of the dataset). Raises UserError with the row or
    column for anything missing, ambiguous or not a label.
    """
    reading = (reading or LabelReading()).change(**fields)
    folder = None if image_dir is None else Path(image_dir)
    return _read_files(
        [SourceFile(read_source_table(Path(csv), reading), folder, "", reading)], labels
    )


def gather(
    data: DataConfig,
    *,
    validation: bool = False,
    images: bool = True,
    labels: Sequence[str] | None = None,
) -> LabelTable:
    """Load and merge all --train_csv, or with `validation` all rows of all --val_csv.

    Without `images` only the labels are read. `labels` overrides --labels. Raises UserError like
    `read_table` and `read_label_map`, for a label in no source, for a source with none of the
    requested labels, and for an image file in two sources.
    """
    count = len(data.train_csv)
    folders = data.train_dir * count if len(data.train_dir) == 1 else data.train_dir
    # names are the same in training and validation
    names = source_names(data.train_csv, data.reading.source or (None,) * count)
    csvs = data.val_csv if validation else data.train_csv
    files, notes = [], []
    is_for_all = not isinstance(data.reading.blank, tuple | list) or len(data.reading.blank) == 1
    for place, (csv, folder, name) in enumerate(zip(csvs, folders, names, strict=True)):
        reading = data.reading.of_csv(place)
        if validation:
            reading.official_split = "all"
        source = read_source_table(csv, reading)
        is_shared = count > 1 and is_for_all
        if is_shared and reading.blank and source.blank not in (None, reading.blank):
            notes.append(
                f"--blank {reading.blank} is not applied to {csv}, which keeps its usual meaning "
                f"of blanks ({source.blank})."
            )
            reading.blank = None
        soft = data.soft_labels and not validation
        files.append(SourceFile(source, folder if images else None, name, reading, soft))
    wanted = data.label_names if labels is None else list(labels)
    table = _read_files(files, wanted, validation=validation)
    return replace(table, notes=(*table.notes, *notes))


def _read_files(
    files: Sequence[SourceFile], wanted: Sequence[str] | None, *, validation: bool = False
) -> LabelTable:
    """Read and merge all `files`, with the labels `wanted` or the detected ones."""
    path = files[0].reading.label_map
    if len(files) == 1 and path is None:
        return files[0].read(wanted)
    label_map = read_label_map(path)
    same_people = merge.find_same_people(files)
    if wanted is None:
        tables = list(
            map(SourceFile.read, files, _add_listed_labels(files, same_people, [None] * len(files)))
        )
        for place, lost in enumerate(_find_constant_labels(files, tables, label_map)):
            if lost:
                tables[place] = files[place].read([*tables[place].class_names, *lost])
        tables = _drop_soft_columns(files, tables, label_map)
        there: list[Sequence[str]] = [table.class_names for table in tables]
    else:
        there = [[name for name in file.source.columns if normalize_name(name)] for file in files]
        if validation and len(files) == 1 and files[0].source.lists:
            # trained labels that no list of this CSV contains are 0
            means = {normalize_name(label_map.meaning(name)) for name in there[0]}
            there[0] = [*there[0], *(name for name in wanted if normalize_name(name) not in means)]
        chosen = _choose_columns(files, there, wanted, label_map, "val" if validation else "train")
        tables = list(map(SourceFile.read, files, _add_listed_labels(files, same_people, chosen)))
    tables = merge.drop_shared_images(tables, files, same_people)
    notes = merge.describe_shared_patients(tables, files)
    notes += [
        f"Warning: '{label}' of --label_map {path} is in no CSV."
        for label in label_map.unused([name for names in there for name in names])
    ]
    spelling = {normalize_name(name): name for name in wanted or ()}
    for place, (table, file) in enumerate(zip(tables, files, strict=True)):
        names = _name_labels(table.class_names, spelling, label_map, file.csv)
        tables[place] = merge.rename_labels(table, names, file.csv)
    notes += merge.describe_partial_labels(tables, files)
    if len(files) > 1:
        tables = prefix_sources(tables, files, same_people)
    class_names = wanted or list(dict.fromkeys(n for table in tables for n in table.class_names))
    joined = merge.join_tables(tables, files, class_names)
    return replace(joined, notes=(*joined.notes, *notes))


def source_names(csvs: Sequence[Path], kinds: Sequence[str | None]) -> list[str]:
    """A unique name for each CSV, determined by the settings alone.

    The name is the --source, else the file name without extension. Duplicates get the folder's
    name as a prefix; if that is not enough, a number.
    """
    names = [
        path.name.removesuffix(".gz").removesuffix(".csv") if kind in (None, PLAIN) else str(kind)
        for path, kind in zip(csvs, kinds, strict=True)
    ]
    names = [
        f"{path.absolute().parent.name}-{name}" if names.count(name) > 1 else name
        for path, name in zip(csvs, names, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return names


def _add_listed_labels(
    files: Sequence[SourceFile], same_people: Sequence[int], chosen: Sequence[list[str] | None]
) -> list[list[str] | None]:
    """Labels to read from each CSV (None: detect), including labels of other CSVs of its dataset.

    These apply to tables with lists of labels: a label in no list is 0 in all images of that CSV.
    """
    labels = list(chosen)
    for first in set(same_people):
        lists = [p for p, file in enumerate(files) if same_people[p] == first and file.source.lists]
        if len(lists) > 1:
            every = [name for p in lists for name in chosen[p] or files[p].source.labels or ()]
            named = list({label_key(name): name for name in every}.values())
            labels = [named if p in lists else names for p, names in enumerate(labels)]
    return labels


def _find_constant_labels(
    files: Sequence[SourceFile], tables: Sequence[LabelTable], label_map: LabelMap
) -> list[list[str]]:
    """For each CSV, columns that are 1 for every image here and are a label in another CSV."""
    known = {
        normalize_name(label_map.meaning(name)) for table in tables for name in table.class_names
    }
    return [
        [
            name
            for name, column in file.source.columns.items()
            if file.source.labels is None and is_always_positive(column)
            if name not in table.class_names and normalize_name(label_map.meaning(name)) in known
        ]
        for file, table in zip(files, tables, strict=True)
    ]


def _drop_soft_columns(
    files: Sequence[SourceFile], tables: Sequence[LabelTable], label_map: LabelMap
) -> list[LabelTable]:
    """Read CSVs with soft labels alone again, without columns that are no label of another CSV."""
    hard = [table.class_names for table in tables if not table.is_pseudo.all()]
    known = {normalize_name(label_map.meaning(name)) for names in hard for name in names}
    result = list(tables)
    for place, (file, table) in enumerate(zip(files, tables, strict=True)):
        means = {name: normalize_name(label_map.meaning(name)) for name in table.class_names}
        shared = [name for name in table.class_names if means[name] in known]
        if not known or not table.is_pseudo.all() or len(shared) == len(means):
            continue
        if not shared:
            raise UserError(f"{file.csv} has soft labels alone, and none is in another CSV")
        result[place] = file.read(shared)
    return result


def _choose_columns(
    files: Sequence[SourceFile],
    columns: Sequence[Sequence[str]],
    wanted: Sequence[str],
    label_map: LabelMap,
    what: str,
) -> list[list[str] | None]:
    """Columns of each CSV with a meaning among the `wanted` labels."""
    keys = [normalize_name(name) for name in wanted]
    twice = [name for name, key in zip(wanted, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise UserError(f"--labels names one label as {' and as '.join(twice)}: name it once")
    meanings = [{name: label_map.meaning(name) for name in names} for names in columns]
    known: dict[str, str] = {}
    for meaning in (meaning for one in meanings for meaning in one.values()):
        known.setdefault(normalize_name(meaning), meaning)
    for name in (name for name in wanted if normalize_name(name) not in known):
        renamed = known.get(normalize_name(label_map.meaning(name)))
        by_map = f": the label map renames it to '{renamed}'"
        hint = by_map if renamed else suggest_name(name, known.values())
        raise UserError(f"no --{what}_csv has the label '{name}'{hint}")
    chosen = [
        [name for name, means in one.items() if normalize_name(means) in keys] for one in meanings
    ]
    for file, names in zip(files, chosen, strict=True):
        if not names:
            raise UserError(
                f"{file.csv} has none of the labels {list_first(wanted, 12)}: leave this CSV out"
            )
    return [*chosen]


def _name_labels(
    labels: Sequence[str], spelling: dict[str, str], label_map: LabelMap, csv: Path
) -> dict[str, str]:
    """Name of each label in the merged table, in the spelling of --labels, else of the label map,
    else of the first CSV that has it; adds these to `spelling`."""
    names: dict[str, str] = {}
    alike: dict[str, str] = {}
    for label in labels:
        other = alike.setdefault(normalize_name(label), label)
        if other != label and normalize_name(label) not in label_map.steps:
            raise UserError(
                f"columns '{other}' and '{label}' of {csv} differ only in case or punctuation: "
                f"rename one of them, or merge them with a row '{label},{label}' in a --label_map"
            )
        meaning = label_map.meaning(label)
        names[label] = spelling.setdefault(normalize_name(meaning), meaning)
    return names
