"""Who may import whom: imports run one way, down."""

import ast
import functools
import importlib
import pathlib
import subprocess
import sys

import pytest

import robgan_tf

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "robgan_tf"

# From the top floor to the bottom. A part is a module or a folder of robgan_tf; it may import from the parts named
# behind it, and a folder from itself.
COMMANDS = ("train", "evaluate", "evaluate_generator", "compare", "export", "sample", "report", "prepare")
LOWEST = "players layers losses keras2 time_left bindings paths values"
BELOW_COMMANDS = f"experiment training robustness generation serving pages run data {LOWEST}"
ALLOWED = {
    "__main__": "completion command_line gin_files streams __init__",
    "completion": "command_line gin_files",
    **{command: f"command_line paths {BELOW_COMMANDS}" for command in COMMANDS},
    "command_line": f"{BELOW_COMMANDS} configuration gin_files streams __init__",
    "configuration": "gin_files",
    "gin_files": "",
    "experiment": f"training robustness generation serving pages run data {LOWEST}",
    "training": f"run data {LOWEST}",
    "robustness": f"pages run data {LOWEST}",
    "generation": f"serving run data {LOWEST}",
    "serving": "data keras2 bindings values paths",
    "pages": "run data bindings paths",
    "players": "run data layers losses keras2 time_left bindings values",
    "run": "data keras2 time_left bindings values",
    "data": "time_left bindings paths values",
    "layers": "keras2 values",
    "losses": "values",
    "keras2": "",
    "bindings": "",
    "paths": "",
    "values": "",
    "streams": "",
    "time_left": "",
    "__init__": "",  # names are imported on first use
}
# Within players no one knows another one: a stage hands the attacker an objective. What belongs to one player is in its
# folder, and the pictures are of the generator.
PLAYERS = {
    "players.pictures": {"players.interpolation", "players.sampling"},
    "players.interpolation": {"players.sampling"},
}

# Libraries that newer TensorFlow does not have: one module each, so that a port costs that module alone.
ONE_MODULE_EACH = ("tensorflow_addons", "tensorflow_gan")
PRIVATE = ("tensorflow.python", "tensorflow.core", "keras.src", "tensorflow.keras.src")


def module_name(path):
    """robgan_tf/players/attacker/pgd.py -> players.attacker; robgan_tf/players/__init__.py -> players."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def is_module(name):
    base = REPOSITORY.joinpath(*name.split("."))
    return base.with_suffix(".py").exists() or (base / "__init__.py").exists()


def imports(source):
    """Full names of all modules that `source` imports, at its top or within functions, with no regard to `if`s."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                inside = name.split(".")[0] == "robgan_tf"
                # `from robgan_tf.data import datasets` imports a module, `from robgan_tf.losses import split` does not.
                found.add(node.module if inside and not is_module(name) else name)
    return found


def is_within(name, modules):
    """Whether `name` is one of `modules` or something in it."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def forbidden_imports(module, source):
    """The imports of `source`, the text of robgan_tf.`module`, that the tables above do not allow."""
    part = module.split(".")[0]
    forbidden = set()
    for name in imports(source):
        if is_within(name, PRIVATE):
            forbidden.add(name)
        if is_within(name, ["absl.flags"]) and part not in (*COMMANDS, "command_line"):
            forbidden.add(name)
        if is_within(name, ["robgan_tf"]) and name != "robgan_tf":  # its version
            other = name[len("robgan_tf.") :]
            if part == other.split(".")[0] == "players":
                allowed = other in PLAYERS.get(module, ()) or other.split(".")[1] == module.split(".")[1]
            else:
                allowed = other.split(".")[0] in {part, *ALLOWED[part].split()}
            if not allowed:
                forbidden.add(name)
    return forbidden


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_down(module):
    part = module.split(".")[0]
    assert part in ALLOWED, f"say in ALLOWED what robgan_tf/{part} may import"
    assert forbidden_imports(module, SOURCES[module]) == set()


def test_the_table_has_no_way_back_up():
    order = list(ALLOWED)
    for part, allowed in ALLOWED.items():
        for other in allowed.split():
            assert other in ALLOWED and order.index(other) > order.index(part), (part, other)


@pytest.mark.parametrize(
    "module, source, name",
    [
        (
            "players.attacker.pgd",
            "from robgan_tf.players.discriminator import Verdict",
            "robgan_tf.players.discriminator",
        ),
        ("players.attacker.pgd", "from robgan_tf.players import generator", "robgan_tf.players.generator"),
        (
            "players.generator",
            "from robgan_tf.players.attacker.threat_model import L2",
            "robgan_tf.players.attacker.threat_model",
        ),
        ("players.generator", "from robgan_tf.training.stage import Stage", "robgan_tf.training.stage"),
        ("losses", "def f():\n    import robgan_tf.players.attacker.pgd", "robgan_tf.players.attacker.pgd"),
        ("layers.residual", "from robgan_tf import losses", "robgan_tf.losses"),
        ("training.cotraining", "if True:\n    from robgan_tf.experiment import build", "robgan_tf.experiment.build"),
        ("robustness.curves", "from robgan_tf.training import finetuning", "robgan_tf.training.finetuning"),
        ("robustness.curves", "from robgan_tf.generation import scores", "robgan_tf.generation.scores"),
        ("train", "from robgan_tf.evaluate import main", "robgan_tf.evaluate"),
        ("experiment.build", "from absl import flags", "absl.flags"),
        ("data.datasets", "import absl.flags", "absl.flags"),
        ("losses", "from keras.src import backend", "keras.src.backend"),
        ("losses", "import tensorflow.python.ops.math_ops as math", "tensorflow.python.ops.math_ops"),
    ],
)
def test_a_forbidden_import_is_found(module, source, name):
    assert forbidden_imports(module, source) == {name}


@pytest.mark.parametrize(
    "module, source",
    [
        ("players.attacker.pgd", "from robgan_tf.players.attacker.threat_model import LInf"),
        ("training.cotraining", "from robgan_tf.training.stage import Stage"),
        ("data.datasets", "from absl import logging"),
        ("train", "from absl import flags\nfrom robgan_tf import command_line"),
    ],
)
def test_an_allowed_import_is_not(module, source):
    assert forbidden_imports(module, source) == set()


def imports_at_the_top(source):
    """As `imports`, but only what is imported as the module is: not in functions, not for type checkers alone."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {name[len("robgan_tf.") :] for name in imports(ast.unparse(tree)) if name.startswith("robgan_tf.")}


@functools.cache
def longest_chain(module):
    """The longest chain of modules that importing this one imports, each imported by the one before."""
    below = [longest_chain(other) for other in imports_at_the_top(SOURCES[module]) if other != module]
    return (module, *max(below, key=len, default=()))


def test_a_reader_follows_eight_modules_at_most():
    assert max(map(len, map(longest_chain, SOURCES))) <= 8, max(map(longest_chain, SOURCES), key=len)


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_is_read_in_one_sitting(module):
    assert len(SOURCES[module].splitlines()) <= 300


@pytest.mark.parametrize("library", ONE_MODULE_EACH)
def test_libraries_without_a_future_are_imported_in_one_module_at_most(library):
    importers = [
        module for module, source in SOURCES.items() if any(is_within(name, [library]) for name in imports(source))
    ]
    assert len(importers) <= 1, importers


@pytest.mark.parametrize("module", SOURCES)
def test_no_private_module_is_reached_through_a_public_one(module):
    # tf.python..., keras.src...: attributes, which the test of imports does not see.
    chains = {ast.unparse(node) for node in ast.walk(ast.parse(SOURCES[module])) if isinstance(node, ast.Attribute)}
    assert not [chain for chain in chains if is_within(chain, ("tf.python", "tf.keras", "keras.src"))]


@pytest.mark.parametrize("module", SOURCES)
def test_no_graph_is_traced_by_way_of_autograph(module):
    # Converting Python takes a third of the time that tracing does, and nothing here needs it.
    nodes = list(ast.walk(ast.parse(SOURCES[module])))
    without = {id(node.func) for node in nodes if isinstance(node, ast.Call) and "autograph=False" in ast.unparse(node)}
    functions = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.function"]
    assert all(id(function) in without for function in functions)


def names_imported(source):
    """(module, name) of what is imported from robgan_tf, at the top or within functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and is_within(node.module, ["robgan_tf"]):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", ["robgan_tf", "tests", "tools", "benchmarks"])
def test_what_is_imported_from_a_module_is_there(folder):
    # Also within functions and in tools that no quick test runs.
    for path in (REPOSITORY / folder).rglob("*.py"):
        for module, name in names_imported(path.read_text()):
            if not is_module(f"{module}.{name}") and not (REPOSITORY / module.replace(".", "/") / name).is_dir():
                assert hasattr(importlib.import_module(module), name), (path, module, name)


@pytest.mark.parametrize("folder", ["tests", "tools", "benchmarks"])
def test_nothing_takes_the_keras_of_a_newer_tensorflow(folder):
    # tf.keras is Keras 3 from TensorFlow 2.16 on; robgan_tf.keras2 knows where Keras 2 is.
    for path in (REPOSITORY / folder).rglob("*.py"):
        chains = {ast.unparse(one) for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.Attribute)}
        assert not [chain for chain in chains if is_within(chain, ["tf.keras"])], path


# ---- the package itself


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_importing_the_package_does_not_import_tensorflow():
    result = run("import robgan_tf, sys; assert robgan_tf.__version__; print('tensorflow' in sys.modules)")
    assert (result.returncode, result.stdout.strip()) == (0, "False"), result.stderr


def test_a_training_begins_without_what_is_slow_to_import():
    # Half a second and 46 MiB together; on TensorFlow 2.21 another module of the stack may need them.
    result = run("""
import sys, tensorflow, tensorflow_datasets
from robgan_tf.keras2 import keras
slow = {"sklearn", "scipy.stats"} - set(sys.modules)
import robgan_tf.experiment.build, robgan_tf.experiment.run
print(slow & set(sys.modules))
""")
    assert (result.returncode, result.stdout.strip()) == (0, "set()"), result.stderr


@pytest.mark.parametrize("name", [name for name in robgan_tf.__all__ if name != "__version__"])
def test_every_public_name_is_there_on_first_use(name):
    assert getattr(robgan_tf, name) is getattr(importlib.import_module(robgan_tf._HOME[name]), name)


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match="'robgan_tf' has no attribute 'Atacker'; it has .*Attacker"):
        robgan_tf.Atacker  # noqa: B018
