"""An installation that cannot work says why in one sentence, and the CUDA part never takes the CPU part down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import binaries

FAKE_TORCH = """
from types import SimpleNamespace
__version__ = {version!r}
version = SimpleNamespace(cuda={cuda!r})
def load_library(path):
    if {broken!r} in str(path):
        raise OSError("libmissing.so: cannot open shared object file")
ops = SimpleNamespace(load_library=load_library, momentum=SimpleNamespace(cpu_isa=lambda: 1))
"""


class Installation:
    """A copy of the package in a folder of its own, to be imported without this environment's packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "momentum"
        self.package.mkdir()
        for file in [*binaries.PACKAGE.glob("*.py"), binaries.PACKAGE / "_build_config.json"]:
            shutil.copy(file, self.package)
        for name in ("_C.so", "_C_cuda.so"):
            (self.package / name).touch()

    def add_torch(self, version: str = "2.10.0", *, cuda: str | None = None, broken: str = "nothing") -> None:
        (self.folder / "torch").mkdir()
        source = FAKE_TORCH.format(version=version, cuda=cuda, broken=broken)
        (self.folder / "torch" / "__init__.py").write_text(source)

    def run(self, code: str = "import momentum") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, "-S", "-c", code], env=environment, cwd=self.folder, capture_output=True, text=True
        )

    def error(self, code: str = "import momentum") -> str:
        result = self.run(code)
        assert result.returncode == 1
        return result.stderr.splitlines()[-1]


@pytest.fixture
def installation(tmp_path):
    return Installation(tmp_path)


def test_no_torch(installation):
    assert installation.error() == (
        "ImportError: momentum needs torch >= 2.10, and this environment has none: pip install torch"
    )


def test_no_torch_but_arrays(installation):
    (installation.package / "_array.py").touch()
    result = installation.run("import momentum; print(momentum.build_info())")
    assert result.returncode == 0, result.stderr
    assert "_C               not loaded: no torch in this environment" in result.stdout


@pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cu128"])
def test_old_torch(installation, version):
    installation.add_torch(version)
    assert installation.error() == (f"ImportError: momentum needs torch >= 2.10, and this environment has torch {version}")


@pytest.mark.parametrize("version", ["2.10.0", "2.14.0a0+git12", "3.0.0"])
def test_new_torch(installation, version):
    installation.add_torch(version)
    result = installation.run()
    assert (result.returncode, result.stderr) == (0, "")


def test_cpu_object_missing(installation):
    installation.add_torch()
    (installation.package / "_C.so").unlink()
    assert installation.error() == (
        f"ImportError: momentum's _C is missing ({installation.package / '_C.so'}): reinstall torch-momentum, "
        "or run `make setup` in a checkout"
    )


def test_cpu_object_broken(installation):
    installation.add_torch(broken="_C.so")
    assert installation.error() == (
        f"ImportError: momentum's _C cannot be loaded ({installation.package / '_C.so'}): "
        "libmissing.so: cannot open shared object file"
    )


def test_cuda_object_missing_but_not_wanted(installation):
    installation.add_torch(cuda=None)
    (installation.package / "_C_cuda.so").unlink()
    result = installation.run("import momentum; print(momentum.build_info())")
    assert (result.returncode, result.stderr) == (0, "")
    assert "_C_cuda          not built" in result.stdout
    assert "cpu_isa          avx2" in result.stdout


def test_cuda_object_missing(installation):
    installation.add_torch(cuda="13.0")
    (installation.package / "_C_cuda.so").unlink()
    result = installation.run()
    assert result.returncode == 0
    path = installation.package / "_C_cuda.so"
    assert result.stderr.startswith("<string>:1: RuntimeWarning: ")
    assert f"momentum has no CUDA kernels: {path} is missing, so CUDA tensors are refused" in result.stderr


def test_cuda_object_broken(installation):
    installation.add_torch(cuda="13.0", broken="_C_cuda.so")
    result = installation.run("import momentum; import momentum.__main__; print(momentum.build_info())")
    assert result.returncode == 0
    sentence = f"momentum's _C_cuda cannot be loaded ({installation.package / '_C_cuda.so'}): libmissing.so"
    assert result.stderr.count(sentence) == 1
    assert f"_C_cuda          failed: {sentence}" in result.stdout
    assert "_C               loaded" in result.stdout


def test_emulated_object_missing(installation):
    installation.add_torch()
    error = installation.error("from momentum import _loader; _loader.load_emulated()")
    assert error.startswith("ImportError: momentum's _C_emulated is missing")


def test_import_is_silent_here():
    subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", "import momentum"], check=True)


def test_unknown_attribute():
    import momentum

    with pytest.raises(AttributeError, match="module 'momentum' has no attribute 'optimizers'"):
        momentum.optimizers  # noqa: B018
