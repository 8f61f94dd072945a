"""Text of an HTML page."""

import html
import re


def words(page: str) -> str:
    """Visible text of a page in one line."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", body)).split())
