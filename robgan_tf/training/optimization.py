"""What both stages need to update weights: learning-rate schedules, gradient steps, moving averages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Callable, Union

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.values import checked, number, several

# Without what came after TensorFlow 2.15: gin writes all defaults to config.gin, which the other must be able to read.
adam = gin.external_configurable(keras.optimizers.Adam, "Adam", denylist=["adaptive_epsilon"])
sgd = gin.external_configurable(keras.optimizers.SGD, "SGD")

schedules = keras.optimizers.schedules

# What the stages take for a schedule, see `learning_rate`.
Schedule = Union[Callable, keras.optimizers.schedules.LearningRateSchedule, float]


# Learning-rate schedules. They are functions of the optimizer's own count of updates, so that a change of rate leaves
# the moments alone and a resumed run continues where it was. `initial` comes from gin; the stage tells them how many
# updates an epoch of real images and the whole stage have.


@gin.configurable
@checked(initial=number(above=0))
def fixed(updates_per_epoch: float, updates: int, initial: float = gin.REQUIRED):
    """The same rate throughout."""
    del updates_per_epoch
    return schedules.PolynomialDecay(initial, updates, end_learning_rate=initial)


@gin.configurable
@checked(initial=number(above=0))
def linear(updates_per_epoch: float, updates: int, initial: float = gin.REQUIRED):
    """Linearly to zero at the end of the stage (SN-GAN)."""
    del updates_per_epoch
    return schedules.PolynomialDecay(initial, updates, end_learning_rate=0.0)


@gin.configurable
@checked(initial=number(above=0), every_epochs=number(above=0))
def halving(updates_per_epoch: float, updates: int, initial: float = gin.REQUIRED, every_epochs: float = 50):
    """Halved every `every_epochs` epochs (the authors' code)."""
    del updates
    return schedules.ExponentialDecay(initial, max(round(every_epochs * updates_per_epoch), 1), 0.5, staircase=True)


@gin.configurable
@checked(initial=number(above=0), epochs=several(number(above=0)), factor=number(above=0))
def staged(
    updates_per_epoch: float,
    updates: int,
    initial: float = gin.REQUIRED,
    epochs: Sequence[float] = (20, 20, 10, 10),
    factor: float = 0.1,
):
    """Multiplied by `factor` after each entry of `epochs` (the authors' fine-tuning).

    Raises:
        ValueError: where the entries of `epochs` do not add up to the stage's length.
    """
    # A stage is a whole number of steps, each with several updates of the discriminator: not quite the epochs given.
    if abs(sum(epochs) * updates_per_epoch - updates) > max(0.5, 0.01 * updates):
        raise ValueError(
            f"staged.epochs = {tuple(epochs)} add up to {sum(epochs):g} epochs, the stage has "
            f"{updates / updates_per_epoch:g}: make them equal."
        )
    borders = [round(sum(epochs[: index + 1]) * updates_per_epoch) for index in range(len(epochs) - 1)]
    return schedules.PiecewiseConstantDecay(borders, [initial * factor**index for index in range(len(epochs))])


@gin.configurable
@checked(peak=number(above=0), warm_up_epochs=number(least=0), final_share=number(least=0, most=1))
def cosine(
    updates_per_epoch: float,
    updates: int,
    peak: float = gin.REQUIRED,
    warm_up_epochs: float = 0.0,
    final_share: float = 0.0,
):
    """From 0 in a line to `peak`, then by half a cosine to `final_share` of it (Loshchilov & Hutter, ICLR 2017).

    Raises:
        ValueError: where the warm-up (Goyal et al. 2017) is as long as the stage or longer.
    """
    warm_up = round(warm_up_epochs * updates_per_epoch)
    if warm_up >= updates:
        raise ValueError(
            f"cosine.warm_up_epochs = {warm_up_epochs:g} must be less than the stage, {updates / updates_per_epoch:g} "
            f"epochs."
        )
    if not warm_up:
        return schedules.CosineDecay(peak, updates, final_share)
    return schedules.CosineDecay(0.0, updates - warm_up, final_share, warmup_target=peak, warmup_steps=warm_up)


@keras.utils.register_keras_serializable("robgan_tf")
class OneCycle(schedules.LearningRateSchedule):
    """The rate of `one_cycle`, by the update.

    Args:
        first: rate of the first update.
        peak: the highest rate.
        last: rate of the last update.
        peak_update: the update with the highest rate, counted from 0; need not be whole.
        last_update: the last one.
    """

    def __init__(self, first: float, peak: float, last: float, peak_update: float, last_update: float):
        self.first, self.peak, self.last = first, peak, last
        self.peak_update, self.last_update = peak_update, last_update

    def __call__(self, step):
        """Returns the rate of the update after `step` updates, a float32 scalar."""
        step = tf.minimum(tf.cast(step, tf.float32), self.last_update)
        rising = tf.math.divide_no_nan(step, self.peak_update)
        falling = tf.math.divide_no_nan(step - self.peak_update, self.last_update - self.peak_update)
        rising_rate = self.peak + (self.first - self.peak) * (1.0 + tf.cos(math.pi * rising)) / 2.0
        falling_rate = self.last + (self.peak - self.last) * (1.0 + tf.cos(math.pi * falling)) / 2.0
        return tf.where(step < self.peak_update, rising_rate, falling_rate)

    def get_config(self):
        """Returns the arguments, as Keras asks for them."""
        names = ("first", "peak", "last", "peak_update", "last_update")
        return {name: getattr(self, name) for name in names}


@gin.configurable
@checked(
    peak=number(above=0),
    warm_up_share=number(least=0, below=1),
    first_divisor=number(least=1),
    last_divisor=number(least=1),
)
def one_cycle(
    updates_per_epoch: float,
    updates: int,
    peak: float = gin.REQUIRED,
    warm_up_share: float = 0.25,
    first_divisor: float = 25.0,
    last_divisor: float = 1e4,
):
    """Up to `peak` by half a cosine and down by another (Smith & Topin 2019; PyTorch's OneCycleLR of one phase down).

    It starts at first = peak / first_divisor, and ends, in the last update, at first / last_divisor.
    """
    del updates_per_epoch
    first = peak / first_divisor
    return OneCycle(first, peak, first / last_divisor, max(warm_up_share * updates - 1.0, 0.0), updates - 1.0)


# Rates and optimizer of the authors' code, for those who name no others. Adam's betas are those of co-training.
cotraining_adam = partial(keras.optimizers.Adam, beta_1=0.0, beta_2=0.9)
cotraining_schedule = partial(halving, initial=2e-4, every_epochs=50)


def finetuning_schedule(updates_per_epoch: float, updates: int):
    """From 1e-3, divided by ten after a third, two thirds and five sixths of the stage: 20, 40, 50 of 60 epochs."""
    borders = [round(updates * share) for share in (1 / 3, 2 / 3, 5 / 6)]
    return schedules.PiecewiseConstantDecay(borders, [1e-3, 1e-4, 1e-5, 1e-6])


def learning_rate(schedule: Schedule, updates_per_epoch: float, updates: int):
    """Returns a Keras schedule of what the stages take for one.

    Args:
        schedule: a function of the two numbers that follow, such as `linear`; a Keras schedule; or a rate that stays.
        updates_per_epoch: updates in an epoch of real images.
        updates: updates of the whole stage.

    Raises:
        ValueError: for something else, or a rate that is not a positive number.
    """
    if isinstance(schedule, schedules.LearningRateSchedule):
        return schedule
    if callable(schedule):
        return schedule(updates_per_epoch, updates)
    if isinstance(schedule, (int, float)) and 0 < schedule < math.inf:
        return fixed(updates_per_epoch, updates, initial=schedule)
    raise ValueError(
        f"A learning rate must be a positive number, a Keras schedule or a function such as @linear, got {schedule!r}."
    )


def make_optimizer(optimizer: Callable, schedule, variables):
    """Returns an optimizer for `variables`, with loss scaling under float16.

    Weight decay, where the optimizer has it, spares norms and biases. Keras's is decoupled from the gradient: w <- w -
    rate * decay * w beside the step. The 5e-4 of PyTorch's SGD, which go through its momentum m, are 5e-4 / (1 - m)
    here: 5e-3 with m = 0.9.

    Its own variables are made here: they must exist before a graph is traced and before a checkpoint is restored.

    Args:
        optimizer: function of `learning_rate`, e.g. gin's `@Adam`.
        schedule: learning-rate schedule.
        variables: the variables that it will update.
    """
    made = optimizer(learning_rate=schedule)
    # Where there is a GPU, Keras has XLA compile the update of each weight by itself. That fails where libdevice is not
    # found (https://github.com/keras-team/tf-keras/issues/62), has run out of threads on several GPUs
    # (https://github.com/tensorflow/tensorflow/issues/56423), and launches as many programs as there are weights.
    # `apply_gradients` compiles all of them as one, where it is to.
    made.jit_compile = False
    if getattr(made, "weight_decay", None):
        made.exclude_from_weight_decay(var_list=list(filter(_is_norm_or_bias, variables)))
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        made = keras.mixed_precision.LossScaleOptimizer(made)
    made.build(variables)
    return made


def _is_norm_or_bias(variable) -> bool:
    # Conditional batch norm has a row of gamma and beta for each class.
    return variable.shape.rank < 2 or variable.name.split("/")[-1].split(":")[0] in ("gamma", "beta")


def scaled(optimizer, loss):
    """Returns the loss to differentiate: under float16 multiplied, so that small gradients do not vanish."""
    return optimizer.get_scaled_loss(loss) if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer) else loss


def apply_gradients(optimizer, gradients, variables, compiled: bool = False):
    """Does an update of `variables` with this replica's share of the gradients of a loss that `scaled` gave.

    Args:
        optimizer: the optimizer.
        gradients: a gradient for each of `variables`.
        variables: the weights.
        compiled: whether XLA compiles the update, as one program; not under a strategy, where an optimizer in a
            function of its own would not reach the other replicas.

    Returns:
        The norm of all gradients over the global batch, a float32 scalar, the same on every replica. Under float16 it
        is 0 where the gradients overflowed and the update is left out.
    """
    if compiled and not tf.distribute.has_strategy():
        update = partial(apply_gradients, optimizer, variables=variables)
        return tf.function(lambda *found: update(found), autograph=False, jit_compile=True)(*gradients)
    loss_scale = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
    if loss_scale:
        gradients = optimizer.get_unscaled_gradients(gradients)
    # Added up over the replicas here and not by the optimizer, since the norm of a sum is not the sum of the norms.
    gradients = sum_of_replicas(gradients)
    optimizer.apply_gradients(zip(gradients, variables), skip_gradients_aggregation=True)
    norm = tf.linalg.global_norm(gradients)
    return tf.where(tf.math.is_finite(norm), norm, 0.0) if loss_scale else norm


def sum_of_replicas(gradients: Sequence) -> list[tf.Tensor]:
    """Returns the sum over all replicas of each gradient, dense, the same on every replica."""
    # Dense: the gradient of an embedding has a row for each image, several of one class, and in each batch of other
    # classes. XLA would compile an update anew for each number of different rows.
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients) if context.num_replicas_in_sync > 1 else gradients


def assign_in_replica(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]):
    """Assigns to each variable a value that is the same on every replica; see `update_average`."""

    def update(strategy, *values):
        for variable, value in zip(variables, values):
            strategy.extended.update(variable, lambda one, new: one.assign(new), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=tuple(values))


def update_average(averages: Sequence[tf.Variable], weights: Sequence[tf.Variable], decay: float, step):
    """Moves `averages` towards `weights`: average <- d * average + (1 - d) * weight.

    d is `decay`, or (1 + step) / (10 + step) where that is smaller: else a short training would give little more than
    an average of random initial weights (as `tf.train.ExponentialMovingAverage` does with `num_updates`).

    To be called in replica context at the top level of a training step. Keras makes its variables without a rule how
    replicas agree on an assigned value; all hold the same here, so each device updates its own copy.
    """
    step = tf.cast(step, tf.float32)
    rest = 1.0 - tf.minimum(decay, (1.0 + step) / (10.0 + step))

    def move(average, weight, rest):
        return average.assign_add(rest * (weight - average))

    def update(strategy, rest):
        for average, weight in zip(averages, weights):
            strategy.extended.update(average, move, args=(weight, rest))

    tf.distribute.get_replica_context().merge_call(update, args=(rest,))
