"""Packaging entry point: lets CMake build the shared objects and puts them in the package.

Options are environment variables of the same name as the CMake ones: MOMENTUM_CUDA, MOMENTUM_CUDA_ARCHS, MOMENTUM_ARRAY.
MOMENTUM_BUILD_DIR reuses a CMake build tree.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("MOMENTUM_BUILD_DIR", ROOT / "build" / "wheel")).resolve()
# The CMake and Ninja of this environment come before the system's, also when the environment is not activated.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
WITH_ARRAY = os.environ.get("MOMENTUM_ARRAY", "OFF").upper() in ("1", "ON", "TRUE", "YES")


class BuildWithCMake(build_ext):
    """Configures, builds and installs into the package, in place for an editable install."""

    def run(self):
        options = [
            f"-D{name}={os.environ[name]}"
            for name in ("MOMENTUM_CUDA", "MOMENTUM_CUDA_ARCHS", "MOMENTUM_ARRAY")
            if name in os.environ
        ]
        generator = ["-G", "Ninja"] if shutil.which("ninja", path=PATH) else []
        self._cmake(*generator, "-S", ROOT, "-B", BUILD, f"-DPython_EXECUTABLE={sys.executable}", *options)
        components = ["wheel", "array"] if WITH_ARRAY else ["wheel"]
        self._cmake("--build", BUILD, "--parallel", os.environ.get("MOMENTUM_JOBS", str(os.cpu_count())))
        prefix = ROOT / "python" if self.inplace or self.editable_mode else Path(self.build_lib).resolve()
        for component in components:
            self._cmake("--install", BUILD, "--prefix", prefix, "--component", component, "--strip")

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}

    @staticmethod
    def _cmake(*arguments):
        subprocess.run(["cmake", *map(str, arguments)], check=True, env=os.environ | {"PATH": PATH})


class OneWheelPerPlatform(bdist_wheel):
    """The objects see Python only through torch's C shim, so one wheel serves every Python, unless it carries _array."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if WITH_ARRAY else ("py3", "none", platform)

    def run(self):
        super().run()
        wheel = Path(self.distribution.dist_files[-1][2])
        with zipfile.ZipFile(wheel) as archive:
            missing = {"momentum/__init__.py", "momentum/_C.so"} - set(archive.namelist())
        if missing:  # setuptools only warns where it finds nothing to pack
            raise SystemExit(f"setup.py: {wheel.name} lacks {', '.join(sorted(missing))}")


# setuptools packs whatever lies in its build folder: one that is new and this process's own holds nothing but this build.
with tempfile.TemporaryDirectory(prefix="momentum-build-") as stage:
    setup(
        ext_modules=[Extension("momentum._C", sources=[])],
        cmdclass={"build_ext": BuildWithCMake, "bdist_wheel": OneWheelPerPlatform},
        options={"build": {"build_base": stage}},
    )
