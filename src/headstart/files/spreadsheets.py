"""Tables that a spreadsheet opens as they are meant: UTF-8 with its mark, no cell that would be computed."""

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from math import isfinite
from xml.sax.saxutils import escape

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


# Workbooks --------------------------------------------------------------------------------------------------

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LONGEST_CELL = 32_767
_WIDEST = 60

_PARTS = {
    "[Content_Types].xml": f'''<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" \
ContentType="application/vnd.openxmlformats-package.relationships+xml"/>\
<Override PartName="/xl/workbook.xml" ContentType="{_SHEET}.sheet.main+xml"/>\
<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_SHEET}.worksheet+xml"/></Types>''',
    "_rels/.rels": f'''<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" \
Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>''',
    "xl/_rels/workbook.xml.rels": f'''<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" \
Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>''',
    "xl/workbook.xml": f'''<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets><sheet name="Table" \
sheetId="1" r:id="r1"/></sheets></workbook>''',
}
"""All of a workbook but its sheet: Office Open XML, ECMA-376 part 1."""


def as_xlsx(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """An Excel workbook of one sheet: numbers are numbers, all else is text, which is never computed."""
    table: list[list[object]] = [list(header), *(list(row) for row in rows)]
    sizes = [max(len(str(each)) for each in column) for column in zip(*table, strict=True)]
    columns = "".join(
        f'<col min="{place}" max="{place}" width="{min(size, _WIDEST) + 2}" customWidth="1"/>'
        for place, size in enumerate(sizes, 1)
    )
    lines = "".join(f"<row>{''.join(map(_xlsx_cell, row))}</row>" for row in table)
    sheet = f'''<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0"><pane ySplit="1" \
topLeftCell="A2" state="frozen"/></sheetView></sheetViews><cols>{columns}</cols>\
<sheetData>{lines}</sheetData></worksheet>'''
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in {**_PARTS, "xl/worksheets/sheet1.xml": sheet}.items():
                archive.writestr(zipfile.ZipInfo(name), _HEAD + part, zipfile.ZIP_DEFLATED)
        return file.getvalue()


def _xlsx_cell(value: object) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return f"<c><v>{value}</v></c>"
    text = escape(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", str(value)[:_LONGEST_CELL]))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'
