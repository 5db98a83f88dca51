from easyedit_split.cli import main

raise SystemExit(main())
