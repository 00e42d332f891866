"""What people look at: the final table, the HTML report, `result.json`.

matplotlib and jinja2 (extra `server`) are loaded when a report is written, not before.
"""

from qfed.report.files import read_result, read_synthesis, write_result
from qfed.report.page import write_report
from qfed.report.synthesis import synthesis_table, write_synthesis_report
from qfed.report.table import final_table

__all__ = [
    "final_table",
    "read_result",
    "read_synthesis",
    "synthesis_table",
    "write_report",
    "write_result",
    "write_synthesis_report",
]
