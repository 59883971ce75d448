"""Entry point of ``python -m bench.train``."""

from __future__ import annotations

import sys

from bench.train.cli import main

sys.exit(main())
