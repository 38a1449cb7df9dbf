"""What explaining a classifier needs is loaded once, however many images are explained."""

from collections.abc import Callable, Hashable
from typing import TypeVar

from headstart.classifier import Classifier

_Loaded = TypeVar("_Loaded")


def kept(classifier: Classifier, key: Hashable, load: Callable[[], _Loaded]) -> _Loaded:
    """What ``load`` gave when it was first asked for under this key, of this classifier."""
    if key not in classifier.kept:
        classifier.kept[key] = load()
    found: _Loaded = classifier.kept[key]
    return found
