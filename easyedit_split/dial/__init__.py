"""The dial as a page: sliders over measured strengths, texts beside the unsteered ones, the curves they cost.

A small server of the standard library and one page of our own: nothing to install, nothing loaded from elsewhere.
"""
