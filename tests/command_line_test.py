"""Help, versions, completion, and configurations that come with the package: all without TensorFlow."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import robgan_tf
from robgan_tf import command_line, gin_files
from robgan_tf.__main__ import COMMANDS, OTHERS

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Whatever imports it fails.
NO_TENSORFLOW = "raise RuntimeError('TensorFlow was imported')"


@pytest.fixture
def call(tmp_path):
    """Runs a command where TensorFlow can't be imported, in an empty folder."""
    blocked, folder = tmp_path / "blocked", tmp_path / "empty"
    blocked.mkdir()
    folder.mkdir()
    (blocked / "tensorflow.py").write_text(NO_TENSORFLOW)
    path = os.pathsep.join(map(str, (blocked, ROOT)))

    def run(*arguments, module="robgan_tf"):
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )

    run.folder = folder
    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_flag_and_the_configurations_on_a_screen(call, name):
    direct = call("--help", module=f"robgan_tf.{name}")
    through = call(name, "--help")
    assert direct.returncode == through.returncode == 0, direct.stderr + through.stderr
    assert direct.stdout.splitlines()[3:] == through.stdout.splitlines()[3:]  # but for the name of the program
    source = (ROOT / "robgan_tf" / f"{name}.py").read_text()
    lines = through.stdout.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 110
    for flag in re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source):
        assert any(line.strip().startswith(f"--{flag}") for line in lines), flag
    if "define_config_flags" in source:
        assert "--gin_file" in through.stdout and "--gin_param" in through.stdout
        assert "gin/imagenet128.gin" in through.stdout and "adversarial_training" in through.stdout


def test_without_a_command_there_is_a_list_of_them(call):
    for arguments in ([], ["--help"]):
        answer = call(*arguments)
        assert answer.returncode == 0 and all(f"  {name} " in answer.stdout for name in (*COMMANDS, *OTHERS))


def test_the_version_is_told(call):
    assert call("--version").stdout == call("train", "--version").stdout == f"robgan_tf {robgan_tf.__version__}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (["train", "--gin_fiel=gin/digits.gin"], "there is no flag --gin_fiel; did you mean --gin_file? (--help"),
        (["train", "--nothing_alike"], "there is no flag --nothing_alike (--help lists the flags)"),
        (
            ["train", "--gin_file=gin/digit.gin"],
            "--gin_file=gin/digit.gin does not exist; did you mean gin/digits.gin?",
        ),
        (["train", "--gin_file=digits.gin"], "--gin_file=digits.gin does not exist; did you mean gin/digits.gin?"),
        (["evaluate", "--gin_file=x"], "--gin_file=x does not exist; there are gin/cifar10.gin"),
        (["train", "more"], "unexpected argument 'more' (--help"),
        (["train", "gin/digits.gin"], "unexpected argument 'gin/digits.gin'; did you mean --gin_file=gin/digits.gin?"),
        (["configurations", "digits"], "lists all, and takes nothing; got 'digits'"),
        (["completion", "fish"], "takes the name of a shell, bash or zsh"),
    ],
)
def test_what_is_misspelt_is_named_before_tensorflow_is_imported(call, arguments, message):
    answer = call(*arguments)
    assert answer.returncode == 2 and answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_every_configuration_has_a_line(call):
    lines = call("configurations").stdout.splitlines()
    assert len(lines) == len(list((ROOT / "gin").rglob("*.gin")))
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert not any(line.endswith(("eq", "Fig", "et al")) for line in lines)  # a whole sentence


def test_a_file_of_ones_own_wins_over_that_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pathlib.Path(gin_files.find("gin/digits.gin")) == ROOT / "gin" / "digits.gin"
    (tmp_path / "gin").mkdir()
    (tmp_path / "gin" / "digits.gin").touch()
    assert gin_files.find("gin/digits.gin") == "gin/digits.gin"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    "words, index, found",
    [
        (["robgan", "eval"], 1, "evaluate evaluate_generator"),
        (["robgan", "train", "--st"], 2, "--stages="),
        (["robgan", "train", "--gin_file", "=", "gin/dig"], 4, "gin/digits.gin"),
        (["robgan", "completion", "z"], 2, "zsh"),
    ],
)
def test_bash_completes_commands_flags_and_configurations(call, words, index, found):
    script = call("completion", "bash").stdout
    words = " ".join(f"'{word}'" for word in words)
    script += f'\ncompopt() {{ :; }}\nCOMP_WORDS=({words}); COMP_CWORD={index}; _robgan; echo "${{COMPREPLY[@]}}"'
    answer = subprocess.run(["bash", "-u", "-c", script], cwd=call.folder, capture_output=True, text=True)
    assert answer.stdout.strip() == found, answer.stderr


def test_where_the_data_are_is_no_change_of_a_run():
    assert not command_line.changes_the_run(["image_folder.data_dir = 'new'", "digits.data_dir='x'"])
    assert command_line.changes_the_run(["image_folder.data_dir = 'new'", "evaluation/Attacker.steps = 5"])
    assert not command_line.changes_the_run([])
