"""Small label tables, read like a user's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.data.tables import LabelTable, read_table
from core.errors import UserError

Read = Callable[..., LabelTable]
Refuse = Callable[..., None]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """read(text, labels, **fields): t.csv with this text, without images."""

    def read(text: str, labels: Sequence[str] | None = None, **fields: Any) -> LabelTable:
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        return read_table(tmp_path / "t.csv", None, labels, **fields)

    return read


@pytest.fixture
def refuse(read: Read) -> Refuse:
    """refuse(text, sentence, labels, **fields): assert that reading fails with that message."""

    def refuse(text: str, sentence: str, *labels: Any, **fields: Any) -> None:
        with pytest.raises(UserError, match=sentence) as refused:
            read(text, *labels, **fields)
        assert "t.csv" in str(refused.value) or "--labels" in str(refused.value)

    return refuse
