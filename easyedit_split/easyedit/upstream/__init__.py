"""Small changes to EasyEdit itself, each a pull request: `python -m easyedit_split.easyedit.upstream CHECKOUT`.

A change finds its places in the checkout by what the code there does (its syntax tree), and puts our own lines there.
Where a place does not look as expected, it refuses. What each is for, and what it measured: `docs/upstream/`.
"""
