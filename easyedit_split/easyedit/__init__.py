"""The border with EasyEdit2: the only part of the package that knows its folder `steer/`.

Importing this package loads neither torch nor `steer`: every Hydra program of the environment passes here.
"""

from __future__ import annotations

from ..settings.shipped import hparams_path
from .methods import METHODS
from .registration import register

__all__ = ["METHODS", "hparams_path", "register"]
