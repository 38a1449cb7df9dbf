"""Classifiers on the Hugging Face hub: `push` puts one there with a model card, `pull` brings one as a run.

What goes up is the model, its labels and the record of its training without file names, folders and machine:
the hub is no place for those. `HF_ENDPOINT`, `HF_TOKEN` and the cache are `huggingface_hub`'s own.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.classifier import MODEL_FILE, Classifier, load
from headstart.errors import HeadstartError, MissingExtra, OptionError, RunError, printable, reason_of
from headstart.exports.cards import card, markdown
from headstart.exports.formats import FORMATS
from headstart.exports.subject import Subject
from headstart.runs import CLASSIFIER_FILE, RUN_FILE, Run, RunStore, check_place, new_folder, read_run
from headstart.runs.scores import SCORES, name_in_words

CARD_FILE = "README.md"
"""What the hub shows."""

_FILES = (MODEL_FILE, CLASSIFIER_FILE, RUN_FILE)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDERS = re.compile(r"(?!(?<=:)//)(?<![\w.~/])(?:/[^/\s]+)*/(?=[^/\s])|[A-Za-z]:\\(?:[^\\\s]+\\)*")
"""In front of a file's name, where a path is absolute."""


def push(run: str | Path | Run | Classifier, repository: str, *, public: bool = False) -> str:
    """Put a classifier on the hub, in a repository that is made where there is none.

    Args:
        run: its folder, its id, a run or a classifier.
        repository: OWNER/NAME.
        public: whether a repository that is made now is open to everybody.

    Returns:
        The repository's address.

    Raises:
        RunError: there is no such run.
        OptionError: the hub does not take it; the message has its reason.
        MissingExtra: what uploads is not installed.
    """
    _check(repository)
    subject = Subject.of(run)
    with tempfile.TemporaryDirectory() as name, _told(repository):
        import huggingface_hub

        folder = Path(name)
        _fill(folder, subject, repository=repository)
        hub = huggingface_hub.HfApi()
        hub.create_repo(repository, private=not public, exist_ok=True)
        message = f"Headstart classifier {subject.run.id if subject.run else subject.folder.name}"
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=[RUN_FILE]
        )
        return f"{hub.endpoint}/{repository}"


def pull(repository: str, *, out: str | Path | None = None, revision: str | None = None) -> Classifier:
    """Bring a classifier from the hub, or from its cache on this machine, into a run's folder.

    Args:
        repository: OWNER/NAME.
        out: the new folder; None for ``runs/NAME``.
        revision: a branch, tag or commit.

    Raises:
        RunError: the repository has no classifier, or the folder is there already.
        OptionError: the hub cannot be reached, or does not give it.
        MissingExtra: what downloads is not installed.
    """
    _check(repository)
    place = (Path(out) if out else Path("runs") / repository.rpartition("/")[2]).absolute()
    check_place(place)
    with _told(repository):
        import huggingface_hub

        found = Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(_FILES))
        )
    if not all((found / name).is_file() for name in _FILES[:2]):
        raise RunError(f"{repository}: no classifier in it; expected {MODEL_FILE} and {CLASSIFIER_FILE}")
    with new_folder(place) as folder:
        for name in _FILES:
            if (found / name).is_file():
                shutil.copyfile(found / name, folder / name)
        load(folder)  # what a stranger wrote is checked before it is a run
        record = read_run(folder) if (folder / RUN_FILE).is_file() else None
    if record is not None and RunStore().get(record.id) is None:
        RunStore().add(replace(record, path=place))
    return load(place)


def _check(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise OptionError(f"{printable(repository[:80])!r}: expected OWNER/NAME, as huggingface.co names it")


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """The hub's failures in one line."""
    try:
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise MissingExtra("the Hugging Face hub", extra="hub") from None
    try:
        yield
    except LocalEntryNotFoundError:
        raise OptionError(
            f"{repository}: not in this machine's cache, and the hub cannot be reached; it needs a network"
        ) from None
    except HeadstartError:
        raise
    except Exception as error:  # of the hub, and of the HTTP library that it has in this version
        reason = printable(reason_of(error))
        raise OptionError(
            f"{repository}: the hub says: {reason}; hf auth login, or HF_TOKEN, says who you are"
        ) from error


def _fill(folder: Path, subject: Subject, *, repository: str) -> None:
    """The files of a repository."""
    classifier, run = subject.classifier, subject.run
    files = _files_of(run) if run else []
    replace(classifier, about=_without_folders(classifier.about, files)).save(folder)
    if run is not None:
        run = replace(run, source=None, corrections=None, machine="", data={})
        facts = {name: value for name, value in run.to_dict().items() if name != "path"}
        text = json.dumps(_without_folders(facts, files), indent=1, default=str)
        (folder / RUN_FILE).write_text(text, encoding="utf-8")
    facts = _without_folders(card(subject, FORMATS["onnx"], parity=None), files)
    text = f"{_header(subject)}\n{markdown(facts | {'use': _use(repository)})}"
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def _use(repository: str) -> str:
    folder = f"runs/{repository.rpartition('/')[2]}"
    return (
        f"`headstart pull {repository}`, then `headstart predict {folder} photo.jpg`, or in Python "
        f'`headstart.load("{folder}").predict("photo.jpg")`. `{MODEL_FILE}` runs in any ONNX runtime.'
    )


def _header(subject: Subject) -> str:
    """What the hub indexes, as YAML; JSON is YAML."""
    head: dict[str, Any] = {
        "library_name": "headstart",
        "pipeline_tag": "image-classification",
        "tags": ["headstart", "onnx", "image-classification"],
    }
    run = subject.run
    sides = [side for side in ("test", "validation") if run and run.evaluation.get(side)]
    if run and sides:
        score = SCORES[run.config.task]
        value = run.evaluation[sides[0]][score]
        metric = {"type": score, "value": value, "name": f"{name_in_words(score)}, {sides[0]} images"}
        data = {"name": Path(run.config.data).name or "images", "type": "imagefolder"}
        task = {"type": "image-classification"}
        results = [{"task": task, "dataset": data, "metrics": [metric]}]
        head["model-index"] = [{"name": run.id, "results": results}]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---"])


def _without_folders(value: Any, files: Sequence[str] = ()) -> Any:
    """Data for JSON in which files of this machine, and these wherever they stand, have their names alone."""
    if isinstance(value, str):
        for file in files:
            value = value.replace(file, Path(file).name)
        whole = Path(value).is_absolute() or value.startswith(("./", "../", "~"))
        return Path(value).name if whole else _FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {_without_folders(name, files): _without_folders(each, files) for name, each in value.items()}
    return [_without_folders(each, files) for each in value] if isinstance(value, list | tuple) else value


def _files_of(run: Run) -> list[str]:
    """The options of a run that are paths, the longest first."""
    config = run.config
    named = (
        config.backbone,
        config.data,
        config.groups,
        config.costs,
        config.priors,
        *(config.candidates or ()),
    )
    paths = [each for each in named if each and "/" in each and ":" not in each]
    return sorted(paths, key=len, reverse=True)
