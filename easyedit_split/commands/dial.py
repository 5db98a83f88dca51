"""`easyedit-split dial`: a local page to turn the strength and see what it does and costs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .common import any_model_option, budget_option

DEMO = Path("runs/demo")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="*", metavar="RUN",
        help="folders of changes or of runs, or OWNER/NAME or OWNER/NAME@REVISION on the hub, all of one model "
        f"(default: the demo's in {DEMO}, trained if need be)",
    )  # fmt: skip
    parser.add_argument("--model", metavar="FOLDER", help="the model (default: the one the changes were made for)")
    parser.add_argument("--dtype", default="float32", help="float32 (default), bfloat16, float16 or auto")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 …")
    budget_option(parser)
    any_model_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0 takes a free one")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def run(arguments: argparse.Namespace) -> int:
    from ..dial.change import find_changes
    from ..dial.server import DialServer
    from ..dial.session import Session
    from ..models.loading import load_model

    runs = arguments.runs or [_demo_run()]
    changes = find_changes(runs, arguments.max_utility_drop, arguments.any_model)
    source = arguments.model or _model_of(changes)
    model, tokenizer = load_model(source, dtype=arguments.dtype, device=arguments.device)
    with (
        Session(model, tokenizer, changes, source) as session,
        DialServer(session, arguments.host, arguments.port) as server,
    ):
        print(f"{len(changes)} change(s) on {source}: {', '.join(c.name for c in changes)}")
        print(f"the dial is at {server.url} (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:
            _open(server.url)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            print("\nclosed")
    return 0


def _demo_run() -> Path:
    """The demo's folder of three forms, trained now where one is missing."""
    from ..changes.forms import FORMS
    from ..folders import TEST
    from . import demo

    if not all((DEMO / form / TEST).exists() for form in FORMS):
        print(f"{DEMO} does not hold the demo's three forms: training them first (about a minute)\n", flush=True)
        demo.run(argparse.Namespace(model="demo", task="reviews", out=str(DEMO)))
        print()
    return DEMO


def _model_of(changes: list) -> str:
    """The model that the changes say they were made for.

    Raises:
        ConfigError: it is not on this machine, or they name several.
    """
    from ..demo import model_path
    from ..errors import ConfigError

    names = {str(change.artifact.model.get("name") or "") for change in changes}
    if len(names) > 1:
        raise ConfigError(f"the changes were made for {', '.join(sorted(names))}: say which with --model FOLDER")
    name = names.pop()
    if Path(name).name == model_path().name:
        return "demo"
    if not Path(name).is_dir():
        raise ConfigError(
            f"the change was made for {name or 'a model it does not name'}: say where with --model FOLDER, or name one "
            "on the hub with --model OWNER/NAME"
        )
    return name


def _open(url: str) -> None:
    """Show the page, where there is a screen."""
    import webbrowser

    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
