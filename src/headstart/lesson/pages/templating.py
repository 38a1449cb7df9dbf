"""The lesson's templates, and its Markdown with measured numbers and plots in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache
from html import escape
from typing import Any

from fastapi import Request
from jinja2 import Environment
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markupsafe import Markup
from starlette.responses import HTMLResponse

from headstart.lesson.engine import attempts, placeholders
from headstart.lesson.engine.pack import Mode, Pack, prose_lines
from headstart.lesson.engine.reference import Reference, ReferenceValue, conclusion_of, references
from headstart.lesson.pages import maths
from headstart.lesson.pages.catalogue import Shown
from headstart.lesson.pages.site import LessonSite
from headstart.runs.formatting import seconds_range
from headstart.web.app import new_environment, render
from headstart.web.plots import Plot, draw
from headstart.web.security import Session, session_of

Results = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Drawn:
    """An experiment's result as prose shows it: its plots, and what one must know to read them.

    Attributes:
        plots: none where it has not run.
        data: which images.
        notes: what was missing, cut short or a lower bound.
        held: whether it is held back, as a problem that it settles is open.
        lacks: the extra to install before it can run, or empty.
        known: whether it is part of this installation.
        reference: what the reference machine measured, where this one has not.
        title: the experiment's.
        meanings: of the result's fields.
    """

    plots: Sequence[Plot] = ()
    data: str = ""
    notes: Sequence[str] = ()
    held: bool = False
    lacks: str = ""
    known: bool = True
    reference: Reference | None = None
    title: str = ""
    meanings: Mapping[str, Any] = field(default_factory=dict)


Plots = Callable[[str], Drawn]


# Markdown -------------------------------------------------------------------------------------------------


@cache
def _parser() -> MarkdownIt:
    # Raw HTML stays text: a pack may come from anyone.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.inline.ruler.before("link", "measured", _scan)
    parser.inline.ruler.before("link", "formula", maths.scan)
    parser.core.ruler.push("plots", _lift_plots)
    parser.add_render_rule("measured", _render_measured)
    parser.add_render_rule("plot", _render_plot)
    parser.add_render_rule("fence", _render_fence)
    parser.add_render_rule("image", _render_image)
    parser.add_render_rule("formula", _render_formula)
    return parser


def markdown(text: str, results: Results, *, plots: Plots | None = None) -> Markup:
    """Markdown as HTML. Placeholders become numbers, links or plots; see `lesson.engine.placeholders`.

    Args:
        text: the Markdown.
        results: the fields of every experiment that has run.
        plots: gives an experiment's result, drawn.
    """
    env = {"results": results, "plots": plots}
    return Markup(_parser().renderer.render(_parsed(text), _parser().options, env))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Sequence[Token]:
    # Parsing is what costs; the numbers come in when it is rendered.
    return _parser().parse(text)


@lru_cache(maxsize=1024)
def _parsed_inline(text: str) -> Sequence[Token]:
    return _parser().parseInline(" ".join(text.split()))


def plots_of(shown: Shown, pack: Pack) -> Plots:
    """Where `markdown` gets its plots from."""

    def plots(name: str) -> Drawn:
        declared = pack.experiments.get(name)
        title, meanings = (declared.heading, declared.fields) if declared else ("", {})
        result = shown.latest(name, as_declared=True)
        if result is not None:
            return Drawn(result.plots, result.data, result.notes, title=title)
        about = shown.catalogue.about(name)
        return Drawn(
            title=title,
            held=name in shown.held,
            lacks=about.missing if about else "",
            known=about is not None,
            reference=shown.reference(name),
            meanings=meanings,
        )

    return plots


def inline(text: str, results: Results) -> Markup:
    """One paragraph of Markdown without the paragraph: an option, a title."""
    return Markup(_parser().renderer.render(_parsed_inline(text), _parser().options, {"results": results}))


@lru_cache(maxsize=256)
def sections(body: str) -> Sequence[tuple[str, str]]:
    """A mode's body as (heading, Markdown below it), split as `Mode.sections` counts."""
    found: list[tuple[str, list[str]]] = []
    for line, prose in zip(body.splitlines(), prose_lines(body), strict=True):
        if prose.startswith("## "):
            found.append((prose[3:].strip(), []))
        elif found:
            found[-1][1].append(line)
    return [(heading, "\n".join(lines)) for heading, lines in found]


def quoted_in(pack: Pack, experiment: str) -> list[tuple[str, str]]:
    """Where the lesson's texts use an experiment: each section's title and address."""
    return [
        (placeholders.fill(title, {}), f"/modes/{mode.name}#section-{number}")
        for mode in pack.modes
        for number, (title, text) in enumerate(sections(mode.body), 1)
        if any(found.experiment == experiment for found in placeholders.find(text) if found.kind != "panel")
    ]


def parts_of(mode: Mode, results: Results) -> list[tuple[str, Markup]]:
    """A mode's sections as (heading, HTML)."""
    return [(heading, markdown(text, results)) for heading, text in sections(mode.body)]


def _scan(state: StateInline, silent: bool) -> bool:
    if not state.src.startswith("{{", state.pos):
        return False
    rest = state.src[state.pos :]
    found = placeholders.find(rest)
    if not found or found[0].start != 0:
        return False
    if not silent:
        token = state.push("measured", "", 0)
        token.meta = {"placeholder": found[0]}
    state.pos += found[0].end
    return True


def _lift_plots(state: StateCore) -> None:
    """Moves plots out of paragraphs, as a figure may not stand in one; an emptied paragraph goes."""
    lifted: list[Token] = []
    waiting: list[Token] = []
    for token in state.tokens:
        plots = [child for child in token.children or () if _kind(child) == "plot"]
        if plots:
            token.children = [child for child in token.children or () if child not in plots]
            waiting = [Token("plot", "", 0, meta=plot.meta, block=True) for plot in plots]
        lifted.append(token)
        if token.type == "paragraph_close" and waiting:
            if not any(_is_visible(child) for child in lifted[-2].children or ()):
                del lifted[-3:]
            lifted += waiting
            waiting = []
    state.tokens = lifted


def _kind(token: Token) -> str | None:
    return token.meta["placeholder"].kind if token.type == "measured" else None


def _is_visible(token: Token) -> bool:
    return token.type not in ("softbreak", "text") or bool(token.content.strip())


def _render_measured(
    _: RendererHTML, tokens: Sequence[Token], place: int, options: object, env: dict[str, Any]
) -> str:
    placeholder = tokens[place].meta["placeholder"]
    address = f"/experiments/{placeholder.experiment}"
    if placeholder.kind == "claim":
        return f'<a class="claim" href="{address}" title="The experiment behind this">evidence</a>'
    value = placeholders.measured(env["results"], placeholder.experiment, placeholder.field or "")
    kind = "finding" if placeholder.field == "conclusion" else "number"
    if isinstance(value, ReferenceValue):
        title = f"Reference machine, {references()[placeholder.experiment].day}; not measured here yet"
        return (
            f'<a class="{kind} reference" href="{address}" title="{escape(title)}">'
            f'{escape(show(value.value))}<sup aria-hidden="true">{placeholders.MARK}</sup></a>'
        )
    if value == placeholders.PENDING:
        return f'<a class="pending" href="{address}">{escape(placeholders.PENDING)}</a>'
    return f'<a class="{kind}" href="{address}">{escape(show(value))}</a>'


def _render_plot(
    _: RendererHTML, tokens: Sequence[Token], place: int, options: object, env: dict[str, Any]
) -> str:
    name = tokens[place].meta["placeholder"].experiment
    plots = env.get("plots")
    template = _environment().get_template("_plot.html")
    text: str = template.render(name=name, drawn=plots(name) if plots else Drawn())
    return text


def _render_formula(
    _: RendererHTML, tokens: Sequence[Token], place: int, options: object, env: object
) -> str:
    return maths.to_mathml(tokens[place].content)


def _render_image(
    renderer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, env: dict[str, Any]
) -> str:
    """A picture of the pack; of one from elsewhere, which pages may not fetch, its words."""
    token = tokens[place]
    says = escape(renderer.renderInlineAsText(token.children, options, env))
    source = str(token.attrs.get("src", ""))
    if not re.fullmatch(r"pictures/[\w-]+\.\w+", source):
        return f"[{says}]"
    return f'<img class="picture" src="/{escape(source)}" alt="{says}" loading="lazy">'


def _render_fence(_: RendererHTML, tokens: Sequence[Token], place: int, options: object, env: object) -> str:
    return f'<div class="code"><pre tabindex="0"><code>{escape(tokens[place].content)}</code></pre></div>'


def show(value: object) -> str:
    """A measured value as people read it: three significant digits."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


# Pages ----------------------------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    return new_environment(
        "headstart.lesson.pages",
        clock=clock,
        day=day,
        conclusion=conclusion_of,
        draw=draw,
        letter=attempts.letter,
        quoted=quoted,
        sentence=sentence,
        show=show,
        spoken=attempts.spoken,
        span=seconds_range,
        words=words,
    )


def compile_templates() -> None:
    """Compiles the lesson's templates now, so that the first learners do not wait for it."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


def quoted(fields: Mapping[str, object], name: str) -> str:
    """A field of a result as prose quotes it."""
    return show(placeholders.measured({"": fields}, "", name))


def words(text: str) -> str:
    """A name as words."""
    return re.sub(r"[-_]", " ", text)


def sentence(text: str) -> str:
    """A text with a capital letter in front and its other letters as they are."""
    return text[:1].upper() + text[1:]


def clock(seconds: float | None) -> str:
    """Seconds as people read a timer: `1:05`."""
    whole = int(seconds or 0)
    return f"{whole // 60}:{whole % 60:02d}"


def day(at: datetime) -> str:
    """A time as people read it, in this machine's zone: `3 December, 14:00`."""
    local = at.astimezone()
    return f"{local.day} {local:%B, %H:%M}"


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from its template in `templates`; every page knows the lesson."""
    site: LessonSite = request.app.state.site
    session = session_of(request)
    values |= {
        "places": _places(site, session),
        "may_run": site.may_run(session.learner),
        "in_class": site.standing(session.learner) is not None,
        "pack": site.pack,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "live": getattr(request.app.state, "live", ""),
        "site": site,
        "learner": session.learner,
    }
    made = render(request, _environment(), template, status=status, **values)
    return HTMLResponse(_led_to(site.at, bytes(made.body).decode()), status) if site.at else made


_OWN_ADDRESS = re.compile(r'(?<= )((?:href|src|action|formaction|data-[a-z]+)=")/(?!static/|lessons/)')
"""An attribute with the address of a page of the lesson. Texts cannot look so: their quotes are escaped."""


def _led_to(at: str, html: str) -> str:
    """A page of a lesson that stands beside the first; its addresses are written as if it were the first."""
    return _OWN_ADDRESS.sub(rf"\1{at}/", html)


def _places(site: LessonSite, session: Session) -> list[tuple[str, str]]:
    """The menu: the lesson for who may see it, a member's own page, a teacher's classes."""
    standing = site.standing(session.learner) if site.door else None
    taught = site.taught(session.teaches) if site.learner is None and session.teaches else []
    if site.door and standing is None and not taught:
        return []
    places = [("/", "Lesson"), ("/modes/challenge", "Challenge"), ("/experiments", "Experiments")]
    if standing is not None:
        places.append(("/me", standing[1].shown))
    return places + [(f"/classes/{one.id}", one.name) for one in taught]
