"""Hyper-parameters: what they are, the files they are read from, the files that ship with the package."""
