"""What co-training and fine-tuning share: counting steps, cutting batches, metrics over the global batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.spectral_norm import SpectralNormLayer
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.run.metrics import SHARE, Metric, declare, declare_of_player
from robgan_tf.training.accumulation import over_parts
from robgan_tf.training.fitting import Fitting
from robgan_tf.training.randomness import replica_seed

declare(
    Metric(
        "class_accuracy",
        "train accuracy",
        "Classification accuracy",
        group="health",
        unit=SHARE,
        tag="accuracy_train",
        description="Accuracy on training images, attacked where the stage has an attacker.",
        healthy="Accuracies rise and level off. If train accuracy rises while validation accuracy falls, the network "
        "overfits.",
    ),
)
PLAYER_METRICS = (
    Metric(
        "gradient_norm",
        "",
        "Gradient norm",
        description="Norm of the gradient of the last update in a step.",
        healthy="It keeps its order of magnitude. Single peaks are harmless, steady growth by a factor of ten is not.",
    ),
    Metric("weight_norm", "", "Weight norm", description="Norm of all weights that are trained."),
    Metric("learning_rate", "", "Learning rate"),
)


def declare_player(player: str):
    """Declares what every stage reports of a network that it trains."""
    declare_of_player(player, *PLAYER_METRICS)


class Stage(Fitting):
    """A training stage: networks, optimizers, and a `train_step` that updates them. `training.loop` drives it.

    Args:
        num_examples: number of real training images.
        epochs: length of the stage in passes over the real images; need not be whole.
        batch_size: global size of a micro-batch, over all replicas.
        micro_batches: micro-batches in a training step.
        accumulation: number of parts that a replica's share of a micro-batch is computed in, one after the other, where
            it does not fit in memory. Gradients are added up, and the update is the same but for rounding.
        attacker: the attacker, or None.
        jit_compile: whether XLA compiles attacks, gradients and, on one replica, updates: for GPUs; on CPUs slower.
        replays: updates on each micro-batch, each of which makes a step of the attack as well and counts as a pass over
            the images; None for one update, after an attack of its own.

    Attributes:
        step: int64 variable, number of training steps done.
        total_steps: number of training steps of the stage.
        images_per_step: number of real images that a training step takes.
        updates_per_step: updates in a training step, of the classifier or discriminator.
        attacks_apart: whether there is an attack with passes of its own, apart from those of the updates.
        steps_per_epoch: training steps in an epoch; need not be whole.
        strategy: the distribution strategy that it was made under.

    Raises:
        ValueError: for a length or batch size out of its range, a batch that replicas can't share, or an unfit attack.
    """

    # Names the stage in commands, checkpoints and metrics.
    name_of_stage: str
    # The metrics to show while it trains.
    headlines: tuple[str, ...]

    def __init__(
        self,
        num_examples: int,
        epochs: float,
        batch_size: int,
        micro_batches: int,
        accumulation: int,
        attacker: Attack | None,
        jit_compile: bool,
        replays: int | None = None,
    ):
        self.strategy = tf.distribute.get_strategy()
        replicas = self.strategy.num_replicas_in_sync
        if batch_size % replicas:
            raise ValueError(
                f"{type(self).__name__}.batch_size is the batch over all replicas and must be a positive multiple of "
                f"their number, {replicas}; got {batch_size}."
            )
        if batch_size // replicas % accumulation:
            raise ValueError(
                f"{type(self).__name__}.accumulation must divide the batch of a replica, {batch_size // replicas}; got "
                f"{accumulation}."
            )
        if attacker is not None:
            if not isinstance(attacker, Attack):
                raise ValueError(
                    f"{type(self).__name__}.attacker must be an attack such as @Attacker(), or None; got {attacker!r}."
                )
            attacker.check_training()
            attacker.check_xla(f"{type(self).__name__}.jit_compile", jit_compile)
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.replica_batch_size = batch_size // replicas
        self.micro_batches = micro_batches
        self.accumulation = accumulation
        self.attacker = attacker
        self.attacks_apart = attacker is not None and replays is None
        self.use_xla = jit_compile
        self.images_per_step = batch_size * micro_batches
        self.updates_per_step = micro_batches * (replays or 1)
        images_of_updates = batch_size * self.updates_per_step
        self.steps_per_epoch = num_examples / images_of_updates
        self.total_steps = max(round(epochs * num_examples / images_of_updates), 1)
        self.step = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    @property
    def steps_done(self) -> int:
        """Number of training steps done."""
        return int(self.step.numpy())

    @property
    def players(self) -> dict[str, keras.Model]:
        """The networks that the stage trains, by name."""
        raise NotImplementedError

    @property
    def optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """The optimizers of the players, by the same names."""
        raise NotImplementedError

    @property
    def attacked_at_once(self) -> int:
        """Number of images that a replica attacks in a micro-batch."""
        return self.replica_batch_size

    def with_images_at_once(self, images: int) -> Stage:
        """Returns this stage with steps of one micro-batch of `images` on each replica, in one part.

        It has the same networks, optimizers and counter: to see what a step takes where a whole one would take long.
        """
        other = copy.copy(self)
        other.updates_per_step //= self.micro_batches
        other.micro_batches = other.accumulation = 1
        other.replica_batch_size = images
        other.batch_size = other.images_per_step = images * self.strategy.num_replicas_in_sync
        return other

    def checkpoint_objects(self) -> dict:
        """Everything that influences the next step, by the names that checkpoints have."""
        raise NotImplementedError

    def train_step(self, batch) -> dict:
        """Updates the networks on a replica's share of a batch; returns scalar metrics over the global batch."""
        raise NotImplementedError

    def step_function(self) -> Callable:
        """Returns a compiled function that does a training step on all replicas and returns its metrics.

        Its argument is an iterator of batches, as the strategy distributes them.
        """

        def take_step(iterator):
            metrics = self.strategy.run(self.train_step, args=(next(iterator),))
            # They are those of the global batch on every replica.
            return {name: self.strategy.experimental_local_results(value)[0] for name, value in metrics.items()}

        return tf.function(take_step, autograph=False)

    def layer_sigmas(self) -> dict[str, float]:
        """Returns sigma, the largest singular value, of each spectrally normalised kernel; none without such layers.

        Computed from the weights as they are: to be called now and then, outside of a training step.
        """
        names = list(self._spectral_norm_layers())
        return dict(zip(names, self._sigmas().numpy().tolist())) if names else {}

    @tf.function(autograph=False)
    def _sigmas(self) -> tf.Tensor:
        return tf.stack([layer.sigma() for layer in self._spectral_norm_layers().values()])

    def _spectral_norm_layers(self) -> dict[str, SpectralNormLayer]:
        return {
            module.name: module
            for model in self.players.values()
            for module in model.submodules
            if isinstance(module, SpectralNormLayer) and module.built
        }

    def learning_rates(self) -> dict[str, float]:
        """Returns the learning rate of each player's last update."""
        # As a tensor first: on several replicas it is a variable with a copy on each.
        rates = {name: tf.convert_to_tensor(optimizer.learning_rate) for name, optimizer in self.optimizers.items()}
        return {f"{name}_learning_rate": float(rate) for name, rate in rates.items()}

    def signs_of_collapse(self, metrics: dict) -> list[str]:
        """Returns what in an entry of the metrics tells that the training may have failed, in words; mostly nothing."""
        return []

    def split(self, images, labels) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Cuts this replica's batch into micro-batches of images and labels.

        Every `micro_batches`-th image goes to the same one: so each micro-batch holds the same images, over all
        replicas, however many replicas there are.
        """

        def cut(tensor):
            shape = [self.replica_batch_size, self.micro_batches, *tensor.shape[1:]]
            return tf.unstack(tf.reshape(tensor, shape), axis=1)

        return list(zip(cut(images), cut(labels)))

    def attacked(self, images, others: Sequence, objective: Callable, seed) -> tf.Tensor:
        """Returns adversarial images; with no attacker the images themselves.

        Args:
            images: float32 [b, H, W, C] in [-1, 1], of this replica.
            others: tensors [b, ...] that the objective needs beside the images, such as their classes.
            objective: maps clean images and `others` to a function of images, which the attacker maximises, [b].
            seed: int32 [2], the same on all replicas, of what is random in the attack.
        """
        if self.attacker is None:
            return images

        seed = replica_seed(seed)

        def attack(start, images, *others):
            return self.attacker.ascend(start, images, objective(images, *others), seed), ()

        attack = self.maybe_compile(attack)
        start = self.attacker.start(images, seed)
        parts = math.gcd(self.accumulation, images.shape[0])  # image grids hold fewer images than a batch
        adversarial, _ = over_parts(attack, (start, images, *others), parts)
        return adversarial

    def maybe_compile(self, function: Callable) -> Callable:
        """Returns `function` for XLA to compile, where the stage is to do so.

        It must make no use of the other replicas, and under a strategy assign nothing.
        """
        return tf.function(function, jit_compile=True, autograph=False) if self.use_xla else function

    def as_one_graph(self, function: Callable) -> Callable:
        """Returns `function` with one graph that all of its calls share, where that is possible.

        A third less memory, and half the time to the first step. Under a strategy optimizers, batch norm and u must be
        updated at the top level of the replica's function.
        """
        if tf.distribute.has_strategy():
            return function
        return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})

    def average(self, per_image):
        """Returns this replica's share of the mean over the global micro-batch of `per_image` [b].

        The sum over the replicas is the mean. A mean over each replica's own images would be too large by the number of
        replicas, since gradients are summed.
        """
        return tf.reduce_sum(per_image) / self.batch_size

    def accuracy(self, logits, labels):
        """Returns this replica's share of the accuracy of class `logits` [b, K] over the global micro-batch."""
        # int64: GPUs compare int32, as which TensorFlow keeps shapes, in the memory of the host.
        hits = tf.equal(tf.argmax(logits, axis=-1), tf.cast(labels, tf.int64))
        return self.average(tf.cast(hits, tf.float32))

    def share(self, scalar):
        """Returns this replica's share of a scalar that is the same on every replica."""
        return scalar / tf.distribute.get_strategy().num_replicas_in_sync

    def sum_over_replicas(self, metrics: dict) -> dict:
        """Adds up the shares of all replicas, in a single reduction."""
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(list(metrics.values())))
        return dict(zip(metrics, tf.unstack(total)))

    def weight_norms(self) -> dict:
        """Returns the norm of all weights of each player that is trained, the same on every replica.

        After a gradient that is not finite it is not finite either, even where the loss still is.
        """
        norms = {name: tf.linalg.global_norm(model.trainable_variables) for name, model in self.players.items()}
        return {f"{name}_weight_norm": norm for name, norm in norms.items()}
