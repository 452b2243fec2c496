"""Stage 1: generator, discriminator and attacker play against each other (Rob-GAN, section 3.3, Fig. 1)."""

from __future__ import annotations

from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.losses.cotraining import CoTrainingLosses, Weights, split
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.training import health, randomness
from robgan_tf.training.accumulation import over_parts
from robgan_tf.training.diff_augment import Augmentation
from robgan_tf.training.optimization import (
    Schedule,
    apply_gradients,
    cotraining_adam,
    cotraining_schedule,
    learning_rate,
    make_optimizer,
    scaled,
    update_average,
)
from robgan_tf.training.penalties import DiscriminatorBatch, Penalty
from robgan_tf.training.stage import Stage, declare_player
from robgan_tf.training.standing_statistics import StandingStatistics
from robgan_tf.training.top_k import TopK
from robgan_tf.values import checked, either, made, maker, number, optional, switch, whole

declare_player("generator")
declare_player("discriminator")


@gin.configurable
@checked(
    epochs=number(above=0),
    batch_size=whole(1),
    discriminator_steps=whole(1),
    average_decay=number(least=0, below=1),
    accumulation=whole(1),
    losses=optional(made(CoTrainingLosses, "@split()")),
    penalty=optional(made(Penalty, "@r1()")),
    augmentation=optional(made(Augmentation, "@diff_augment()")),
    jit_compile=switch(),
    balanced_labels=switch(),
    top_k=optional(made(TopK, "@top_k()")),
    generator_optimizer=optional(maker("@generator/Adam")),
    optimizer=maker("@cotraining/Adam"),
    generator_schedule=either(maker("@cotraining/linear"), number(above=0)),
    discriminator_schedule=either(maker("@cotraining/linear"), number(above=0)),
)
class CoTraining(Stage):
    """Trains the three players; with `attacker=None` it trains a standard GAN.

    A training step takes `discriminator_steps` micro-batches of real images and does one update of the generator, then
    for each micro-batch an attack and an update of the discriminator.

    Args:
        generator: the generator, built.
        average_generator: another generator of the same shape, e.g. `generator.another()`. It gets the moving average
            of the generator's weights, and is the one to sample from.
        discriminator: the discriminator, built.
        num_examples: number of real training images.
        seed: seed of noise, labels and random starts.
        attacker: the attacker of real images, or None.
        losses: the losses of the three players, `@split()`, `@ac_gan()` or `@projection()`; None for `split`.
        penalty: what is added to the discriminator's loss, `@r1()`, `@wgan_gp()` or another `Penalty`; None for none.
        epochs: length of the stage in passes over the real images.
        batch_size: global size of a micro-batch, over all replicas.
        discriminator_steps: discriminator updates per generator update (n_dis).
        optimizer: makes the Keras optimizer of either player from a learning rate, e.g. `@cotraining/Adam`.
        generator_schedule: learning rate of the generator, a number or a schedule such as `@cotraining/linear`.
        discriminator_schedule: learning rate of the discriminator, likewise.
        average_decay: decay of the moving average of the generator's weights for each generator update.
        accumulation: number of parts that a replica's share of a micro-batch is computed in, see `Stage`.
        jit_compile: see `Stage`.
        augmentation: what the discriminator sees all images through, `@diff_augment()` or another `Augmentation`; None
            for none. Attacks go through it: they change the images themselves, within the ball, to mislead the
            discriminator as it sees them in that step.
        generator_optimizer: makes the generator's optimizer; None for `optimizer`.
        balanced_labels: whether each batch of generated images has equally many of each class, give or take one.
        top_k: which generated images the generator learns from, `@top_k()`; None for all. Its loss is shown over all.

    Raises:
        ValueError: as `Stage`, and for a decay out of its range or a penalty that does not go with the discriminator.
    """

    name_of_stage = "cotraining"
    # What it is for; whether the discriminator still errs, so that the generator can learn; whether the generator
    # follows its labels, without which fine-tuning has no use for its images.
    headlines = ("class_accuracy", "fake_accuracy", "generator_class_accuracy")

    def __init__(
        self,
        generator: keras.Model,
        average_generator: keras.Model,
        discriminator: keras.Model,
        num_examples: int,
        seed: int = 0,
        attacker: Attack | None = gin.REQUIRED,
        losses: CoTrainingLosses | None = None,
        penalty: Penalty | None = None,
        epochs: float = gin.REQUIRED,
        batch_size: int = 64,
        discriminator_steps: int = 5,
        optimizer: Callable = cotraining_adam,
        generator_schedule: Schedule = cotraining_schedule,
        discriminator_schedule: Schedule = cotraining_schedule,
        average_decay: float = 0.999,
        accumulation: int = 1,
        jit_compile: bool = False,
        augmentation: Augmentation | None = None,
        generator_optimizer: Callable | None = None,
        balanced_labels: bool = False,
        top_k: TopK | None = None,
    ):
        super().__init__(num_examples, epochs, batch_size, discriminator_steps, accumulation, attacker, jit_compile)
        if penalty is not None:
            penalty.check(discriminator)
        self.generator = generator
        self.average_generator = average_generator
        self.discriminator = discriminator
        self.objectives = losses or split(Weights())
        self.penalty = penalty
        self.augmentation = augmentation
        self.balanced_labels = balanced_labels
        self.top_k = top_k
        self.seed = seed
        self.average_decay = average_decay

        def optimizer_of(player, optimizer, schedule, updates):
            rate = learning_rate(schedule, self.steps_per_epoch * updates, self.total_steps * updates)
            return make_optimizer(optimizer, rate, player.trainable_variables)

        generator_optimizer = generator_optimizer or optimizer
        self.generator_optimizer = optimizer_of(generator, generator_optimizer, generator_schedule, 1)
        self.discriminator_optimizer = optimizer_of(
            discriminator, optimizer, discriminator_schedule, self.micro_batches
        )
        average_generator.set_weights(generator.get_weights())
        self._standing_statistics = StandingStatistics(average_generator)

    def finish(self):
        """See `Stage.finish`: the averaged generator gets its batch-norm statistics."""
        self.standardize_average_generator()

    @property
    def players(self) -> dict[str, keras.Model]:
        """The networks that the stage trains, by name."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    @property
    def optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """The optimizers of the players."""
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    def checkpoint_objects(self) -> dict:
        """Everything that influences the next step."""
        optimizers = {f"{name}_optimizer": optimizer for name, optimizer in self.optimizers.items()}
        return {**self.players, **optimizers, "average_generator": self.average_generator, "step": self.step}

    def signs_of_collapse(self, metrics: dict) -> list[str]:
        """See `Stage`."""
        return health.signs_of_collapse(metrics, self.total_steps, self.generator.num_classes)

    def train_step(self, batch):
        """One generator update, then for each micro-batch an attack and a discriminator update.

        Args:
            batch: this replica's real images float32 [n * b, H, W, C] in [-1, 1] and labels int32 [n * b], with n
                discriminator steps and b images per replica in a micro-batch.

        Returns:
            Dictionary of scalar metrics over the global batch; those of the discriminator are of its last update.
        """
        generator_seed, *seeds = randomness.step_seeds(self.seed, self.step, 1 + 2 * self.micro_batches)
        play_round = self.as_one_graph(self.play_round)

        metrics = self.update_generator(generator_seed)
        for images, labels in self.split(*batch):
            attack_seed, fake_seed, *seeds = seeds
            metrics.update(play_round(images, labels, attack_seed, fake_seed))
        self.update_average_generator()
        self.step.assign_add(1)
        return {**self.sum_over_replicas(metrics), **self.weight_norms()}

    def play_round(self, images, labels, attack_seed, fake_seed) -> dict:
        """Attacks a micro-batch of real images, then updates the discriminator; returns its metrics."""
        adversarial = self.attack(images, labels, attack_seed, *self.view(fake_seed, randomness.AUGMENTED_REAL))
        # Else the generator's images would be made, and kept, while the attack still needs its own memory.
        with tf.control_dependencies([adversarial]):
            return self.update_discriminator(adversarial, labels, fake_seed)

    def update_generator(self, seed) -> dict:
        """Updates the generator against the discriminator as it is (eq. 9: maximise L_C2 - L_S)."""
        optimizer, variables = self.generator_optimizer, self.generator.trainable_variables

        def judge(images, labels):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                fake = self.discriminator(images, training=False)
                loss = self.average(self.objectives.generator(fake, labels))
                target = scaled(optimizer, loss)
            metrics = {"generator_loss": loss, "generator_class_accuracy": self.accuracy(fake.classes, labels)}
            return (tape.gradient(target, images), self.objectives.source_logits(fake, labels)), metrics

        # In two legs, back to the images and on from there: the discriminator, which needs the most memory, can work in
        # parts, and the generator sees the whole batch, which its batch norm needs.
        with tf.GradientTape() as tape:
            images, labels = self.generated_images(seed)
        (gradients, scores), metrics = over_parts(self.maybe_compile(judge), (images, labels), self.accumulation)
        if self.top_k is not None:
            # No image has a part in another's verdict: the weight of a loss is that of its gradient.
            chosen = self.top_k.weights(scores, tf.cast(self.step, tf.float32) / self.steps_per_epoch)
            gradients *= chosen[:, tf.newaxis, tf.newaxis, tf.newaxis]
        gradients = tape.gradient(images, variables, output_gradients=gradients)
        norm = apply_gradients(optimizer, gradients, variables, self.use_xla)
        return {**metrics, "generator_gradient_norm": self.share(norm)}

    def attack(self, images, labels, seed, *view) -> tf.Tensor:
        """Returns adversarial real images, made through the augmentation; with no attacker the images themselves."""

        def objective(images, labels, *view):
            del images  # the clean ones
            judge = self.discriminator
            return lambda images: self.objectives.attack(judge(self.seen(images, *view), training=False), labels)

        with self.discriminator.cached_kernels():
            return self.attacked(images, [labels, *view], objective, seed)

    def view(self, seed, use) -> tuple[tf.Tensor, ...]:
        """The augmentation's random numbers for this replica's images of one use; empty without an augmentation."""
        if self.augmentation is None:
            return ()
        return (randomness.uniform_numbers(seed, use, self.replica_batch_size, self.augmentation.numbers),)

    def seen(self, images, *view) -> tf.Tensor:
        """Returns images as the discriminator sees them, by what `view` returned."""
        return self.augmentation(images, *view) if view else images

    def update_discriminator(self, images, labels, seed) -> dict:
        """Updates the discriminator on (adversarial) real `images` and as many generated ones (eq. 8 or 9)."""
        optimizer, variables = self.discriminator_optimizer, self.discriminator.trainable_variables
        source_logits = self.objectives.source_logits

        def differentiate(images, fake_images, labels, fake_labels, *uniform):
            with tf.GradientTape() as tape:
                # One pass for both: no layer of the discriminator couples the images of a batch.
                verdict = self.discriminator(tf.concat([images, fake_images], axis=0), training=True)
                real, fake = (type(verdict)(*half) for half in zip(*(tf.split(logits, 2) for logits in verdict)))
                loss = total = self.average(self.objectives.discriminator(real, fake, labels, fake_labels))
                if self.penalty is not None:
                    seen = DiscriminatorBatch(images, fake_images, labels, fake_labels, *uniform)
                    penalty = self.average(self.penalty(self.discriminator, seen, source_logits))
                    total = loss + penalty
                target = scaled(optimizer, total)
            metrics = {
                "discriminator_loss": loss,
                "real_accuracy": self.average(tf.cast(source_logits(real, labels) > 0, tf.float32)),
                "fake_accuracy": self.average(tf.cast(source_logits(fake, fake_labels) < 0, tf.float32)),
                "class_accuracy": self.accuracy(real.classes, labels),
            }
            if self.penalty is not None:
                metrics["discriminator_penalty"] = penalty
            # A loss may leave out one of the heads.
            gradients = tape.gradient(target, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return (), (gradients, metrics)

        fake_images, fake_labels = self.generated_images(seed)
        images = self.seen(images, *self.view(seed, randomness.AUGMENTED_REAL))
        self.discriminator.power_iteration()
        batch = (images, fake_images, labels, fake_labels)
        if self.penalty is not None:
            batch += (randomness.uniform_numbers(seed, randomness.PENALTY, self.replica_batch_size),)
        _, (gradients, metrics) = over_parts(self.maybe_compile(differentiate), batch, self.accumulation)
        norm = apply_gradients(optimizer, gradients, variables, self.use_xla)
        return {**metrics, "discriminator_gradient_norm": self.share(norm)}

    def update_average_generator(self):
        """Moves the averaged generator towards the generator."""
        averages, weights = self.average_generator.trainable_variables, self.generator.trainable_variables
        update_average(averages, weights, self.average_decay, self.step)

    def generated_images(self, seed) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns this replica's generated images of a micro-batch, as the discriminator sees them, and classes."""
        sizes = self.replica_batch_size, self.generator.latent_dim, self.generator.num_classes
        noise, labels = randomness.generator_inputs(seed, *sizes, self.balanced_labels)
        images = self.generator((noise, labels), training=True)
        return self.seen(images, *self.view(seed, randomness.AUGMENTED_FAKE)), labels

    def standardize_average_generator(self, batches: int = 50, batch_size: int = 128):
        """Gives the averaged generator batch-norm statistics of its own, see `StandingStatistics`.

        To be called before the averaged generator is sampled from, outside of a training step.
        """
        self._standing_statistics.take(randomness.step_seeds(self.seed, 0, batches), batch_size)
