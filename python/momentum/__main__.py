"""Command line: ``python -m momentum info`` prints what is installed and loaded."""

from __future__ import annotations

import argparse

import momentum


def main() -> None:
    """Run the command named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m momentum", description=__doc__)
    parser.add_argument("command", choices=["info"], help="info: version, build, devices and what is loaded")
    parser.parse_args()
    print(momentum.build_info())


if __name__ == "__main__":
    main()
