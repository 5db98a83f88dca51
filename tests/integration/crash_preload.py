"""What the fork server of the crash tests imports once, so that each child starts in a moment."""

import pyarrow.parquet  # noqa: F401
import tokenizers  # noqa: F401
import transformers.models.qwen2.modeling_qwen2  # noqa: F401

import easyedit_split.reproduce.output
import easyedit_split.reproduce.run
import easyedit_split.sweeps.run
import easyedit_split.training.from_settings  # noqa: F401
