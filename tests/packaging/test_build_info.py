"""What the package says of itself."""

from __future__ import annotations

import subprocess
import sys

import torch

import binaries
import momentum


def test_build_info():
    info = momentum.build_info()
    assert info.version == momentum.__version__
    assert info.torch == torch.__version__
    assert info.torch_floor == "2.10"
    assert list(info.cuda_archs) == binaries.CONFIG["cuda_archs"]
    assert info.loaded["_C"] == "loaded"


def test_cuda_object_is_loaded_where_it_was_built():
    expected = "loaded" if binaries.CONFIG["cuda_version"] else "not built"
    assert momentum.build_info().loaded["_C_cuda"] == expected


def test_info_command():
    command = [sys.executable, "-m", "momentum", "info"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    facts = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert facts["version"] == momentum.__version__
    assert facts["torch"] == torch.__version__
    assert facts["_C"] == "loaded"


def test_unknown_command_is_refused():
    command = [sys.executable, "-m", "momentum", "infos"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "invalid choice: 'infos'" in result.stderr
