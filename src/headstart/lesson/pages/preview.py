"""A preview of a pack being written; pages reload at every save.

Progress is kept in a folder that goes with the server, so nothing a writer clicks stays. Results of
experiments are those of this machine. While a pack breaks a rule its pages show what to mend, with file and
line.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import Response

from headstart.errors import LessonError
from headstart.lesson import experiments
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.progress import Progress
from headstart.lesson.pages.app import create_app, serve_jobs
from headstart.lesson.pages.catalogue import Catalogue
from headstart.lesson.pages.site import LessonSite
from headstart.lesson.pages.templating import page
from headstart.runs.store import store_file
from headstart.web.events import event, stream
from headstart.web.jobs import Jobs
from headstart.web.server import Where, run
from headstart.web.site import load_secret

router = APIRouter()

ADDRESS = "/preview/changes"
Stamp = tuple[tuple[str, int, int], ...]


class Broken(Exception):
    """The pack breaks a rule at this moment."""


class Draft:
    """The files of a pack, and the site that shows them as they were last sound.

    Args:
        folder: the pack's.
        app: whose site is exchanged when a file changes.
    """

    def __init__(self, folder: Path, app: FastAPI) -> None:
        self.folder = folder
        self.app = app
        self.version = 1
        self.findings: tuple[str, ...] = ()
        self._stamp = self._now()

    def look(self) -> None:
        """Loads the pack anew where a file has changed since the last look."""
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self.version += 1
        try:
            found = library.check_pack(self.folder)
            self.findings = tuple(str(finding) for finding in found if not finding.warning)
            if not self.findings:
                self.app.state.site = replace(self.app.state.site, pack=library.load_pack(self.folder))
                serve_jobs(self.app.state.site)
        except LessonError as error:
            self.findings = (str(error),)

    def _now(self) -> Stamp:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)


def create_preview(folder: Path, home: Path, *, token: str | None = None) -> FastAPI:
    """The application that shows a pack's folder, to browsers that bring the token if there is one.

    Raises LessonError where the pack is not sound to begin with.
    """

    async def look(request: Request) -> None:
        draft: Draft = request.app.state.draft
        draft.look()
        request.app.state.live = f"{ADDRESS}?seen={draft.version}"
        if draft.findings and request.url.path != ADDRESS:
            raise Broken

    site = LessonSite(
        pack=library.load_pack(folder),
        store=Progress.open(store_file(home)),
        home=home,
        secret=load_secret(home),
        jobs=Jobs(home),
        catalogue=Catalogue(experiments),
        learner="preview",
        token=token,
    )
    app = create_app(site, before=(look,))
    app.state.draft = Draft(folder, app)
    app.include_router(router)
    app.add_exception_handler(Broken, _show_findings)
    return app


@router.get(ADDRESS)
async def changes(request: Request, seen: Annotated[int, Query()] = 0) -> Response:
    """A stream that says when the page that asks is no longer what the files say."""
    draft: Draft = request.app.state.draft

    def news() -> tuple[str, bool]:
        draft.look()
        changed = draft.version != seen
        return event("changed", {}) if changed else "", changed

    return stream(request, news)


async def _show_findings(request: Request, error: Exception) -> Response:
    draft: Draft = request.app.state.draft
    return page(request, "findings.html", status=500, folder=draft.folder.name, findings=draft.findings)


def preview(folder: Path, *, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serves a pack's folder on loopback until Ctrl-C; see `headstart.web.server.Where`.

    Raises:
        LessonError: the pack is not sound to begin with.
        OptionError: the port cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-preview-", ignore_cleanup_errors=True) as home:
        app = create_preview(folder, Path(home), token=secrets.token_urlsafe(16))
        note = "shows every save; Ctrl-C stops, and forgets what was clicked"
        where = Where(host="127.0.0.1", port=port, browser=browser, say=say)
        run(app, app.state.site, title=str(folder), note=note, **where)
