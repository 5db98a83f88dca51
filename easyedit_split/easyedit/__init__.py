"""The border with EasyEdit2: the only part of the package that knows its folder `steer/`.

Importing this package loads neither torch nor `steer`: every Hydra program of the environment passes here.
"""

from __future__ import annotations

from easyedit_split.easyedit.registration import METHODS, register
from easyedit_split.easyedit.shipped import hparams_path

__all__ = ["METHODS", "hparams_path", "register"]
