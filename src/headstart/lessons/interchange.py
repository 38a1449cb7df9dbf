"""Problems to and from other systems: Moodle XML (https://docs.moodle.org/en/Moodle_XML_format) and GIFT.

Both directions keep everything, so that a problem survives the journey: what the format has no place for goes
into tags (XML) or a comment (GIFT). Foreign files are read as far as they hold multiple-choice questions with
exactly one right option; anything else is refused with its place, not guessed at.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from textwrap import indent
from typing import Any

from headstart.errors import LessonError
from headstart.lessons import placeholders
from headstart.lessons.pack import PROBLEM_SECONDS, CodeFace, Option, Problem

LARGEST_IMPORT = 5_000_000
"""Characters; a file of questions is smaller."""

_FENCE = re.compile(r"\n*```(?P<language>\w*) title=\"(?P<label>[^\"]*)\"\n(?P<text>.*?)```", re.DOTALL)


# Files ----------------------------------------------------------------------------------------------------


def read_file(path: Path) -> tuple[Problem, ...]:
    """The problems of a Moodle XML file (`.xml`) or a GIFT file (any other name).

    Raises LessonError for a file that cannot be read or holds anything but multiple-choice questions.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LessonError(f"{path}: not UTF-8 text; expected Moodle XML or GIFT") from None
    except OSError as error:
        raise LessonError(f"{path}: {error.strerror or error}") from None
    return from_moodle_xml(text) if path.suffix.lower() == ".xml" else from_gift(text)


def add_to_pack(problems: Sequence[Problem], folder: Path, *, mode: str) -> Path:
    """Writes problems behind those that a pack's mode has; what it had stays as it was written.

    Returns:
        The file.

    Raises:
        LessonError: the folder is no pack, its file is damaged, or it has a problem of the same slug.
        MissingExtra: PyYAML is not installed.
    """
    from headstart.lessons.sources import import_yaml, read_sources

    name = f"problems/{mode}.yaml"
    sources = read_sources(folder)
    if broken := [finding for finding in sources.broken if finding.file == name]:
        raise LessonError(f"{folder}: {broken[0]}")
    data = sources.yaml[name].data if name in sources.yaml else None
    there = [entry.get("slug") for entry in (data or {}).get("problems") or () if isinstance(entry, dict)]
    for problem in problems:
        if problem.slug in there:
            raise LessonError(
                f"{folder / name} has a problem {problem.slug!r} already; rename one of the two"
            )
        there.append(problem.slug)
    entries = [_entry(problem) for problem in problems]
    text = _dumped(import_yaml(), entries)
    file = folder / name
    before = file.read_text(encoding="utf-8").rstrip() + "\n" if data else "problems:\n"
    file.parent.mkdir(exist_ok=True)
    file.write_text(before + indent(text, "  "), encoding="utf-8")
    return file


def _dumped(yaml: Any, entries: Sequence[Mapping[str, Any]]) -> str:
    """YAML as people write it: a text of several lines stands as it is."""

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        pass

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    found: str = yaml.dump(entries, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return found


def _entry(problem: Problem) -> dict[str, Any]:
    """A problem as a pack's file has it."""
    entry = {
        name: getattr(problem, name)
        for name in ("slug", "title", "kind", "level", "experiment", "seconds", "prompt")
    }
    if problem.seconds == PROBLEM_SECONDS:
        del entry["seconds"]
    if problem.code:
        entry["code"] = [asdict(face) for face in problem.code]
    entry["options"] = [
        {"key": one.key}
        | ({"correct": True} if one.correct else {})
        | {"text": one.text, "feedback": one.feedback}
        for one in problem.options
    ]
    return entry | {"hint": problem.hint, "explanation": problem.explanation}


def filled(problems: Iterable[Problem], results: Mapping[str, Mapping[str, object]]) -> list[Problem]:
    """The problems with measured numbers where placeholders stood, for those who read them elsewhere."""

    def fill(text: str) -> str:
        return placeholders.fill(text, results).strip()

    return [
        replace(
            problem,
            prompt=fill(problem.prompt),
            hint=fill(problem.hint),
            explanation=fill(problem.explanation),
            options=tuple(
                replace(one, text=fill(one.text), feedback=fill(one.feedback)) for one in problem.options
            ),
        )
        for problem in problems
    ]


# Moodle XML -----------------------------------------------------------------------------------------------


def to_moodle_xml(problems: Iterable[Problem]) -> str:
    """The problems as a Moodle question bank."""
    quiz = ET.Element("quiz")
    for problem in problems:
        quiz.append(_question(problem))
    ET.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(quiz, encoding="unicode") + "\n"


def _question(problem: Problem) -> ET.Element:
    question = ET.Element("question", type="multichoice")
    _text(ET.SubElement(question, "name"), problem.title)
    _text(ET.SubElement(question, "questiontext", format="markdown"), _with_code(problem))
    _text(ET.SubElement(question, "generalfeedback", format="markdown"), problem.explanation)
    settings = {"defaultgrade": "1", "penalty": "0.3333333", "hidden": "0", "single": "true"}
    for name, value in {**settings, "shuffleanswers": "true", "answernumbering": "none"}.items():
        ET.SubElement(question, name).text = value
    ET.SubElement(question, "idnumber").text = problem.slug
    for option in problem.options:
        answer = ET.SubElement(
            question, "answer", fraction="100" if option.correct else "0", format="markdown"
        )
        _text(answer, option.text)
        _text(ET.SubElement(answer, "feedback", format="markdown"), option.feedback)
    _text(ET.SubElement(question, "hint", format="markdown"), problem.hint)
    tags = ET.SubElement(question, "tags")
    for tag in _tags(problem):
        _text(ET.SubElement(tags, "tag"), tag)
    return question


def _tags(problem: Problem) -> list[str]:
    keys = [f"option-{number}:{option.key}" for number, option in enumerate(problem.options)]
    facts = {"kind": problem.kind, "level": problem.level, "experiment": problem.experiment}
    return [*(f"{name}:{value}" for name, value in facts.items()), f"seconds:{problem.seconds}", *keys]


def from_moodle_xml(text: str) -> tuple[Problem, ...]:
    """The multiple-choice questions of a Moodle XML file.

    Raises LessonError for broken XML, a document type declaration (an entity bomb needs one), and any
    question that is not multiple choice with exactly one right option.
    """
    _check_size(text)
    if re.search(r"<!(?:DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise LessonError("Moodle XML: a document type declaration is not accepted; remove it")
    try:
        quiz = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise LessonError(f"Moodle XML: not well formed ({error})") from None
    questions = [question for question in quiz.iter("question") if question.get("type") != "category"]
    if quiz.tag != "quiz" or not questions:
        raise LessonError("Moodle XML: expected <quiz> with at least one <question>")
    return tuple(_from_question(question, place) for place, question in enumerate(questions, 1))


def _from_question(question: ET.Element, place: int) -> Problem:
    title = _inner(question, "name") or f"Question {place}"
    where = f"question {place} ({title!r})"
    if question.get("type") != "multichoice":
        raise LessonError(f"{where} is of type {question.get('type')!r}; only multichoice can be imported")
    tags: dict[str, str] = {}
    for tag in question.iterfind("tags/tag"):
        name, _, value = (tag.findtext("text") or "").partition(":")
        tags.setdefault(name, value)
    options = tuple(
        Option(
            key=tags.get(f"option-{number}") or f"option-{number + 1}",
            text=_prose(answer),
            feedback=_inner(answer, "feedback"),
            correct=_fraction(answer, where) == 100,
        )
        for number, answer in enumerate(question.iterfind("answer"))
    )
    facts: dict[str, Any] = {"slug": (question.findtext("idnumber") or "").strip(), **tags}
    hint = _inner(question, "hint")
    return _problem(
        where,
        title,
        _inner(question, "questiontext"),
        options,
        facts,
        hint,
        _inner(question, "generalfeedback"),
    )


def _fraction(answer: ET.Element, where: str) -> float:
    try:
        return float(answer.get("fraction", "0"))
    except ValueError:
        raise LessonError(f"{where}: fraction {answer.get('fraction')!r} is no number") from None


def _text(parent: ET.Element, text: str) -> None:
    ET.SubElement(parent, "text").text = text


def _inner(parent: ET.Element, name: str) -> str:
    found = parent.find(name)
    return "" if found is None else _prose(found)


def _prose(element: ET.Element) -> str:
    """The text of an element as Markdown: Moodle's editor writes HTML, which our pages would not render."""
    text = (element.findtext("text") or "").strip()
    return _from_html(text) if element.get("format") in ("html", "moodle_auto_format") else text


def _from_html(text: str) -> str:
    reader = _HtmlReader()
    reader.feed(text)
    reader.close()
    return reader.markdown()


_INLINE = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`", "tt": "`"}
_BLOCKS = frozenset(("p", "div", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "blockquote"))
_SILENT = frozenset(("script", "style"))


class _HtmlReader(HTMLParser):
    """Turns what Moodle's editor writes into Markdown: paragraphs, lists, emphasis, code. Other tags go."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._verbatim = self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag == "pre":
            self._verbatim += 1
            self._parts.append("\n\n```\n")
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "li":
            self._parts.append("\n- ")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
        elif tag in _INLINE and not self._verbatim:
            self._parts.append(_INLINE[tag])
        elif tag == "img":
            said = dict(attrs).get("alt") or "a picture that was not imported"
            self._parts.append(f"[{said}]")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag == "pre" and self._verbatim:
            self._verbatim -= 1
            self._parts.append("\n```\n\n")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
        elif tag in _INLINE and not self._verbatim:
            self._parts.append(_INLINE[tag])

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))

    def markdown(self) -> str:
        """What was read, with at most one empty line in a row and none that ends in blanks."""
        lines = [line.rstrip() for line in "".join(self._parts).replace("\xa0", " ").split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


# GIFT -----------------------------------------------------------------------------------------------------

_ESCAPED = str.maketrans({**{character: f"\\{character}" for character in "\\~=#{}:"}, "\n": "\\n"})


def to_gift(problems: Iterable[Problem]) -> str:
    """The problems as GIFT text. A comment before each keeps what GIFT has no place for."""
    return "\n".join(_gift(problem) for problem in problems)


def _gift(problem: Problem) -> str:
    facts = {
        "kind": problem.kind,
        "level": problem.level,
        "experiment": problem.experiment,
        "seconds": problem.seconds,
        "hint": problem.hint,
        "keys": [option.key for option in problem.options],
    }
    lines = [
        f"// [id:{problem.slug}]",
        f"// headstart: {json.dumps(facts, ensure_ascii=False)}",
        f"::{_escape(problem.title)}::[markdown]{_escape(_with_code(problem))} {{",
        *(f"{'=' if o.correct else '~'}{_escape(o.text)}#{_escape(o.feedback)}" for o in problem.options),
        f"####{_escape(problem.explanation)}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def from_gift(text: str) -> tuple[Problem, ...]:
    """The multiple-choice questions of a GIFT file.

    Raises LessonError for a question that cannot be read, naming its place.
    """
    _check_size(text)
    blocks = [block for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")) if block.strip()]
    problems = []
    for place, block in enumerate(blocks, 1):
        comments = [line.strip() for line in block.split("\n") if line.strip().startswith("//")]
        body = "\n".join(line for line in block.split("\n") if not line.strip().startswith("//")).strip()
        if body and not body.startswith("$CATEGORY"):
            problems.append(_from_gift(body, comments, place))
    if not problems:
        raise LessonError("GIFT: expected at least one question")
    return tuple(problems)


def _from_gift(body: str, comments: Sequence[str], place: int) -> Problem:
    pieces = _split(body, "{", limit=1)
    if len(pieces) != 2 or not pieces[1].rstrip().endswith("}"):
        raise LessonError(f"GIFT question {place}: expected its answers in braces at the end")
    head, answers = pieces[0].strip(), pieces[1].rstrip()[:-1]
    title = f"Question {place}"
    if head.startswith("::"):
        parts = _split(head[2:], "::", limit=1)
        if len(parts) == 2:
            title, head = _unescape(parts[0].strip()), parts[1].strip()
    where = f"GIFT question {place} ({title!r})"
    form = re.match(r"\[(\w+)\]", head)
    head = head[form.end() :] if form else head
    prose = _from_html if form and form[1] == "html" else str.strip
    answers, _, explanation = _partition(answers, "####")
    facts = _facts(comments, where)
    keys = facts.get("keys", [])
    options = tuple(
        _gift_option(piece, number, keys) for number, piece in enumerate(_answers(answers, where))
    )
    return _problem(
        where,
        title,
        prose(_unescape(head.strip())),
        tuple(replace(one, text=prose(one.text), feedback=prose(one.feedback)) for one in options),
        facts,
        facts.get("hint", ""),
        prose(_unescape(explanation)),
    )


def _answers(text: str, where: str) -> list[str]:
    """Each answer with its mark, `=` or `~`, in front."""
    starts = [place for place in _unescaped(text) if text[place] in "=~"]
    # Without a wrong answer, marked '~', GIFT means another kind of question: short answer or matching.
    if not any(text[start] == "~" for start in starts) or text[: starts[0]].strip():
        raise LessonError(f"{where}: only multiple choice can be imported, with answers marked '=' and '~'")
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _gift_option(piece: str, number: int, keys: Sequence[str]) -> Option:
    correct, body = piece[0] == "=", piece[1:]
    if weight := re.match(r"%(-?\d+(?:\.\d+)?)%", body):
        correct, body = float(weight[1]) == 100, body[weight.end() :]
    text, _, feedback = _partition(body, "#")
    key = keys[number] if number < len(keys) else f"option-{number + 1}"
    return Option(str(key), _unescape(text), _unescape(feedback), correct)


def _facts(comments: Sequence[str], where: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for comment in comments:
        if found := re.search(r"\[id:([^\]]+)\]", comment):
            facts["slug"] = found[1]
        if comment.startswith("// headstart:"):
            try:
                facts |= dict(json.loads(comment.removeprefix("// headstart:")))
            except (ValueError, TypeError):
                raise LessonError(f"{where}: its '// headstart:' comment is damaged") from None
    return facts


def _escape(text: str) -> str:
    return text.translate(_ESCAPED)


def _unescape(text: str) -> str:
    return re.sub(
        r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text.strip(), flags=re.DOTALL
    )


def _unescaped(text: str) -> Iterable[int]:
    """The places of the characters that no backslash escapes."""
    place = 0
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        yield place
        place += 1


def _split(text: str, mark: str, *, limit: int) -> list[str]:
    parts: list[str] = []
    start = 0
    for place in _unescaped(text):
        if len(parts) < limit and place >= start and text.startswith(mark, place):
            parts.append(text[start:place])
            start = place + len(mark)
    return [*parts, text[start:]]


def _partition(text: str, mark: str) -> tuple[str, str, str]:
    parts = _split(text, mark, limit=1)
    return (parts[0], mark, parts[1]) if len(parts) == 2 else (text, "", "")


# What both share ------------------------------------------------------------------------------------------


def _problem(
    where: str,
    title: str,
    prompt: str,
    options: tuple[Option, ...],
    facts: dict[str, Any],
    hint: str,
    explanation: str,
) -> Problem:
    right = sum(option.correct for option in options)
    if right != 1 or len(options) < 2:
        raise LessonError(
            f"{where}: expected two or more options with exactly one right, got {len(options)} and {right}"
        )
    prompt, code = _without_code(prompt)
    try:
        seconds = int(facts.get("seconds", PROBLEM_SECONDS))
    except (TypeError, ValueError):
        raise LessonError(f"{where}: seconds {facts['seconds']!r} is no number") from None
    return Problem(
        slug=str(facts.get("slug") or _slug(title)),
        title=title,
        kind=str(facts.get("kind", "conceptual")),
        level=str(facts.get("level", "intermediate")),
        prompt=prompt,
        options=options,
        hint=hint,
        explanation=explanation,
        experiment=str(facts.get("experiment", "")),
        code=code,
        seconds=seconds,
    )


def _with_code(problem: Problem) -> str:
    fences = (f'```{face.language} title="{face.label}"\n{face.text}```' for face in problem.code)
    return "\n\n".join([problem.prompt, *fences])


def _without_code(prompt: str) -> tuple[str, tuple[CodeFace, ...]]:
    faces = tuple(CodeFace(m["label"], m["language"], m["text"]) for m in _FENCE.finditer(prompt))
    return _FENCE.sub("", prompt).strip(), faces


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "question"


def _check_size(text: str) -> None:
    if len(text) > LARGEST_IMPORT:
        raise LessonError(f"this file is too large to be questions: more than {LARGEST_IMPORT} characters")
