"""`easyedit-split serve`."""

from __future__ import annotations

import argparse

from .common import WHERE


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "artifacts", nargs="+", metavar="CHANGE",
        help=f"changes to serve ({WHERE}), each under the last part of its name, or as NAME=CHANGE",
    )  # fmt: skip
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="a folder, a hub id, a GGUF file, demo or smollm2"
    )
    parser.epilog = "Everything else is passed on to `vllm serve` (--port, --dtype, --max-model-len, …)."
    parser.set_defaults(passed_on=[])
    parser.allow_abbrev = False


def run(arguments: argparse.Namespace) -> int:
    from ..serving.launch import serve

    return serve(arguments.artifacts, arguments.model, arguments.passed_on)
