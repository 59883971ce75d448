"""The table of quantisation errors: complete, and in the order that the tables of the formats imply."""

from __future__ import annotations

import json

from bench import quant


def test_table_and_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quant, "RESULT", tmp_path / "errors.json")
    quant.main()
    saved = json.loads((tmp_path / "errors.json").read_text())["rows"]
    printed = capsys.readouterr().out
    assert all(row["format"] in printed for row in saved)
    rows = {(row["state"], row["format"]): row for row in saved}
    assert len(rows) == len(quant.SIGNED) + len(quant.UNSIGNED)
    first = {name: rows["exp_avg", name]["relative error"] for name in quant.SIGNED}
    assert first["int8 (dynamic8)"] < first["int4 (dynamic4)"] / 5
    assert first["dynamic4, blocks of 64"] < first["int4 (dynamic4)"] < first["dynamic4, stochastic"]
    second = {name: rows["exp_avg_sq", name] for name in quant.UNSIGNED}
    # Linear codes of 4 bits have no zero; what a table with one reads as zero costs far more than its small numbers.
    assert second["int4 (linear4)"]["read as zero"] == 0
    assert second["linear4, rank one"]["read as zero"] == 0
    assert second["unsigned_dynamic4"]["read as zero"] > 0.01
    assert second["linear4, rank one"]["mean |log h|"] < second["int4 (linear4)"]["mean |log h|"]
    assert second["int4 (linear4)"]["mean |log h|"] < second["unsigned_dynamic4"]["mean |log h|"]


def test_the_committed_file_is_that_of_the_code():
    """The numbers are deterministic but for ties that the float32 arithmetic of another backend may break."""
    saved = json.loads(quant.RESULT.read_text())["rows"]
    for old, new in zip(saved, quant.measure(), strict=True):
        assert old.keys() == new.keys()
        for key, value in new.items():
            assert old[key] == value if isinstance(value, str) else abs(old[key] - value) <= 1e-3 * abs(value) + 1e-9
