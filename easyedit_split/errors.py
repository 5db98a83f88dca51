"""Every error a user can cause: one base class, so that a caller can catch the package's errors alone.

Each message is one sentence that names the value, the bound it broke and the remedy.
The command line prints the sentence and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class SteeringError(Exception):
    """Base class of every error this package raises on purpose."""


class ConfigError(SteeringError):
    """A hyper-parameter, an option or a hyper-parameter file is wrong."""


class DataError(SteeringError):
    """A data set, or one row of it, cannot be used."""


class SiteError(SteeringError):
    """A site does not exist in this model, or does not fit the form."""


class ArtifactError(SteeringError):
    """A file of ours (artifact, sweep, checkpoint, manifest) is broken or belongs to another model."""


class ProgressError(ArtifactError):
    """A file of unfinished work is broken or of another run: without it the work starts again."""


class NotMergeableError(SteeringError):
    """A change cannot be written into the weights or exported in the way that was asked."""


class FitError(SteeringError):
    """A curve cannot be fitted."""


class TrainingError(SteeringError):
    """Training came to a number that is not finite, or to a batch that does not fit in memory.

    `artifact` is the change as it was before that step.
    """

    def __init__(self, message: str, artifact: Any = None) -> None:
        super().__init__(message)
        self.artifact = artifact


class HostError(SteeringError):
    """EasyEdit is missing, or is of an unknown layout."""


def nearest(name: str, valid: Iterable[str], meanings: Mapping[str, str] | None = None) -> str:
    """A hint for a wrong name: ``; did you mean 'x'?``, or the list of valid names.

    Args:
        meanings: other words for things -> the valid name, or a sentence that says what to write.
    """
    names = sorted(valid)
    meant = (meanings or {}).get(name.lower().replace("-", "_"))
    if meant is not None:
        return f"; did you mean {meant!r}?" if meant in names else f"; {meant}"
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid names are {', '.join(names)}"
