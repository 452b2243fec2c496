"""Packaging of robgan_tf. Exact versions for a reproducible environment are in constraints-*.txt."""

import os
import re
import sys
from pathlib import Path

PYTHON_REQUIRES = (
    ">=3.9,<3.14"  # those that TensorFlow 2.15 to 2.21 have wheels for. The Makefile checks the same range.
)

# python_requires alone is not enough: pip looks at it after the requirements, and complains of tensorflow instead.
if not (3, 9) <= tuple(sys.version_info[:2]) < (3, 14):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"robgan_tf needs Python 3.9 to 3.13; this is Python {found} ({sys.executable}).")

from setuptools import find_packages, setup  # noqa: E402 - the check above must come first
from setuptools.command.build_py import build_py  # noqa: E402


def read_version():
    """Returns __version__ from robgan_tf/__init__.py as text: importing it here would need its dependencies."""
    source = Path(__file__).resolve().parent / "robgan_tf" / "__init__.py"
    match = re.search(r"""^__version__ = ["']([^"']+)["']""", source.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        sys.exit(f'{source} has no line of the form __version__ = "1.2.3".')
    return match.group(1)


class BuildWithConfigurations(build_py):
    """Copies gin/ into the package; an editable installation finds it in the checkout."""

    def run(self):
        """Builds as always, and adds the configurations."""
        super().run()
        if not self.editable_mode:
            for path in sorted(Path("gin").rglob("*.gin")):
                copy = Path(self.build_lib, "robgan_tf", path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(copy))


# TensorFlow 2.15 is the newest on which tensorflow-addons and tensorflow-gan import.
TENSORFLOW_2_15 = [
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
    # Newer ones need protobuf 5 at import, without declaring it.
    "tensorflow-metadata<1.18",
    "protobuf>=4.25.2,<5",
    "numpy<2",
]
# Newer ones come with Keras 3; tf-keras is Keras 2 for them, and asks for the TensorFlow of its own minor version.
TENSORFLOW_2_21 = [
    "tensorflow>=2.16,<2.22",
    "tf-keras>=2.16,<2.22",
    "tensorboard>=2.16,<2.22",
    "tensorflow-hub>=0.16.1",
    "tensorflow-datasets>=4.9.9,<4.11",
    # Newer ones need protobuf 6.31 at import, without declaring it, and TensorFlow up to 2.19 allows protobuf 5 alone.
    # Older ones leave protobuf open, and a resolver that wants protobuf 7 goes back as far as that.
    "tensorflow-metadata>=1.17,<1.18",
]


def by_stack(older, newer):
    """Returns the requirements of one stack: by Python's version, or as ROBGAN_TENSORFLOW asks.

    Args:
        older: requirements beside TensorFlow 2.15, for Python 3.9 to 3.11.
        newer: requirements beside TensorFlow 2.16 to 2.21, for Python 3.12 and 3.13, and 3.10 and 3.11 where asked for.
    """
    stacks = {"2.15": older, "2.21": newer}
    asked = os.environ.get("ROBGAN_TENSORFLOW")
    if asked is None:
        return [
            *(marked(line, "python_version < '3.12'") for line in older),
            *(marked(line, "python_version >= '3.12'") for line in newer),
        ]
    if asked not in stacks:
        sys.exit(f"ROBGAN_TENSORFLOW={asked} is unknown: it may be {' or '.join(stacks)}.")
    return stacks[asked]


def marked(requirement, marker):
    """Returns a requirement that holds only under `marker`, too."""
    name, _, own = requirement.partition("; ")
    return f"{name}; {own} and {marker}" if own else f"{name}; {marker}"


setup(
    name="robgan_tf",
    version=read_version(),
    description="Rob-GAN (Liu & Hsieh, CVPR 2019): generator, discriminator and adversarial attacker, in TensorFlow 2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=PYTHON_REQUIRES,
    # Not find_packages(): the folder gin/ holds configurations and must never hide the library gin.
    packages=find_packages(include=["robgan_tf*"]),
    cmdclass={"build_py": BuildWithConfigurations},
    entry_points={"console_scripts": ["robgan = robgan_tf.__main__:main"]},
    package_data={
        "robgan_tf": ["py.typed"],
        "robgan_tf.pages": ["templates/*.html", "styles/*.css"],
        "robgan_tf.serving": ["templates/*.md"],
    },
    install_requires=[
        *by_stack(TENSORFLOW_2_15, TENSORFLOW_2_21),
        "importlib_resources",  # imported by tensorflow-datasets, not declared
        # 82 dropped pkg_resources, which tensorflow-hub, tensorflow-gan and tensorboard import.
        "setuptools<81",
        "gin-config>=0.5",
        "absl-py",
        "jinja2>=3.1",  # the pages of a run
        "scikit-learn",  # the embedded digits, confusion matrices, the kernel distance
        "scipy",  # intervals, corruptions
        "pillow>=10.1",  # image folders, records, sample grids; its font has sizes from 10.1 on
        "tqdm",  # progress
    ],
    extras_require={
        "gpu": by_stack(["tensorflow[and-cuda]==2.15.1"], ["tensorflow[and-cuda]>=2.16,<2.22"]),
        "serving": by_stack(["tensorflow-serving-api>=2.15.1,<2.16"], ["tensorflow-serving-api>=2.16,<2.22"]),
        # For tools/serving/portability.py. tf2onnx for Python 3.9 wants protobuf 3; later onnx a newer ml_dtypes than
        # TensorFlow 2.15 allows, undeclared; none is known to go with newer TensorFlow.
        "onnx": by_stack(
            [
                "tf2onnx>=1.17; python_version >= '3.10'",
                "onnx>=1.16,<1.18; python_version >= '3.10'",
                "onnxruntime; python_version >= '3.10'",
            ],
            [],
        ),
        # Other people's attacks, for benchmarks/crosscheck.py.
        "crosscheck": ["adversarial-robustness-toolbox==1.20.1", "foolbox==3.3.4"],
        "autoattack": ["pyautoattack==0.2.0", "torch"],
        # The peers of benchmarks/benchmark.py, and its plots.
        "bench": [
            "torch==2.13.0; python_version >= '3.10'",
            # Newer ones want a newer ml_dtypes than TensorFlow 2.15 allows.
            *by_stack(["jax>=0.4.30,<0.4.35"], ["jax>=0.6.2,<0.13"]),
            "adversarial-robustness-toolbox==1.20.1",
            "foolbox==3.3.4",
            "matplotlib",
        ],
        # The site of docs/: `mkdocs build --strict`, `mkdocs serve`.
        "docs": ["mkdocs>=1.6", "mkdocstrings[python]"],
        "dev": [
            "hypothesis",  # random inputs for properties of the threat model
            "packaging",  # reads versions and markers in tests/packaging_test.py
            *("nbclient", "ipykernel", "nbformat"),  # run docs/robgan.ipynb in tests/notebook_test.py
            "pre-commit",
            "pytest",
            "pytest-xdist",  # a process for each core
            "ruff",
        ],
    },
)
