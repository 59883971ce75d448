"""The wheel installs into a fresh environment and steps there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

import binaries

pytestmark = pytest.mark.xdist_group("wheel")  # built once

SMOKE = """
import torch, momentum
torch.manual_seed(0)
ours = [torch.nn.Parameter(torch.randn(7, 5)), torch.nn.Parameter(torch.randn(3))]
theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
optimizers = momentum.optim.AdamW(ours, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
for _ in range(3):
    for p, q in zip(ours, theirs):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    for optimizer in optimizers:
        optimizer.step()
for p, q in zip(ours, theirs):
    torch.testing.assert_close(p, q)
print(momentum.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, "."]
    environment = os.environ | {"MOMENTUM_BUILD_DIR": str(binaries.BUILD)}
    subprocess.run(command, check=True, cwd=binaries.ROOT, env=environment)
    (path,) = folder.glob("*.whl")
    return path


def test_tag_serves_every_python(wheel):
    assert re.fullmatch(r"torch_momentum-[\d.]+-py3-none-linux_\w+\.whl", wheel.name)


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"momentum/_C.so", "momentum/_build_config.json", "momentum/py.typed"}
    if binaries.CONFIG["cuda_version"]:
        expected.add("momentum/_C_cuda.so")
    sources = (path for pattern in ("*.py", "*.pyi") for path in binaries.PACKAGE.rglob(pattern))
    modules = {str(path.relative_to(binaries.PACKAGE.parent)) for path in sources}
    packed = {name for name in names if name.startswith("momentum/")}
    assert packed == expected | modules
    (licence,) = (name for name in names if name.endswith("LICENSE"))
    assert "licenses" in licence


def test_fresh_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", wheel], check=True)
    # This environment lends its torch: on the path, but without the .pth files that would bring the checkout along.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    output = subprocess.run([python, "-c", SMOKE], check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert output.strip() == str(site / "momentum" / "__init__.py")
    info = subprocess.run([python, "-m", "momentum", "info"], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert re.search(r"^_C +loaded$", info.stdout, re.MULTILINE)
