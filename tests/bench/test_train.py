"""The main job, through its command line, on a model that trains in seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench.train.cli import main
from bench.train.optimizers import choose

from momentum.optim import names

ROOT = Path(__file__).parents[2]
TINY = ["--model", "tiny", "--batch", "2", "--threads", "1"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.train", *TINY, *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)


def result(folder: Path) -> dict:
    return json.loads((folder / "train.json").read_text())


def test_trains_with_each_optimizer_and_finds_them_equal(tmp_path: Path) -> None:
    done = run("--steps", "8", "--evaluations", "2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    document = result(tmp_path)
    torch_run, our_run = document["runs"]
    assert (torch_run["label"], our_run["label"]) == ("torch.AdamW", "momentum.AdamW")
    for entry in (torch_run, our_run):
        assert entry["finished"]
        assert len(entry["losses"]) == len(entry["seconds"]) == len(entry["optimizer_seconds"]) == 8
        assert [step for step, _ in entry["validation"]] == [4, 8]
        assert entry["losses"][-1] < entry["losses"][0]
        assert entry["state_bytes"] >= 2 * 4 * entry["parameters"]
    assert torch_run["losses"][0] == our_run["losses"][0]
    (agreement,) = document["agreements"]
    assert agreement["agrees"]
    assert "momentum.AdamW agrees with torch.AdamW" in done.stdout
    assert "what the last model writes after 'def '" in done.stdout
    assert (tmp_path / "train.png").read_bytes().startswith(b"\x89PNG")


def test_other_algorithms_appear_by_name_and_are_not_compared(tmp_path: Path) -> None:
    names = ["torch.SGD:momentum=0.9,lr=0.1", "momentum.Lion:lr=1e-4,betas=(0.9,0.95)"]
    done = run("--steps", "2", "--out", str(tmp_path), "--optimizers", *names)
    assert done.returncode == 0, done.stderr
    document = result(tmp_path)
    assert [entry["label"] for entry in document["runs"]] == names
    assert document["agreements"] == []


@pytest.mark.parametrize("name", names())
def test_every_optimizer_can_be_named(name: str) -> None:
    choice = choose(f"momentum.{name}")
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 5))
    optimizer = choice.build(model, lr=1e-3, weight_decay=0.1)
    model(torch.arange(3)).square().sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert any(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizers", "torch.Adamm"], "did you mean torch.Adam"),
        (["--optimizers", "momentum.lion"], "did you mean momentum.Lion?"),
        (["--optimizers", "AdamW"], "write LIBRARY.Class"),
        (["--optimizers", "torch.AdamW:warp=1"], "torch.AdamW:warp=1 cannot be built"),
        (["--optimizers", "torch.AdamW:eps"], "should read name=value"),
        (["--steps", "0"], "--steps"),
        (["--steps", "many"], "--steps"),
        (["--width", "10", "--heads", "4"], "--width 10 is not a multiple of --heads 4"),
        (["--lr", "-1"], "--lr"),
        (["--device", "abacus"], "--device"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--dtype", "int8"], "--dtype"),
    ],
)
def test_bad_options_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code: int | str | None = main([*TINY, "--out", str(tmp_path / "out"), *arguments])
    except SystemExit as leaving:  # argparse
        code = leaving.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_interrupt_leaves_the_results_so_far(tmp_path: Path) -> None:
    # A line of progress appears every tenth of the steps; the first one says that training is under way.
    process = subprocess.Popen(
        command("--steps", "1000", "--out", str(tmp_path)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Tests that a shell runs in the background ignore the signal, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert "100/1000" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert "interrupted: these are the results so far" in errors
    assert "Traceback" not in errors
    (entry,) = result(tmp_path)["runs"]
    assert 100 <= len(entry["losses"]) < 1000
    assert not entry["finished"]
    assert "(stopped)" in output
    assert (tmp_path / "train.png").exists()
