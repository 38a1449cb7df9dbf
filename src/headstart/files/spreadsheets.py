"""Tables that a spreadsheet opens as they are meant: UTF-8 with its mark, no cell that would be computed."""

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute: https://owasp.org/www-community/attacks/CSV_Injection."""


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV file; text that looks like a formula has an apostrophe in front, None is an empty cell."""
    with io.StringIO(newline="") as text:
        table = csv.writer(text)
        table.writerow(header)
        table.writerows([_cell(each) for each in row] for row in rows)
        return text.getvalue().encode("utf-8-sig", "backslashreplace")


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
