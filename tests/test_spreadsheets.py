"""Tables as files of a spreadsheet: what a reader finds in a workbook."""

import io
import zipfile
from xml.etree import ElementTree

from headstart.files.spreadsheets import as_xlsx

MAIN = {"s": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}


def cells(data: bytes) -> list[list[tuple[str | None, str | None]]]:
    """Type and content of each cell of the only sheet."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    for name in archive.namelist():
        ElementTree.fromstring(archive.read(name))  # every part is well-formed
    sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    return [
        [(cell.get("t"), "".join(cell.itertext()) or None) for cell in row.iterfind("s:c", MAIN)]
        for row in sheet.iterfind("s:sheetData/s:row", MAIN)
    ]


def test_numbers_are_numbers_and_everything_else_is_text_that_is_never_computed() -> None:
    rows = [("=1+1", 0.25, 3), ("<b>&\x1b\udc80", None, float("nan")), ("  ü", True, -1)]
    found = cells(as_xlsx(("path", "share", "count"), rows))
    text = "inlineStr"
    assert found[0] == [(text, "path"), (text, "share"), (text, "count")]
    assert found[1] == [(text, "=1+1"), (None, "0.25"), (None, "3")]
    assert found[2] == [(text, "<b>&\ufffd\ufffd"), (None, None), (text, "nan")]
    assert found[3] == [(text, "  ü"), (text, "True"), (None, "-1")]


def test_a_table_without_rows_and_one_cell_too_long_are_workbooks_too() -> None:
    assert cells(as_xlsx(("a",), [])) == [[("inlineStr", "a")]]
    assert len(cells(as_xlsx(("a",), [("x" * 40_000,)]))[1][0][1] or "") == 32_767
    assert as_xlsx(("a",), [(1,)]) == as_xlsx(("a",), [(1,)])
