"""The border with EasyEdit2: the only part of the package that knows its folder `steer/`.

Importing this package loads neither torch nor `steer`: every Hydra program of the environment passes here.
"""

from __future__ import annotations

from .registration import METHODS, register
from .shipped import hparams_path

__all__ = ["METHODS", "hparams_path", "register"]
