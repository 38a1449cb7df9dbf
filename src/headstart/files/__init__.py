"""Files: where ours lie; others' read bounded and checked against types; ours written whole or not at all."""

from headstart.files.memory import HEADROOM, bounded_memory
from headstart.files.paths import cache_folder, home_folder, make
from headstart.files.reading import (
    JSON_BYTES,
    JSON_DEPTH,
    MEBI,
    Roots,
    Unreadable,
    held_below,
    held_roots,
    is_below,
    is_there,
    open_regular,
    parse_json,
    read_json,
    read_regular,
    root_of,
)
from headstart.files.typed import Check, Mistyped, checker, record
from headstart.files.writing import (
    OUTPUT_MARKER,
    flush,
    flush_tree,
    mark_output,
    whole,
    write_new,
    write_whole,
)

__all__ = [
    "HEADROOM",
    "JSON_BYTES",
    "JSON_DEPTH",
    "MEBI",
    "OUTPUT_MARKER",
    "Check",
    "Mistyped",
    "Roots",
    "Unreadable",
    "bounded_memory",
    "cache_folder",
    "checker",
    "flush",
    "flush_tree",
    "held_below",
    "held_roots",
    "home_folder",
    "is_below",
    "is_there",
    "make",
    "mark_output",
    "open_regular",
    "parse_json",
    "read_json",
    "read_regular",
    "record",
    "root_of",
    "whole",
    "write_new",
    "write_whole",
]
