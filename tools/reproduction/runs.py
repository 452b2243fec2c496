"""The runs of an experiment: their folders and commands, and what is done already."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
from collections.abc import Sequence

from reproduction.expected import REPOSITORY
from reproduction.experiments import Comparison, Part
from reproduction.scales import Scale
from reproduction.systems import EXTRACTOR, SYSTEMS
from robgan_tf.run.checkpoints import steps_in
from robgan_tf.run.directory import RunDirectory

# Generated images of each class in a picture.
_COLUMNS = 8
# Not one of the flag's: else other seeds would be measured by another extractor.
EXTRACTOR_SEED = 0


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of a run.

    Attributes:
        arguments: behind `python -m`.
        makes: the file or folder that tells that it is done; None for training, whose checkpoints tell.
    """

    arguments: tuple[str, ...]
    makes: pathlib.Path | None = None

    def __str__(self):
        return shlex.join(["python", "-m", *self.arguments])


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of a system, with what is measured of it.

    Attributes:
        part: the system's part in the experiment.
        seed: the seed of everything in it.
        path: its folder.
        files: configurations, in order.
        scale_params: bindings of scale and system.
        score_params: bindings of scores by the common extractor, which has to be there before they can be used.
        user_params: bindings of the user, which win over both.
        extractor: the folder of the common extractor's run, where the generator is measured.
        measures: bindings of that.
        taken: the file that its generated images come from, which has to be there before it can be built; or None.
        samples: how many generated images its own file gets, where it makes one.
    """

    part: Part
    seed: int
    path: pathlib.Path
    files: tuple[str, ...]
    scale_params: tuple[str, ...]
    score_params: tuple[str, ...] = ()
    user_params: tuple[str, ...] = ()
    extractor: pathlib.Path | None = None
    measures: tuple[str, ...] = ()
    taken: pathlib.Path | None = None
    samples: int = 0

    @property
    def system(self) -> str:
        """The name of its system."""
        return self.part.system

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.system}, seed {self.seed}"

    @property
    def params(self) -> tuple[str, ...]:
        """All bindings, in order."""
        return (*self.scale_params, *self.score_params, *self.user_params)

    @property
    def learnt_params(self) -> tuple[str, ...]:
        """Those that can be used before the common extractor is there: what is learnt does not depend on others."""
        of_scores = {name_of(param) for param in self.score_params}
        return (*self.scale_params, *(param for param in self.user_params if name_of(param) not in of_scores))

    @property
    def directory(self) -> RunDirectory:
        """Its files."""
        return RunDirectory(self.path)

    @property
    def before_finetuning(self) -> pathlib.Path:
        """The report on the classifier that co-training left."""
        return self.path / "robustness_before_finetuning.json"

    @property
    def robustness_reports(self) -> list[pathlib.Path]:
        """The reports on classifiers that are there."""
        return [path for path in (self.directory.robustness, self.before_finetuning) if path.exists()]

    @property
    def generation(self) -> pathlib.Path:
        """The report on the generator by the common extractor."""
        return self.path / "generation_common.json"

    @property
    def grid(self) -> pathlib.Path:
        """A picture of generated images."""
        return self.path / "generated.png"

    @property
    def sample_file(self) -> pathlib.Path:
        """A file of generated images, for other runs."""
        return self.path / "samples.npz"

    @property
    def log(self) -> pathlib.Path:
        """What its commands print."""
        return self.path.with_name(f"{self.path.name}.log")

    def commands(self) -> list[Command]:
        """Returns what makes the run, in order."""
        here = f"--run_dir={self.path}"
        stages = SYSTEMS[self.system].stages
        train = [f"--gin_file={file}" for file in self.files]
        train += [f"--gin_param={param}" for param in self.params]
        train += [here] + ([f"--stages={','.join(stages)}"] if stages else [])
        commands = [Command(("robgan_tf.train", *train))]
        if self.part.before_finetuning:
            evaluate = ("robgan_tf.evaluate", here, "--gin_param=Experiment.finetuning = None")
            commands.append(Command((*evaluate, f"--out={self.before_finetuning}"), self.before_finetuning))
        if self.part.generator:
            evaluate = ("robgan_tf.evaluate_generator", here, f"--extractor={self.extractor}")
            params = (f"--gin_param={param}" for param in ("GenerationEvaluation.inception = None", *self.measures))
            commands.append(Command((*evaluate, *params, f"--out={self.generation}"), self.generation))
        if self.part.grid:
            sample = ("robgan_tf.sample", here, f"--out={self.grid}", f"--columns={_COLUMNS}")
            commands.append(Command(sample, self.grid))
        if self.part.samples:
            sample = ("robgan_tf.sample", here, "--what=samples", f"--count={self.samples}")
            commands.append(Command((*sample, f"--out={self.sample_file}"), self.sample_file))
        return commands

    def missing(self, steps: dict[str, int]) -> list[Command]:
        """Returns the commands that are not done, where each stage has `steps` in all."""
        train, *others = self.commands()
        trained = self.trained(steps)
        return ([] if trained else [train]) + [one for one in others if not (trained and one.makes.exists())]

    def trained(self, steps: dict[str, int]) -> bool:
        """Whether all stages of training that are wanted are done."""
        stages = SYSTEMS[self.system].stages
        reports = {"evaluate": self.directory.robustness.exists(), "export": any(self.directory.exports.glob("[0-9]*"))}
        wanted = all(there for stage, there in reports.items() if not stages or stage in stages)
        return wanted and all(self.step_of(stage) >= total for stage, total in steps.items())

    def step_of(self, stage: str) -> int:
        """Returns the step of the newest checkpoint of a stage."""
        return max(steps_in(self.directory.checkpoints(stage)), default=0)

    def status(self, steps: dict[str, int]) -> str:
        """Returns what is there, in words."""
        missing = self.missing(steps)
        if not missing:
            return "done"
        if self.trained(steps):
            return f"trained, to be measured: {len(missing)} command(s)"
        at = [(stage, self.step_of(stage), total) for stage, total in steps.items()]
        if not any(step for _, step, _ in at):
            return "started" if self.directory.config.exists() else "missing"
        return "at " + ", ".join(f"step {step} of {total} of {stage}" for stage, step, total in at)


def runs_of(
    comparison: Comparison, scale: Scale, seeds: Sequence[int], root: pathlib.Path, params: Sequence[str] = ()
) -> list[Run]:
    """Returns the runs of an experiment, in the order in which they have to be done.

    Args:
        comparison: what is compared.
        scale: how large.
        seeds: of each system; the common extractor has one of its own.
        root: folder of this scale and data.
        params: bindings of the user, for every run.
    """
    extractor = root / EXTRACTOR / f"seed_{EXTRACTOR_SEED}"
    wanted = [(Part(EXTRACTOR), EXTRACTOR_SEED)] if comparison.needs_extractor else []
    # System by system: what is there when time is up has all seeds.
    wanted += [(part, seed) for part in comparison.parts for seed in seeds]
    runs = []
    for part, seed in wanted:
        system = SYSTEMS[part.system]
        bindings = [*scale.shared, *(() if system.from_nothing else scale.finetuning)]
        bindings += scale.resnet if system.resnet else ()
        bindings += scale.extractor if part.system == EXTRACTOR else ()
        if system.watched:
            bindings += ["Experiment.training_curves = @TrainingCurves", *scale.curves]
        bindings += scale.more_images if system.sees_more else ()
        bindings += scale.doubled if system.doubled else ()
        taken = root / system.samples_of / f"seed_{seed}" / "samples.npz" if system.samples_of else None
        if taken:
            bindings.append(f"sample_file.path = '{taken}'")
        scores = ()
        if system.scored:
            scores = (
                "Experiment.generation_scores = @TrainingScores",
                "TrainingScores.extractor = @classifier_extractor()",
                f"classifier_extractor.directory = '{extractor}'",
                *scale.scores,
            )
        base = f"gin/{'strongest/' if system.recipe else ''}{scale.file}"
        runs.append(
            Run(
                part,
                seed,
                root / part.system / f"seed_{seed}",
                (base, *(f"gin/baselines/{modifier}.gin" for modifier in system.modifiers)),
                (*bindings, *system.bindings, f"Experiment.seed = {seed}"),
                scores,
                tuple(params),
                extractor if part.generator or system.scored else None,
                scale.measures,
                taken,
                scale.samples,
            )
        )
    return runs


def wanted_steps(run: Run, expected: dict) -> dict[str, int]:
    """Returns the steps of each stage that is wanted of a run."""
    stages = SYSTEMS[run.system].stages
    names = {"cotraining": "cotrain", "finetuning": "finetune"}
    return {
        stage["stage"]: stage["steps"] for stage in expected["stages"] if not stages or names[stage["stage"]] in stages
    }


def name_of(param: str) -> str:
    """Returns what a binding binds."""
    return param.split("=", 1)[0].strip()


def relative(path: str) -> pathlib.Path:
    """Returns a path as the commands, which run in the repository, are given it."""
    absolute = pathlib.Path(os.path.abspath(path))
    return absolute.relative_to(REPOSITORY) if absolute.is_relative_to(REPOSITORY) else absolute


def read_json(path: pathlib.Path) -> dict:
    """Returns the content of a JSON file of a run.

    Raises:
        ValueError: where it is not there, or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read ({error}): make the run anew.") from error
