"""Entry point of ``python -m bench.claims``."""

from __future__ import annotations

import sys

from bench.claims.cli import main

sys.exit(main())
