"""Stage 2: fine-tuning of a classifier on attacked real and generated images (Rob-GAN, section 3.3, eq. 6 and 10)."""

from __future__ import annotations

from typing import Callable

import gin
import tensorflow as tf
from tensorflow import keras

from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.losses import class_loss, fine_tuning_loss
from robgan_tf.players.attacker import Attacker
from robgan_tf.players.classifiers import Classifier
from robgan_tf.stages.accumulation import over_parts
from robgan_tf.stages.optimization import apply_gradients, make_optimizer, scaled, update_average
from robgan_tf.stages.randomness import generator_inputs, step_seeds
from robgan_tf.stages.stage import Stage

_BATCH_NORMS = (BatchNorm, keras.layers.BatchNormalization)


@gin.configurable
class FineTuning(Stage):
    """Trains a classifier on attacked real images and, with a frozen generator, attacked generated ones.

    With no generator it is adversarial training (eq. 3), with neither generator nor attacker standard training.

    Args:
        classifier: the classifier, built: the discriminator's class branch (eq. 10), or any other (eq. 6).
        new_classifier: makes another classifier of the same shape, for the moving average of the weights.
        generator: the frozen generator, or None. Used in inference mode.
        num_examples: number of real training images.
        seed: seed of noise, labels and random starts.
        attacker: the attacker of real and generated images, or None.
        fake_weight: lambda, weight of the generated images; 0 without a generator.
        epochs: length of the stage in passes over the real images.
        batch_size: global number of real images in a batch, over all replicas; as many generated ones come on top.
        optimizer: makes the Keras optimizer from a learning rate, e.g. `@finetuning/Adam`.
        schedule: learning-rate schedule, e.g. `@finetuning/staged`.
        average_decay: decay of the moving average of the classifier's weights; 0 for none.
        batch_norm_training: whether the classifier's batch norm, if it has any, works on the statistics of the batch in
            the update. (The authors' code leaves it frozen.) The attack always sees the running averages.
        accumulation: number of parts that a replica's share of a batch is computed in, see `Stage`.
        jit_compile: see `Stage`.
    """

    name_of_stage = "finetuning"
    # Whether it learns; what it learns; whether that holds for other images, by which the best checkpoint is chosen.
    headlines = {"loss": "loss", "class_accuracy": "attacked right", "validation_accuracy": "validation right"}

    def __init__(
        self,
        classifier: Classifier,
        new_classifier: Callable[[], Classifier],
        generator: keras.Model | None,
        num_examples: int,
        seed: int,
        attacker: Attacker | None = gin.REQUIRED,
        fake_weight: float = gin.REQUIRED,
        epochs: float = gin.REQUIRED,
        batch_size: int = 128,
        optimizer: Callable = gin.REQUIRED,
        schedule: Callable = gin.REQUIRED,
        average_decay: float = 0.0,
        batch_norm_training: bool = True,
        accumulation: int = 1,
        jit_compile: bool = False,
    ):
        super().__init__(num_examples, epochs, batch_size, 1, accumulation, attacker, jit_compile)
        if fake_weight < 0 or (fake_weight > 0) != (generator is not None):
            raise ValueError(
                f"FineTuning.fake_weight (lambda) is {fake_weight} and there is {'no' if generator is None else 'a'} "
                f"generator: it must be > 0 with a generator and 0 without. Set Experiment.generator = None for "
                f"adversarial training."
            )
        if not 0 <= average_decay < 1:
            raise ValueError(f"FineTuning.average_decay must be in [0, 1), got {average_decay}.")
        if accumulation > 1 and any(isinstance(module, _BATCH_NORMS) for module in classifier.submodules):
            raise ValueError(
                f"FineTuning.accumulation = {accumulation} would give the classifier's batch norm the statistics of "
                f"parts of the batch: set it to 1 and lower FineTuning.batch_size instead."
            )
        self.classifier = classifier
        self.average_classifier = new_classifier() if average_decay else None
        self.generator = generator
        self.fake_weight = fake_weight
        self.seed = seed
        self.average_decay = average_decay
        self.batch_norm_training = batch_norm_training
        # The best validation so far: a checkpoint holds it, so that a resumed run does not start to choose anew.
        self.best_accuracy = tf.Variable(-1.0, trainable=False, name="best_accuracy")
        schedule = schedule(num_examples / self.images_per_step, self.total_steps)
        self.compile(optimizer=make_optimizer(optimizer, schedule, classifier.class_variables))

    @property
    def players(self) -> dict[str, keras.Model]:
        """The networks that the stage trains, by name."""
        return {"classifier": self.classifier}

    @property
    def optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """The classifier's optimizer."""
        return {"classifier": self.optimizer}

    @property
    def attacked_at_once(self) -> int:
        """Real images and as many generated ones."""
        return self.replica_batch_size * (1 if self.generator is None else 2)

    @property
    def result(self) -> Classifier:
        """The classifier to evaluate: the averaged one where there is an average."""
        return self.classifier if self.average_classifier is None else self.average_classifier

    def start(self):
        """Makes the average start at the classifier's weights, once these are those that the stage starts with."""
        if self.average_classifier is not None:
            self.average_classifier.set_weights(self.classifier.get_weights())

    def checkpoint_objects(self) -> dict:
        """Everything that influences the next step, but for the generator, which does not change."""
        objects = {"classifier": self.classifier, "optimizer": self.optimizer, "step": self.step}
        objects["best_accuracy"] = self.best_accuracy
        if self.average_classifier is not None:
            objects["average_classifier"] = self.average_classifier
        return objects

    def train_step(self, batch):
        """Attacks real and generated images, then updates the classifier on both.

        Args:
            batch: this replica's real images float32 [b, H, W, C] in [-1, 1] and labels int32 [b].

        Returns:
            Dictionary of scalar metrics over the global batch.
        """
        images, labels = batch
        attack_seed, fake_seed = step_seeds(self.seed, self.step, 2)
        if self.generator is not None:
            inputs = generator_inputs(
                fake_seed, self.replica_batch_size, self.generator.latent_dim, self.generator.num_classes
            )
            images = tf.concat([images, self.generator(inputs, training=False)], axis=0)
            labels = tf.concat([labels, inputs[1]], axis=0)
        images = self.attack(images, labels, attack_seed)

        self.classifier.power_iteration()
        # Real and generated images side by side, so that each part of the batch has its share of both.
        kinds = 1 if self.generator is None else 2
        batch = [*tf.split(images, kinds), *tf.split(labels, kinds)]
        _, (gradients, metrics) = over_parts(self.by_xla(self._differentiate), batch, self.accumulation)
        norm = apply_gradients(self.optimizer, gradients, self.classifier.class_variables)
        metrics["classifier_gradient_norm"] = self.share(norm)
        if self.average_classifier is not None:
            update_average(self.average_classifier.weights, self.classifier.weights, self.average_decay, self.step)
        self.step.assign_add(1)
        return {**self.sum_over_replicas(metrics), **self.weight_norms()}

    def _differentiate(self, *batch):
        """Gradients and metrics of (images, labels), or of (images, fake images, labels, fake labels)."""
        images, labels = (tf.concat(half, axis=0) for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]))
        real = batch[0].shape[0]
        with tf.GradientTape() as tape:
            logits = self.classifier(images, training=self.batch_norm_training)
            total = fine_tuning_loss(logits[:real], labels[:real], logits[real:], labels[real:], self.fake_weight)
            loss = total / self.batch_size
            target = scaled(self.optimizer, loss)
        metrics = {"loss": loss, "class_accuracy": self.accuracy(logits[:real], labels[:real])}
        if self.generator is not None:
            metrics["fake_class_accuracy"] = self.accuracy(logits[real:], labels[real:])
        return (), (tape.gradient(target, self.classifier.class_variables), metrics)

    def attack(self, images, labels, seed) -> tf.Tensor:
        """Returns adversarial images, made on the cross-entropy alone; with no attacker the images themselves."""

        def objective(images, labels):
            return class_loss(self.classifier(images, training=False), labels)

        with self.classifier.kernels_held():
            return self.attacked(images, labels, objective, seed)
