"""`easyedit-split COMMAND …`: one module of `commands/` a command, loaded when it is chosen."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

from . import __version__
from .errors import SteeringError, nearest
from .models.guards import memory_errors_named

COMMANDS = {
    "demo": "train the three forms, sweep, fit and generate: SPLIT at work in a minute (--model smollm2: a real model)",
    "train": "train a change from a file of pairs",
    "generate": "generate text, steered or not",
    "dial": "open a page on which the strength is turned by hand: texts beside the unsteered ones, and what it costs",
    "sweep": "score pairs over a grid of strengths",
    "fit": "fit the decay law to sweeps and recommend a strength",
    "report": "write the report of a run again",
    "evaluate": "score generations: accuracy, judge, utility without a judge",
    "reproduce": "run the paper's comparison over models, data sets, objectives and forms",
    "tune": "search a method's settings on held-out training pairs",
    "lint": "find what is wrong with pairs before anything is trained on them",
    "import": "read a vector or adapter that another program made",
    "check": "test that a vector steers: an exit status for a gain within a budget",
    "layers": "find the layer to steer",
    "export": "carry a change elsewhere: Hugging Face checkpoint, PEFT, EasyEdit, GGUF",
    "push": "share a change on the Hugging Face hub, with a card that says which strength to use",
    "serve": "serve changes with vLLM, a strength for each request",
    "doctor": "say what is installed, what is missing and how to get it",
}
_MODULES = {"import": "import_"}  # command -> module, where its own name is a word of Python's
_RUN = "run a script of EasyEdit with this package's methods registered"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 2, with one sentence on standard error, for a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["run"]:
        from .easyedit.launcher import main as launch

        return _guarded(lambda: launch(arguments[1:]), debug=arguments[1:2] == ["--debug"])
    wrong = _wrong_at_once(arguments)
    if wrong:
        return _refused(wrong)
    parser = _parser(arguments[0] if arguments and arguments[0] in COMMANDS else None)
    options, rest = parser.parse_known_args(arguments)
    if rest and hasattr(options, "settings") and all("=" in item and item[0] != "-" for item in rest):
        options.settings += rest  # argparse stops taking `key=value` once an option stands between
    elif hasattr(options, "passed_on"):
        options.passed_on = rest
    elif rest:
        return _refused(_unknown_option(rest[0], arguments, hasattr(options, "settings")))
    if options.command is None:
        parser.print_help()
        return 2
    return _guarded(lambda: options.run(options), options.debug)


def _wrong_at_once(arguments: Sequence[str]) -> str:
    """What is wrong before a command is asked; empty where nothing is."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode("utf-8", "backslashreplace").decode()
            return f"'{shown}' holds bytes that are no UTF-8 text: give another name"
    first = arguments[0] if arguments else "-"
    if first.startswith("-") or first in COMMANDS:
        return ""
    return f"unknown command {first!r}{nearest(first, [*COMMANDS, 'run'])}"


def _unknown_option(option: str, arguments: Sequence[str], takes_settings: bool) -> str:
    """A setting written as an option is shown as it should be."""
    name, _, value = option.lstrip("-").partition("=")
    key = name.replace("-", "_")
    if not takes_settings or not option.startswith("--"):
        return f"unknown argument {option!r}: see easyedit-split {arguments[0]} --help"
    from .settings.hyperparameters import Hyperparameters
    from .settings.meanings import MEANINGS

    key = MEANINGS.get(key, key)
    if key not in Hyperparameters.__dataclass_fields__:
        return f"unknown option --{name}: see easyedit-split {arguments[0]} --help"
    after = list(arguments)[list(arguments).index(option) + 1 :]
    if not value:
        value = after[0] if after and not after[0].startswith("--") and "=" not in after[0] else "VALUE"
    return f"--{name} is a setting, not an option: write {key}={value}"


def _refused(sentence: str) -> int:
    print(f"easyedit-split: {sentence}", file=sys.stderr)
    return 2


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("easyedit-split", description="Steering as a dial on a trained change.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:
            module = importlib.import_module(f".commands.{_MODULES.get(name, name)}", __package__)
            module.options(command)
            command.set_defaults(run=module.run)
    commands.add_parser("run", help=_RUN)
    return parser


def _guarded(action: object, debug: bool) -> int:
    try:
        with warnings.catch_warnings(), memory_errors_named():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            return int(action() or 0)  # type: ignore[operator]
    except SteeringError as error:
        if debug:
            raise
        return _refused(str(error))
    except KeyboardInterrupt:
        print("easyedit-split: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def _show_warning(message: object, category: type, *place: object, **more: object) -> None:
    if issubclass(category, UserWarning):
        print(f"easyedit-split: note: {message}", file=sys.stderr)
