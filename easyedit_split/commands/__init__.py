"""The commands of `easyedit-split`: each module has `options(parser)` and `run(arguments) -> int`."""
