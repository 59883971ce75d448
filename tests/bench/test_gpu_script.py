"""``bench/gpu.sh`` as far as a machine without a GPU can run it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = [
    *("environment", "build", "wheel", "tests", "large"),
    *("memcheck", "racecheck", "synccheck", "initcheck"),
    *("bench", "train"),
]


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "bench" / "gpu.sh", *arguments], capture_output=True, text=True, timeout=60)


def test_dry_run_prints_every_stage_and_its_commands() -> None:
    done = script("--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^== (\w+)", done.stdout, flags=re.MULTILINE) == STAGES
    commands = {part.split()[0]: part for part in done.stdout.split("== ")[1:]}
    assert "-DMOMENTUM_CUDA=ON" in commands["build"]
    assert "--no-build-isolation" in commands["wheel"]
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        assert f"'--tool' '{tool}'" in commands[tool]
    assert "'--device' 'cuda' '--check-targets'" in commands["bench"]
    assert all(part.count("\n") > 1 for part in commands.values())


def test_stages_limit_and_folder_can_be_chosen() -> None:
    done = script("--dry-run", "--stage", "bench", "--stage", "train", "--limit", "7", "--results", "elsewhere")
    assert re.findall(r"^== (\w+) \(at most (\d+) s\)", done.stdout, flags=re.MULTILINE) == [
        ("bench", "7"),
        ("train", "7"),
    ]
    assert "elsewhere/" in done.stdout


def test_tests_it_names_exist() -> None:
    named = set(re.findall(r"'(tests[\w/.]*)'", script("--dry-run").stdout))
    assert named
    assert all((ROOT / path).exists() for path in named), named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "lunch"], "no stage lunch; there are environment build"),
        (["--limit", "soon"], "--limit: soon is not a number of seconds"),
        (["--fast"], "unknown option --fast"),
        (["--results"], "--results needs a folder"),
    ],
)
def test_bad_options(arguments: list[str], message: str) -> None:
    done = script(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs a machine without a GPU")
def test_says_so_where_there_is_no_gpu() -> None:
    done = script()
    assert done.returncode == 2
    assert "nvidia-smi reports no GPU" in done.stderr
