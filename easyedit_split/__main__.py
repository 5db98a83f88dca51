"""`python -m easyedit_split`: the command line."""

from .cli import main

raise SystemExit(main())
