"""A change of one affine map, and the dial on it: what it adds (dW, db), where, how strongly, and how it is kept."""
