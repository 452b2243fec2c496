"""Packaging of robgan_tf. Exact versions for a reproducible environment are in constraints.txt."""

import re
import sys
from pathlib import Path

PYTHON_REQUIRES = ">=3.9,<3.12"  # TensorFlow 2.15 has wheels for 3.9 to 3.11. The Makefile checks the same range.

# python_requires alone is not enough: pip looks at it after the requirements, and complains of tensorflow instead.
if not (3, 9) <= tuple(sys.version_info[:2]) < (3, 12):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"robgan_tf needs Python 3.9, 3.10 or 3.11; this is Python {found} ({sys.executable}).")

from setuptools import find_packages, setup  # noqa: E402 - the check above must come first


def read_version():
    """Returns __version__ from robgan_tf/__init__.py as text: importing it here would need its dependencies."""
    source = Path(__file__).resolve().parent / "robgan_tf" / "__init__.py"
    match = re.search(r"""^__version__ = ["']([^"']+)["']""", source.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        sys.exit(f'{source} has no line of the form __version__ = "1.2.3".')
    return match.group(1)


setup(
    name="robgan_tf",
    version=read_version(),
    description="Rob-GAN (Liu & Hsieh, CVPR 2019): generator, discriminator and adversarial attacker, in TensorFlow 2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=PYTHON_REQUIRES,
    # Not find_packages(): the folder gin/ holds configurations and must never hide the library gin.
    packages=find_packages(include=["robgan_tf*"]),
    install_requires=[
        # 2.15 is the newest TensorFlow on which tensorflow-addons and tensorflow-gan import.
        "tensorflow>=2.15.1,<2.16",
        "keras>=2.15,<2.16",
        "tensorboard>=2.15,<2.16",  # comes with tensorflow; HParams
        "tensorflow-addons==0.23.0",
        "tensorflow-gan==2.1.0",
        # Needed by tensorflow-gan, which leaves them open; the next minor versions want a newer TensorFlow.
        "tensorflow-probability>=0.23,<0.24",
        "tensorflow-hub>=0.15,<0.16",
        # 4.9.3 is the last for Python 3.9. importlib_resources: imported by both, declared by neither.
        "tensorflow-datasets>=4.9.9,<4.10; python_version >= '3.10'",
        "tensorflow-datasets==4.9.3; python_version < '3.10'",
        "importlib_resources",
        # Newer ones need protobuf 5 at import, without declaring it.
        "tensorflow-metadata<1.18",
        "protobuf>=4.25.2,<5",
        "numpy<2",
        # 82 dropped pkg_resources, which tensorflow-hub, tensorflow-gan and tensorboard import.
        "setuptools<81",
        "gin-config>=0.5",
        "absl-py",
        "scikit-learn",  # the embedded digits
        "pillow",  # image folders, records, sample grids
        "tqdm",  # progress
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]==2.15.1"],
        "serving": ["tensorflow-serving-api>=2.15.1,<2.16"],
        # For tools/serving/portability.py. tf2onnx for Python 3.9 wants protobuf 3; later onnx a newer ml_dtypes than
        # TensorFlow 2.15 allows, undeclared.
        "onnx": [
            "tf2onnx>=1.17; python_version >= '3.10'",
            "onnx>=1.16,<1.18; python_version >= '3.10'",
            "onnxruntime; python_version >= '3.10'",
        ],
        # Other people's attacks, for benchmarks/crosscheck.py.
        "crosscheck": ["adversarial-robustness-toolbox==1.20.1", "foolbox==3.3.4"],
        "autoattack": ["pyautoattack==0.2.0", "torch"],
        # The peers of benchmarks/benchmark.py, and its plots.
        "bench": [
            "torch==2.13.0; python_version >= '3.10'",
            "adversarial-robustness-toolbox==1.20.1",
            "foolbox==3.3.4",
            "matplotlib",
        ],
        # The site of docs/: `mkdocs build --strict`, `mkdocs serve`.
        "docs": ["mkdocs>=1.6", "mkdocstrings[python]"],
        "dev": [
            "hypothesis",  # random inputs for properties of the threat model
            "packaging",  # reads versions and markers in tests/packaging_test.py
            "pre-commit",
            "pytest",
            "pytest-xdist",  # a process for each core
            "ruff",
            "scipy",  # the oracle of numerical tests
        ],
    },
)
