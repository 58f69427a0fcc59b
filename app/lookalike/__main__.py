"""``python -m lookalike``: the same as the command ``lookalike``."""

from lookalike.operate.cli import main

raise SystemExit(main())
