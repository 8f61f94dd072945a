"""Model card: description, training data and scores of a model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import jinja2

from core.errors import escape_control
from core.models.starting_weights import Origin, describe_origin
from core.report.tables import format_with_interval
from ensemble.exporting.card_scores import FoldScores
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.scoring.tables import mean_with_interval

TEMPLATE = Path(__file__).with_name("card.md.jinja")
UNKNOWN = "unknown"
LONGEST = 200
# larger numbers are not valid counts or scores
LARGEST = 1e12
MEANS = ("mAP", "mAUROC", "ECE")


def write_card(
    path: Path,
    names: Sequence[str],
    ensemble: Ensemble,
    scores: Sequence[FoldScores | None],
    thresholds: Mapping[str, float | None],
    **words: Any,
) -> None:
    """Write the card in Markdown with `names` of the members; files are without folders.

    thresholds: by class; words: other variables of the template.
    """
    members = ensemble.members
    alone = scores[0] if len(members) == 1 else None
    rows = zip(names, members, scores, strict=True)
    # Markdown, escaped by the filter `md`
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters["md"] = escaped
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        methods=", ".join(dict.fromkeys(one.info.method for one in members)),
        members=list(map(_describe, names, members, ensemble.shares)),
        data=_data(members, scores),
        by_image=list(dict.fromkeys(filter(None, map(_by_image, members)))),
        counted="" if len(members) == 1 else ", from the least to the most of the models",
        classes=[
            _class(name, members, alone, thresholds.get(name)) for name in ensemble.class_names
        ],
        scored=alone is not None,
        thresholds=bool(thresholds),
        means=[means for row in rows if (means := _means(*row)) is not None],
        intervals=any(score is not None for score in scores),
        versions=_versions(members),
        **words,
    )
    path.write_text(re.sub(r"\n{3,}", "\n\n", text) + "\n", encoding="utf-8")


def escaped(text: object) -> str:
    """Escape text for Markdown, on one line of at most LONGEST characters."""
    short = escape_control(str(text))[:LONGEST]
    return re.sub(r"([\\`*\[\]|!#~])", r"\\\1", short.replace("&", "&amp;").replace("<", "&lt;"))


def _describe(name: str, member: Member, share: float) -> dict[str, Any]:
    known = {key: UNKNOWN if one is None else one for key, one in member.summary().items()}
    epoch = _number(member.info.facts.get("epoch"), ",.0f")
    start = describe_origin(Origin.read(member.info.facts.get("starting_weights")))
    scale = {one: f"{getattr(member.model.backbone, one).item():.4g}" for one in ("mean", "std")}
    own = {"name": name, "weight": f"{share:.2f}", "epoch": epoch, "start": start}
    return known | own | scale


def _class(
    name: str, members: Sequence[Member], score: FoldScores | None, threshold: float | None
) -> dict[str, str]:
    row = {
        "name": name,
        "positive": _span(members, "training_positives", name),
        "known": _span(members, "training_known", name),
        "threshold": UNKNOWN if threshold is None else f"{threshold:.3g}",
    }
    # a class without labels has no scores
    if score is None or name not in score.evaluation.per_class.index:
        return row | dict.fromkeys(("ap", "auroc", "validated"), UNKNOWN)
    scored: Any = score.evaluation.per_class.loc[name]
    row["validated"] = f"{scored['positives']:,.0f}"
    for metric in ("ap", "auroc"):
        row[metric] = format_with_interval(scored, metric)
    return row


def _means(name: str, member: Member, score: FoldScores | None) -> dict[str, str] | None:
    """Row of scores: from the run folder with intervals, else from the checkpoint."""
    if score is not None:
        summary = score.evaluation.summary
        row = {"images": f"{summary['images']:,}", "classes": f"{summary['classes_scored']:,}"}
        means = {mean: mean_with_interval(summary, mean) for mean in MEANS}
    elif metrics := member.facts("metrics"):
        row = {"images": UNKNOWN, "classes": _number(metrics.get("classes_scored"), ",.0f")}
        means = {mean: _number(metrics.get(mean)) for mean in MEANS}
    else:
        return None
    return {"name": name, **row, **means}


def _data(members: Sequence[Member], scores: Sequence[FoldScores | None]) -> str:
    """Names of the CSVs of the training images."""
    files: dict[str, None] = {}
    for member in members:
        given = member.facts("settings").get("train_csv")
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, str) and one:
                files[PureWindowsPath(one).name] = None
    files |= dict.fromkeys(score.labels for score in scores if score is not None)
    return f"Labels of {', '.join(files)}" if files else "Labels: unknown"


def _by_image(member: Member) -> str:
    """Note of the checkpoint on folds that were not divided by patient; "" without."""
    noted = member.info.facts.get("by_image")
    return noted if isinstance(noted, str) else ""


def _span(members: Sequence[Member], key: str, name: str) -> str:
    """Count of a class, or the smallest and largest count of several models."""
    found = [member.facts(key).get(name) for member in members]
    counts = [count for count in found if type(count) is int]
    if not counts:
        return UNKNOWN
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _versions(members: Sequence[Member]) -> str:
    versions = sorted(members[0].facts("versions").items())
    return ", ".join(f"{name} {_text(one)}" for name, one in versions) or "unknown versions"


def _text(value: object) -> str:
    return value if isinstance(value, str) else UNKNOWN


def _number(value: object, form: str = ".3f") -> str:
    sound = isinstance(value, (int, float)) and abs(value) <= LARGEST
    return format(value, form) if sound else UNKNOWN
