"""Trains a robust classifier and a generator, evaluates and exports: `robgan train --gin_file=gin/digits.gin`.

Runs co-training, fine-tuning, evaluation and export in order. The same command again continues where the run stopped,
and does nothing when it is done. SIGTERM or Ctrl-C: it stops with a checkpoint at the end of the step, and exits with
143 or 130; once more, and it ends at once.

On several machines: the same command on each, with a TF_CONFIG that names them all (docs/distributed.md).
"""

from __future__ import annotations

import os
import sys
import traceback

from absl import flags

from robgan_tf import command_line, paths

FLAGS = flags.FLAGS


def train():
    """Trains what the flags say."""
    if not FLAGS.gin_file:
        command_line.fail("--gin_file is missing, e.g. --gin_file=gin/digits.gin")
    profile_steps, run_dir = _profile_steps(), _run_dir()
    if FLAGS.dry_run and os.environ.pop("TF_CONFIG", None):
        print("The dry run is of one machine alone; TF_CONFIG is ignored.")
    from robgan_tf.run.signals import StopSignals

    signals = StopSignals()  # before TensorFlow is imported, and starts its threads
    command_line.import_tensorflow()
    from robgan_tf.run import workers

    with workers.rejoining([sys.executable, "-m", "robgan_tf.train", *sys.argv[1:]]):
        _train(run_dir, signals, profile_steps)


def _profile_steps() -> tuple[int, int] | None:
    if not FLAGS.profile_steps:
        return None
    numbers = [int(text) if text.isdecimal() else 0 for text in FLAGS.profile_steps]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        command_line.fail(
            f"--profile_steps takes the first and the last step, counted from 1, e.g. --profile_steps=20,25; got "
            f"{','.join(FLAGS.profile_steps)}"
        )
    return tuple(numbers)


def _run_dir() -> str:
    """The folder that --run_dir names, else one that is named for the configurations."""
    names = [os.path.splitext(os.path.basename(file))[0] for file in FLAGS.gin_file]
    default = os.path.join("runs", "_".join(names))
    return FLAGS.run_dir or command_line.or_fail(lambda: paths.folder_to_write(default, "--run_dir"))


def _train(run_dir, signals, profile_steps):
    from robgan_tf.bindings import explicit_bindings, operative_config
    from robgan_tf.experiment.describe import summary
    from robgan_tf.experiment.disk import check_disk
    from robgan_tf.experiment.known_data import DataChangedError
    from robgan_tf.experiment.restoring import NotTrainedError
    from robgan_tf.experiment.run import run_stages
    from robgan_tf.run.checkpoints import CheckpointError
    from robgan_tf.run.directory import RunDirectory
    from robgan_tf.run.workers import LOST
    from robgan_tf.training.loop import Stopped
    from robgan_tf.training.monitoring import NonFiniteLossError

    experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param, dry_run=FLAGS.dry_run)
    stages = tuple(FLAGS.stages) or experiment.stages
    unknown = [stage for stage in stages if stage not in experiment.stages]
    if unknown:
        command_line.fail(
            f"--stages={','.join(stages)}: this configuration has no {', '.join(unknown)}; it has "
            f"{','.join(experiment.stages)}"
        )
    if experiment.workers.is_chief:
        command_line.or_fail(lambda: check_disk(experiment, run_dir))
    if FLAGS.dry_run:
        from robgan_tf.experiment import dry_run as plan

        for line in plan.report(experiment, run_dir):
            print(command_line.wrapped(line))
        print(f"\n{operative_config()}" if FLAGS.bindings else "all bindings: the same command with --bindings")
        return
    run_directory = RunDirectory(run_dir, experiment.workers)
    command_line.or_fail(lambda: run_directory.claim(operative_config(), explicit_bindings()))
    print(summary(experiment))
    signals.before_exit = run_directory.release
    try:
        run_stages(experiment, run_directory, stages, signals, profile_steps)
        experiment.workers.highest(0)  # none leaves before all are done
        if experiment.workers.is_chief:
            print(f"report of the run: {run_directory.report}")
    except (NotTrainedError, DataChangedError) as error:
        command_line.fail(str(error))
    except Stopped as error:
        print(f"stopped {error}: the same command goes on from there", file=sys.stderr)
        sys.exit(error.exit_status)
    except Exception as error:
        if experiment.workers.count > 1 and isinstance(error, LOST):
            raise  # this worker will start anew
        if not isinstance(error, (NonFiniteLossError, CheckpointError)):
            traceback.print_exc()
        checkpoint = run_directory.last_checkpoint()
        sys.exit(
            f"stopped: {command_line.one_line(error)} "
            + (f"The last good checkpoint is {checkpoint}; " if checkpoint else "There is no checkpoint yet; ")
            + "the same command goes on from there."
        )
    finally:
        run_directory.release()


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    command_line.define_config_flags(values)
    command_line.define_path(
        "run_dir", paths.folder_to_write, "Folder of the run; runs/<names of the gin files> if not given.", values
    )
    flags.DEFINE_list(
        "stages", [], "Stages to run, of cotrain,finetune,evaluate,export; all if not given.", flag_values=values
    )
    flags.DEFINE_bool(
        "dry_run", False, "Print what the run would need, and stop; the data need not be there.", flag_values=values
    )
    flags.DEFINE_bool("bindings", False, "With --dry_run: print all bindings, too.", flag_values=values)
    flags.DEFINE_list(
        "profile_steps", [], "FROM,TO: profiles these steps of each stage, for TensorBoard.", flag_values=values
    )


def main():
    """Runs this command."""
    command_line.main(train, define_flags, several_workers=True)


if __name__ == "__main__":
    main()
