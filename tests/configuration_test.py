"""Text that is no configuration is answered by one line with file, line and fix."""

import pathlib

import gin
import pytest

from robgan_tf import command_line, configuration
from robgan_tf.experiment import build  # noqa: F401 - makes everything known to gin

DIGITS = 'include "gin/digits.gin"\n'
CASES = {
    "quotient": (
        "LInf.epsilon = 8/255",
        r"line 1: .* gin does not calculate, and pixels are in \[-1, 1\]: write LInf.epsilon = 0\.0627451 for 8/255",
    ),
    "quotient of another": ("CoTraining.epochs = 1/4", r"line 1: .* gin does not calculate; write .* = 0\.25"),
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
    "two of one name": (
        DIGITS + "as_code.fake = 0.5",
        r"line 2: several parts are named as_code: write one of .*split\.as_code",
    ),
    "argument": (DIGITS + "LInf.epsilom = 0.1", "line 2: LInf has no argument epsilom; did you mean epsilon"),
    "include": (
        'include "gin/digit.gin"',
        "line 1: include 'gin/digit.gin': there is no such file; did you mean gin/digits",
    ),
    "module": ("import my_defence", r"line 1: there is no module my_defence: put my_defence.py into the folder"),
    "blank line in a bracket": (
        "Experiment.augment = (\n\nExperiment.seed = 1",
        r"line 1: Experiment.augment = \(: a bracket is not closed",
    ),
    "negative quotient": ("LInf.epsilon = -1/4", r"gin does not calculate; write LInf.epsilon = -0\.25"),
    "power": ("LInf.epsilon = 2**-4", "gin does not calculate; write the number itself"),
    "product": ("Upkeep.log_every = 2 * 50", "gin does not calculate; write the number itself"),
    "two equals": ("LInf.epsilon == 0.1", r"a binding has one =; write LInf.epsilon = 0\.1"),
    "semicolon": ("LInf.epsilon = 0.1;", r"write LInf.epsilon = 0\.1, without ; at the end"),
    "typographic": ("tfds_images.name = \u201ccifar10\u201d", "line 1: .* quotation marks are the plain ones"),
    "odd space": ("LInf.epsilon\u00a0= 0.1", r"this has a space of another kind \(U\+00A0\); write a plain one"),
    "two bindings": ("LInf.epsilon = 0.1 Experiment.seed = 1", "each binding has a line, or a --gin_param, of its own"),
    "macros in a circle": (
        "one = %two\ntwo = %one\nLInf.epsilon = %one",
        r"line 3: macros are set in a circle, %one = %two = %one: give one of them a value",
    ),
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


def test_utf_16_without_a_mark_is_not_utf_8(tmp_path):
    path = tmp_path / "wide.gin"
    path.write_bytes("Experiment.seed = 1\n".encode("utf-16-le"))
    with pytest.raises(configuration.ConfigurationTextError, match="wide.gin, line 1: this is not UTF-8 text"):
        configuration.read([str(path)], [])


@pytest.mark.parametrize(
    "code, message",
    [
        ("x = = 1\n", "line 1: import broken_part fails: .*broken_part.py, line 1: invalid syntax"),
        ("raise KeyError('boom')\n", "line 1: import broken_part fails: KeyError: 'boom'"),
        ("1 / 0\n", "line 1: import broken_part fails: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_can_not_be_imported_is_named_with_its_error(tmp_path, monkeypatch, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_part.py").write_text(code)
    (tmp_path / "wrong.gin").write_text("import broken_part\n")
    with pytest.raises(configuration.ConfigurationTextError, match=message) as caught:
        configuration.read(["wrong.gin"], [])
    assert "\n" not in str(caught.value)


def test_a_macro_that_a_later_file_or_binding_sets_is_in_no_circle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("base.gin").write_text("one = %two\ntwo = %one\nLInf.epsilon = %one\n")
    configuration.read(["base.gin"], ["two = 0.25"])
    assert gin.query_parameter("%two") == 0.25


def test_what_refers_to_itself_or_is_not_set_is_said_in_words(tmp_path, capsys):
    for text, message in {
        DIGITS + "Experiment.data = @Experiment()\n": "error: in the configuration a part refers to itself",
        "Experiment.seed = 1\n": (
            "error: Experiment.data, Experiment.discriminator, Experiment.evaluation must be set"
        ),
    }.items():
        gin.clear_config()
        (tmp_path / "wrong.gin").write_text(text)
        with pytest.raises(SystemExit):
            command_line.build_experiment([str(tmp_path / "wrong.gin")], [])
        assert capsys.readouterr().err.startswith(message)


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
