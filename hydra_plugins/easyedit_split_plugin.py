"""Found by Hydra in every program of the environment: registers our methods and makes our files known.

Only the standard library and Hydra itself are imported here; neither torch nor EasyEdit.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from easyedit_split.easyedit import hparams_path, register
from easyedit_split.settings.shipped import PACKAGE, hparams_root, is_installed

register()
# `${split_hparams:demo/reviews/split_vector}` in a config or on the command line becomes the file's path.
OmegaConf.register_new_resolver("split_hparams", hparams_path, replace=True)


class EasyEditSplitSearchPath(SearchPathPlugin):
    """Adds the shipped hyper-parameter files to Hydra's config search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        path = f"pkg://{PACKAGE}" if is_installed() else f"file://{hparams_root()}"
        search_path.append(provider="easyedit-split", path=path)
