"""The claims, through their command line and at a size that takes seconds."""

from __future__ import annotations

import json

import pytest
from bench.claims.cli import CLAIMS, main

PNG = b"\x89PNG"


def test_memory_is_measured(tmp_path):
    assert main(["memory", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "claim-memory.json").read_text())
    held = {row["optimizer"]: row["state_bytes"] / row["parameters"] for row in results["rows"]}
    # Step counts add some bytes for each of the 53 tensors; a quarter of the entries, with a bit for each, all of the vectors.
    assert held["AdamW"] == pytest.approx(8, rel=1e-3)
    assert held["SGD-SaI"] == pytest.approx(4, rel=1e-3)
    assert held["SPAM, density 0.25"] == pytest.approx(8 * 0.25 + 1 / 8, rel=0.02)
    assert held["SCALE"] < 0.2 < held["FRUGAL, columns 0.25"] < 2.5
    assert (tmp_path / "claim-memory.png").read_bytes().startswith(PNG)


def test_spikes_are_injected(tmp_path, capsys):
    """Runs with and without are equal up to the first spike and differ after it."""
    assert main(["spikes", "--steps", "80", "--seeds", "1", "--out", str(tmp_path)]) == 0
    runs = json.loads((tmp_path / "claim-spikes.json").read_text())["runs"]
    for name in {run["optimizer"] for run in runs}:
        plain, spiked = (next(r for r in runs if r["optimizer"] == name and r["share"] == share) for share in (0, 1))
        assert plain["losses"][:60] == spiked["losses"][:60]
        assert plain["losses"] != spiked["losses"]
        assert plain["losses"][-1] < plain["losses"][0]
    assert (tmp_path / "claim-spikes.png").read_bytes().startswith(PNG)
    assert "StableSPAM" in capsys.readouterr().out


def test_bad_arguments_are_refused(tmp_path, capsys):
    for arguments, message in (
        (["gravity"], "invalid choice: 'gravity'"),
        (["memory", "--steps", "3"], "memory has no --steps"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, "--out", str(tmp_path)])
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_results_are_kept():
    from bench.claims.cli import _RESULTS

    for name in CLAIMS:
        assert json.loads((_RESULTS / f"claim-{name}.json").read_text())["claim"] == name
        assert (_RESULTS / f"claim-{name}.png").exists()


def test_grokking_is_looked_for(tmp_path, capsys):
    """The same network, pairs and first loss for all contenders of a seed but the one with another loss function."""
    assert main(["grokking", "--steps", "40", "--seeds", "1", "--out", str(tmp_path)]) == 0
    runs = json.loads((tmp_path / "claim-grokking.json").read_text())["runs"]
    assert len({run["loss"][0] for run in runs if "StableMax" not in run["optimizer"]}) == 1
    for run in runs:
        assert run["step"] == [1, 20, 40]
        assert run["loss"][-1] < run["loss"][0]
    assert (tmp_path / "claim-grokking.png").read_bytes().startswith(PNG)
    assert "orthograd" in capsys.readouterr().out
