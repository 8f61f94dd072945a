"""What a run says when it ends: one page with its figures, and one table in the terminal."""

from core.report.figures import HEADINGS, Picture, draw_pictures
from core.report.page import Contents, render, write_report
from core.report.tables import format_table
from core.report.worst_images import Worst, worst_cases

__all__ = [
    "HEADINGS",
    "Contents",
    "Picture",
    "Worst",
    "draw_pictures",
    "format_table",
    "render",
    "worst_cases",
    "write_report",
]
