"""The paper's comparison: a grid of data set x method x form x seed, one result file a cell, tables and figures."""
