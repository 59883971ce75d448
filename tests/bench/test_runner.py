"""The benchmark runner: that it measures what it says, and its command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench.parameters import numel
from bench.runner.case import Case, Contender, UnavailableError
from bench.runner.cli import main
from bench.runner.clock import Clock, Sample
from bench.runner.processors import Processors
from bench.runner.results import Row, read, write
from bench.runner.rounds import Copy, Rounds
from bench.runner.show import duration, table

from bench import optim, targets

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
ROUNDS = 5


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--threads", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def case_of(*contenders: Contender, memory: int = 0) -> Case:
    return Case(
        name="case",
        title="a case",
        elements=10,
        inputs=lambda device: [],
        memory=memory,
        contenders=contenders,
        peer="a",
        twin=lambda device: [],
    )


def measure(case: Case) -> dict[str, Row]:
    rounds = Rounds(CPU, ROUNDS, Copy(CPU, shrink=512), Clock(CPU), Processors(1))
    return {row.contender: row for row in rounds.measure(case)}


def test_every_contender_runs_once_per_round_in_changing_order() -> None:
    calls: list[str] = []
    contenders = [Contender(name, lambda inputs, name=name: lambda: calls.append(name), 40, 0) for name in "abc"]
    rows = measure(case_of(*contenders))
    warm_up, rest = calls[:9], calls[9:]
    assert warm_up == list("aaabbbccc")
    timed = [rest[start : start + 3] for start in range(0, 3 * ROUNDS, 3)]
    assert all(sorted(names) == list("abc") for names in timed)
    assert len({tuple(names) for names in timed}) > 1
    assert all(len(row.samples) == ROUNDS for row in rows.values())
    assert rows["a"].ratio == 1
    assert rows["b"].copy_rate
    assert rows["b"].host_seconds
    assert rows["b"].launches is None


def test_a_contender_that_cannot_take_part_is_skipped_with_its_reason() -> None:
    def unavailable(inputs: object) -> None:
        raise UnavailableError("no such machine")

    works = Contender("a", lambda inputs: lambda: None, 40, 0)
    rows = measure(case_of(works, Contender("b", unavailable, 40, 0), Contender("c", works.build, 40, 1 << 60)))
    assert rows["a"].seconds
    assert (rows["b"].skipped, rows["b"].seconds) == ("no such machine", None)
    assert "are free" in str(rows["c"].skipped)
    assert "no such machine" in table(list(rows.values()))


class Told(Processors):
    """Are given or not as a list says, and then as its last entry."""

    def __init__(self, answers: list[bool]) -> None:
        super().__init__(2)
        self._answers = answers

    def are_given(self) -> bool:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.mark.parametrize(
    ("answers", "counted", "repeated", "disturbed"),
    [
        ([True], [0, 1, 2, 3, 4], 0, 0),
        # Both the round that ends in a bad moment and the one that begins in it.
        ([True, True, False, True], [0, 3, 4, 5, 6], 2, 0),
        ([False], [15, 16, 17, 18, 19], 15, 5),
    ],
)
def test_rounds_without_all_processors_are_repeated(
    answers: list[bool], counted: list[int], repeated: int, disturbed: int
) -> None:
    times: list[int] = []

    class Numbering(Clock):
        def sample(self, call, *, loops=1, cold=True):
            return Sample(float(call() or 0), 0.0)

    def count() -> int:
        times.append(0)
        return len(times)

    rounds = Rounds(CPU, ROUNDS, Copy(CPU, shrink=512), Numbering(CPU), Told(answers))
    samples, *found = rounds._interleave({"a": count}, cold=True)
    assert [sample.total - 1 for sample in samples["a"]] == counted
    assert found == [repeated, disturbed]


def test_the_speedup_is_that_of_all_threads_over_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    before = torch.get_num_threads()

    def seconds(self: Processors) -> float:
        used.append(torch.get_num_threads())
        return 3.0 / torch.get_num_threads()

    monkeypatch.setattr(Processors, "_seconds", seconds)
    try:
        assert Processors(3).speedup() == 3
        assert used == [1, 3]
        assert Processors(3).are_given()
        monkeypatch.setattr(Processors, "_seconds", lambda self: 1.0)
        assert not Processors(3).are_given()
        assert Processors(1).are_given()
    finally:
        torch.set_num_threads(before)


def test_inputs_that_do_not_fit_are_not_made() -> None:
    def inputs(device: torch.device) -> None:
        raise AssertionError("made all the same")

    case = replace(case_of(Contender("a", lambda inputs: lambda: None, 40, 0), memory=1 << 60), inputs=inputs)
    assert "are free" in str(measure(case)["a"].skipped)


def test_the_clock_measures_seconds_per_call() -> None:
    import time

    sample = Clock(CPU).sample(lambda: time.sleep(0.01), loops=2)
    assert 0.01 <= sample.total < 0.1


@pytest.mark.parametrize(
    ("algorithm", "sizes", "expected"),
    [
        (optim.ADAMW, (4, 4, 4), 28),
        (optim.ADAMW, (2, 2, 4), 22),
        (optim.ADAMW, (2, 2, 2), 14),
        (optim.SGD, (4, 4, 4), 20),
        (optim.LION, (4, 4, 4), 20),
        (optim.SPAM, (4, 4, 4), 28),
        (optim.STABLE_SPAM, (4, 4, 4), 36),
        (optim.SCALE, (4, 4, 4), 16),
        (optim.ADAMP, (4, 4, 4), 44),
        (optim.ORTHOGRAD, (4, 4, 4), 36),
    ],
)
def test_bytes_per_element_are_those_of_the_streams(
    algorithm: optim.Algorithm, sizes: tuple[int, int, int], expected: float
) -> None:
    assert algorithm.bytes_per_element(*sizes) == expected


def test_cases_are_as_declared() -> None:
    cases = {case.name: case for case in optim.cases(CPU, shrink=1)}
    assert cases["adamw-fp32-1x20m"].elements == 20_000_000
    assert cases["adamw-fp32-1000x4096"].elements == 4_096_000
    assert len(optim.GPT_SHAPES) == 148
    assert numel(optim.GPT_SHAPES) == cases["adamw-fp32-148-gpt"].elements == 23_685_120
    for case in cases.values():
        assert case.contenders[0].name == "momentum"
        assert case.peer in {contender.name for contender in case.contenders}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_target_names_a_case_that_is_run(device: str) -> None:
    rows = [
        Row(case.name, "", name, "", 1, 1.0, seconds=1.0, ratio=0.3, copy_rate=1.0, verified=True, samples=[time])
        for case in optim.cases(torch.device(device), shrink=1)
        for name in [contender.name for contender in case.contenders]
        for time in [0.3 if name == "momentum" else 1.0]
    ]
    text = targets.check(rows, device)
    assert "not measured" not in text
    assert text.count("met") >= len(targets.TARGETS[device]) - 1


def test_a_target_has_two_sides() -> None:
    at_most, at_least = (targets.Target("", lambda rows: 0.0, 1.0, at_least=side) for side in (False, True))
    assert [at_most.met(value) for value in (0.9, 1.0, 1.1)] == [True, True, False]
    assert [at_least.met(value) for value in (0.9, 1.0, 1.1)] == [False, True, True]


def test_results_are_read_as_written(tmp_path: Path) -> None:
    rows = [Row("case", "title", "momentum", "torch fused", 4, 112.0, seconds=1e-3, samples=[1e-3])]
    write(tmp_path / "new" / "a.json", {"device": "cpu"}, {"rounds": 1}, rows)
    assert read(tmp_path / "new" / "a.json") == ({"device": "cpu"}, {"rounds": 1}, rows)
    (tmp_path / "other.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema"):
        read(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 us"), (7e-9, "7 ns")]
)
def test_durations_are_readable(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_quick_run_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "quick.json"
    done = run("--quick", "--cases", "adamw-*gpt", "lion*", "adamw-*-400-tiny", "--check-targets", "--out", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["schema"] == 1
    assert content["settings"]["quick"] is True
    assert content["machine"]["threads"] == 1
    rows = {(row["case"], row["contender"]): row for row in content["rows"]}
    for case in ("adamw-fp32-148-gpt", "lion-fp32-1x20m", "adamw-fp32-400-tiny"):
        row = rows[case, "momentum"]
        assert row["skipped"] is None
        assert min(row["seconds"], row["ratio"], row["copy_rate"], row["host_seconds"], row["bytes_moved"]) > 0
    assert {"torch fused", "torch foreach", "torch for-loop"} <= {name for _, name in rows}
    assert "of copy" in done.stdout
    assert "not measured" in done.stdout  # the targets whose cases were left out
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    shown = run("--read", str(out))
    assert shown.returncode == 0, shown.stderr
    assert "AdamW fp32, 148 GPT" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "adamx*"], "'adamx*' matches none of adamw-fp32-1x20m"),
        (["--families", "sorting"], "--families"),
        (["--rounds", "0"], "--rounds"),
        (["--read", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_options(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    try:
        code: int | str | None = main(["--threads", "1", *arguments])
    except SystemExit as leaving:  # argparse
        code = leaving.code
    assert code == 2
    assert message in capsys.readouterr().err
