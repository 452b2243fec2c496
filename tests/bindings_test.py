"""The bindings of a configuration: which were used, which are learnt, and what differs."""

import gin

from robgan_tf.bindings import bindings, config_differences, explicit_bindings, may_change, operative_config
from robgan_tf.experiment import build  # noqa: F401  (declares what of `Experiment` may change)
from robgan_tf.players.attacker.threat_model import LInf

CONFIG = """# Parameters for Foo:
# ====
Foo.size = 3
Foo.names = \\
    ('a',
     'b')
cotraining/Foo.part = @Bar()
"""


def test_bindings_are_read_without_comments_and_line_breaks():
    assert bindings(CONFIG) == {"Foo.size": "3", "Foo.names": "('a', 'b')", "cotraining/Foo.part": "@Bar()"}


def test_differences_name_the_binding_and_both_values():
    changed = CONFIG.replace("size = 3", "size = 4").replace("cotraining/Foo.part = @Bar()\n", "")
    assert config_differences(CONFIG, changed) == [
        "Foo.size was 3, is 4",
        "cotraining/Foo.part was @Bar(), is not set",
    ]
    assert config_differences(CONFIG, CONFIG + "# a comment\n") == []


def test_the_operative_configuration_has_a_line_for_each_binding_and_no_longer_ones():
    gin.parse_config("LInf.epsilon = 0.25")
    LInf()
    config = operative_config()
    assert bindings(config) == {"LInf.epsilon": "0.25"}
    assert max(map(len, config.splitlines())) <= 120


@gin.configurable("caller_of_bindings_test")
def caller(function, *, later):
    return later


@gin.configurable("callee_of_bindings_test")
def callee(size=1, ball=None):
    return size, ball


def test_the_operative_configuration_has_what_references_will_need_and_nothing_else():
    gin.parse_config("""
        caller_of_bindings_test.later = @inner/callee_of_bindings_test
        callee_of_bindings_test.size = %a_macro
        a_macro = %another_macro
        another_macro = 2
        unused_macro = 3
        inner/callee_of_bindings_test.ball = @LInf()
        other/callee_of_bindings_test.size = 3
        LInf.epsilon = 0.25
        L2.epsilon = 0.5
    """)
    caller(None)
    found = bindings(operative_config())
    assert found == {
        "caller_of_bindings_test.later": "@inner/callee_of_bindings_test",
        "callee_of_bindings_test.size": "%a_macro",
        "a_macro": "%another_macro",
        "another_macro": "2",
        "inner/callee_of_bindings_test.ball": "@LInf()",
        "LInf.epsilon": "0.25",
    }


# A run as the experiment's configuration refers to it: what it learns with, and what it is measured with.
RUN = """
Experiment.data = @source_of_bindings_test
Experiment.cotraining = @stage_of_bindings_test
Experiment.evaluation = @measure_of_bindings_test
source_of_bindings_test.folder = 'here'
source_of_bindings_test.size = 8
stage_of_bindings_test.attacker = @training/attack_of_bindings_test()
measure_of_bindings_test.attacks = [@measure/attack_of_bindings_test(), %an_attack]
an_attack = @other/attack_of_bindings_test()
attack_of_bindings_test.ball = @LInf()
training/attack_of_bindings_test.steps = 5
measure/attack_of_bindings_test.steps = 20
other/attack_of_bindings_test.steps = 30
LInf.epsilon = 0.1
measure/LInf.epsilon = 0.2
orphan_of_bindings_test.size = 1
"""


@gin.configurable("source_of_bindings_test")
@may_change("folder")
def source(folder, size):
    return folder, size


@gin.configurable("attack_of_bindings_test")
def attack(ball, steps):
    return ball, steps


@gin.configurable("measure_of_bindings_test")
def measure(attacks):
    return attacks


def test_names_with_a_dot_are_found_by_references_and_bindings_alike():
    run = "Experiment.{} = @a_part\na_part.weights = @split.as_code()\nsplit.as_code.real = {}\n"
    assert config_differences(run.format("evaluation", 1), run.format("evaluation", 2)) == []
    (difference,) = config_differences(run.format("cotraining", 1), run.format("cotraining", 2))
    assert difference == "split.as_code.real was 1, is 2"


def changed(before, after):
    assert before in RUN
    return config_differences(RUN, RUN.replace(before, after))


def test_what_is_measured_and_where_the_data_are_may_change():
    for before, after in [
        ("folder = 'here'", "folder = 'there'"),
        ("measure/attack_of_bindings_test.steps = 20", "measure/attack_of_bindings_test.steps = 50"),
        ("other/attack_of_bindings_test.steps = 30", "other/attack_of_bindings_test.steps = 50"),
        ("an_attack = @other/attack_of_bindings_test()", "an_attack = @LInf()"),
        ("[@measure/attack_of_bindings_test(), %an_attack]", "[]"),
        ("measure/LInf.epsilon = 0.2\n", ""),
    ]:
        assert changed(before, after) == [], before


def test_what_is_learnt_and_what_nobody_refers_to_may_not():
    for before, after in [
        ("bindings_test.size = 8", "bindings_test.size = 9"),
        ("training/attack_of_bindings_test.steps = 5", "training/attack_of_bindings_test.steps = 6"),
        ("\nLInf.epsilon = 0.1", "\nLInf.epsilon = 0.3"),
        ("attacker = @training/", "attacker = @measure/"),
        ("orphan_of_bindings_test.size = 1", "orphan_of_bindings_test.size = 2"),
    ]:
        (difference,) = changed(before, after)[:1]
        assert " was " in difference and ", is " in difference, before


@gin.configurable("options_of_bindings_test")
@may_change()
def options(size, ball):
    return size, ball


def test_all_parameters_of_what_is_declared_may_change_though_nobody_refers_to_it():
    text = (
        "options_of_bindings_test.size = {}\noptions_of_bindings_test.ball = @inner/LInf()\ninner/LInf.epsilon = {}\n"
    )
    assert config_differences(RUN + text.format(1, 0.1), RUN + text.format(2, 0.2)) == []


def test_a_parameter_that_came_later_has_its_default_and_is_no_difference():
    gin.parse_config("LInf.epsilon = 0.1")
    new = RUN + "stage_of_bindings_test.later = None\n"
    assert config_differences(RUN, new, explicit_bindings()) == []
    assert config_differences(RUN, new) == ["stage_of_bindings_test.later was not set, is None"]
    explicit = {"stage_of_bindings_test.later": "None"}
    assert config_differences(RUN, new, explicit) == ["stage_of_bindings_test.later was not set, is None"]
