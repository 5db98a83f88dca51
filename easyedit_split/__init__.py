"""Steering as a dial on a trained change of one affine map, `h' = (W + m1 dW) h + (b + m2 db)`."""

__version__ = "0.1.0"
