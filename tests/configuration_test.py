"""Text that is no configuration is answered by one line with file, line and fix."""

import pathlib

import pytest

from robgan_tf import configuration
from robgan_tf.experiment import build  # noqa: F401 - makes everything known to gin

DIGITS = 'include "gin/digits.gin"\n'
CASES = {
    "quotient": (
        "LInf.epsilon = 8/255",
        r"line 1: LInf.epsilon = 8/255: gin does not calculate; write .* = 0\.0313725",
    ),
    "unquoted": ("tfds_images.name = cifar10", r'line 1: .* text stands in quotes: tfds_images.name = "cifar10"'),
    "false": ("Discriminator.spectral_norm = false", r"line 1: .*: write Discriminator.spectral_norm = False"),
    "none": ("\nExperiment.generator = none", r"line 2: .*: write Experiment.generator = None"),
    "comma": ("LInf.epsilon = 0,1", r"line 1: .* a decimal has a point; write LInf.epsilon = 0\.1"),
    "no value": ("LInf.epsilon =", "line 1: .* the value is missing"),
    "no equals": ("LInf.epsilon 0.1", "line 1: .* a binding is written Name.argument = value"),
    "quote": ('tfds_images.name = "cifar10', "line 1: .* a quotation mark is not closed"),
    "bracket": ("LInf.epsilon = (0.1\nExperiment.seed = 1", r"line 1: LInf.epsilon = \(0.1: a bracket is not closed"),
    "macro": (
        DIGITS + "LInf.epsilon = %l2_epsilom",
        "line 2: the macro %l2_epsilom is nowhere set; did you mean l2_epsilon",
    ),
    "name": (DIGITS + "Linf.epsilon = 0.1", "line 2: nothing is named Linf; did you mean LInf.* `import my_module`"),
    "reference": (
        DIGITS + "Experiment.generator = @Generater",
        "line 2: nothing is named Generater; did you mean Generator",
    ),
    "argument": (DIGITS + "LInf.epsilom = 0.1", "line 2: LInf has no argument epsilom; did you mean epsilon"),
    "include": (
        'include "gin/digit.gin"',
        "line 1: include 'gin/digit.gin': there is no such file; did you mean gin/digits",
    ),
    "module": ("import my_defence", r"line 1: there is no module my_defence: put my_defence.py into the folder"),
    "cycle": ('include "wrong.gin"', r"wrong.gin includes .*wrong.gin: take one of these includes out"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_wrong_is_named_with_line_and_fix(tmp_path, monkeypatch, name):
    text, message = CASES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.gin").write_text(text + "\n")
    with pytest.raises(configuration.ConfigurationTextError, match=message) as caught:
        configuration.read(["wrong.gin"], [])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_named(tmp_path, encoding):
    path = tmp_path / "marked.gin"
    path.write_text("Experiment.seed = 1\n", encoding=encoding)
    with pytest.raises(configuration.ConfigurationTextError, match=r"begins with a byte order mark: save it as UTF-8"):
        configuration.read([str(path)], [])


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    path = tmp_path / "latin.gin"
    path.write_bytes(b"Experiment.seed = 1\n# caf\xe9\n")
    with pytest.raises(configuration.ConfigurationTextError, match="latin.gin, line 2: this is not UTF-8 text"):
        configuration.read([str(path)], [])


def test_a_binding_on_the_command_line_is_named_as_such(tmp_path):
    with pytest.raises(configuration.ConfigurationTextError, match="--gin_param: .*8/255: gin does not calculate"):
        configuration.read([], ["LInf.epsilon = 8/255"])


def test_a_circle_over_two_files_is_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("one.gin").write_text('include "two.gin"\n')
    pathlib.Path("two.gin").write_text('include "one.gin"\n')
    with pytest.raises(configuration.ConfigurationTextError, match="^one.gin includes two.gin includes one.gin: take"):
        configuration.read(["one.gin"], [])


def test_a_file_that_two_include_is_no_circle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("base.gin").write_text("Experiment.seed = 1\n")
    for name in ("one", "two"):
        pathlib.Path(f"{name}.gin").write_text('include "base.gin"\n')
    configuration.read(["one.gin", "two.gin"], [])
