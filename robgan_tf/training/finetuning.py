"""Stage 2: fine-tuning of a classifier on attacked real and generated images (Rob-GAN, section 3.3, eq. 6 and 10)."""

from __future__ import annotations

from functools import partial
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.losses.finetuning import fine_tuning_loss, smoothed
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.classifiers.class_branch import ClassBranch, Classifier
from robgan_tf.players.classifiers.keras_classifier import as_classifier
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.training import health
from robgan_tf.training.accumulation import over_parts
from robgan_tf.training.batch_composition import Composition, compose, real_and_generated
from robgan_tf.training.free_training import FreeTraining
from robgan_tf.training.generated import FromGenerator, GeneratedImages
from robgan_tf.training.mixing import Mixing
from robgan_tf.training.objectives import Adversarial, Objective
from robgan_tf.training.optimization import (
    Schedule,
    apply_gradients,
    finetuning_schedule,
    learning_rate,
    make_optimizer,
    scaled,
    update_average,
)
from robgan_tf.training.randomness import step_seeds
from robgan_tf.training.stage import Stage, declare_player
from robgan_tf.training.weight_perturbation import AdversarialWeightPerturbation
from robgan_tf.values import checked, either, made, maker, number, optional, switch, whole

_ADVERSARIAL = Adversarial()
_BATCH_NORMS = (BatchNorm, keras.layers.BatchNormalization)

declare_player("classifier")


@gin.configurable
@checked(
    weight_perturbation=optional(made(AdversarialWeightPerturbation, "@awp()")),
    mixing=optional(made(Mixing, "@cutmix()")),
    free_training=optional(made(FreeTraining, "@free()")),
    fake_weight=optional(number(least=0)),
    generated_share=optional(number(least=0, most=1)),
    epochs=number(above=0),
    batch_size=whole(1),
    average_decay=number(least=0, below=1),
    batch_norm_training=switch(),
    label_smoothing=number(least=0, below=1),
    accumulation=whole(1),
    jit_compile=switch(),
    optimizer=maker("@finetuning/Adam"),
    schedule=either(maker("@finetuning/linear"), number(above=0)),
)
class FineTuning(Stage):
    """Trains a classifier on attacked real images and, with a source of them, attacked generated ones.

    Without generated images it is adversarial training (eq. 3), without an attacker too standard training.

    Args:
        classifier: the classifier, built: the discriminator or its class branch (eq. 10), or any other (eq. 6): a
            `Classifier`, or a Keras model from images float32 [B, H, W, C] in [-1, 1] to class logits [B, K].
        generated: where generated images come from, e.g. a generator, which stays as it is; or None.
        num_examples: number of real training images.
        seed: seed of noise, labels and random starts.
        attacker: the attacker of real and generated images, or None.
        objective: what is minimised, and what the attacker maximises: `@adversarial()`, `@trades()`, `@mart()` or
            `@lipschitz_regularised()`.
        fake_weight: lambda, weight of the generated images; 0 without any. None for 0.5 with and 0 without them.
        epochs: length of the stage in passes over the real images; with a `generated_share` an epoch has as many
            images, of both kinds, and with `free_training` each replay counts.
        batch_size: global number of real images in a batch, over all replicas; with a `generated_share` of all images.
        optimizer: makes the Keras optimizer from a learning rate, e.g. `@finetuning/Adam`.
        schedule: learning rate, a number or a schedule such as `@finetuning/staged`.
        average_decay: decay of the moving average of the classifier's weights and of its batch norm's statistics,
            which is evaluated, chosen by validation and exported in its place; 0 for none.
        batch_norm_training: whether the classifier's batch norm, if it has any, works on the statistics of the batch in
            the update. (The authors' code leaves it frozen.) The attack, unless it is free, sees the running averages.
        accumulation: number of parts that a replica's share of a batch is computed in, see `Stage`.
        jit_compile: see `Stage`. Gradients of a classifier with batch norm are not compiled, its attacks are.
        generated_share: share of each batch that is generated, in [0, 1], all images weighing the same (Gowal et al.,
            NeurIPS 2021). With 1, a real image for each replica is read and left aside. None: as many generated images
            as real ones come on top, with weight lambda.
        mixing: mixes the images of a batch, and their labels, before they are attacked, `@cutmix()`; None for none.
        weight_perturbation: moves the weights that the gradients are taken at, `@awp()`; None for none.
        label_smoothing: share of a label that is spread evenly over all classes in the loss (not in the attack's).
        free_training: several updates on each batch, each with a free step of the attack, `@free()`; None for none.

    Raises:
        ValueError: as `Stage`, and for parts that do not go together.
    """

    name_of_stage = "finetuning"
    # Whether it learns; what it learns; whether that holds for other images, by which the best checkpoint is chosen.
    headlines = ("loss", "class_accuracy", "validation_accuracy")

    def __init__(
        self,
        classifier: keras.Model,
        generated: GeneratedImages | keras.Model | None,
        num_examples: int,
        seed: int = 0,
        attacker: Attack | None = gin.REQUIRED,
        objective: Objective = _ADVERSARIAL,
        fake_weight: float | None = None,
        epochs: float = gin.REQUIRED,
        batch_size: int = 128,
        optimizer: Callable = keras.optimizers.Adam,
        schedule: Schedule = finetuning_schedule,
        average_decay: float = 0.0,
        batch_norm_training: bool = True,
        accumulation: int = 1,
        jit_compile: bool = False,
        generated_share: float | None = None,
        mixing: Mixing | None = None,
        weight_perturbation: AdversarialWeightPerturbation | None = None,
        label_smoothing: float = 0.0,
        free_training: FreeTraining | None = None,
    ):
        replays = free_training and free_training.replays
        super().__init__(num_examples, epochs, batch_size, 1, accumulation, attacker, jit_compile, replays)
        classifier = as_classifier(ClassBranch(classifier) if isinstance(classifier, Discriminator) else classifier)
        generated = FromGenerator(generated) if isinstance(generated, keras.Model) else generated
        if not isinstance(objective, Objective):
            raise ValueError(f"FineTuning.objective must be an objective such as @adversarial(), got {objective!r}.")
        objective.check(classifier, attacker)
        if free_training is not None:
            free_training.check(attacker, objective, weight_perturbation)
        self.classifier = classifier
        self.free_training = free_training
        self.seed = seed
        replicas, has_source = self.strategy.num_replicas_in_sync, generated is not None
        self._take(compose(batch_size, fake_weight, generated_share, has_source, replicas, accumulation))
        if generated is not None:
            generated.check(classifier.num_classes, classifier.image_shape)
        if label_smoothing:
            objective.check_soft_labels("label_smoothing", classifier.num_classes, attacked=False)
        if mixing is not None:
            objective.check_soft_labels("mixing", classifier.num_classes, attacked=attacker is not None)
            mixing.check(self.shares)
        self.has_batch_norm = any(isinstance(module, _BATCH_NORMS) for module in classifier.submodules)
        if accumulation > 1 and self.has_batch_norm:
            raise ValueError(
                f"FineTuning.accumulation = {accumulation} would give the classifier's batch norm the statistics of "
                f"parts of the batch: set it to 1 and lower FineTuning.batch_size instead."
            )
        self.average_classifier = classifier.another() if average_decay else None
        self.generated = generated if self.composition.generated else None
        self.mixing = mixing
        self.objective = objective
        self.weight_perturbation = weight_perturbation
        self.fake_weight = self.composition.weight
        self.average_decay = average_decay
        self.batch_norm_training = batch_norm_training
        self.label_smoothing = label_smoothing
        # The best validation so far: a checkpoint holds it, so that a resumed run does not start to choose anew.
        self.best_accuracy = tf.Variable(-1.0, trainable=False, name="best_accuracy")
        rate = learning_rate(schedule, *(self.updates_per_step * n for n in (self.steps_per_epoch, self.total_steps)))
        self.optimizer = make_optimizer(optimizer, rate, classifier.class_variables)

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
        """Real images and generated ones."""
        return sum(self.shares)

    def with_images_at_once(self, images: int) -> FineTuning:
        """See `Stage`."""
        other = super().with_images_at_once(images)
        with self.strategy.scope():
            other._take(self.composition.part(images / self.replica_batch_size, self.strategy.num_replicas_in_sync))
        return other

    def _take(self, composition: Composition):
        replicas = self.strategy.num_replicas_in_sync
        self.composition = composition
        # Real and generated images of a replica.
        self.shares = (composition.real // replicas, composition.generated // replicas)
        self.images_per_step = max(composition.real, replicas)
        self.perturbations = []
        if self.free_training is not None:
            shape, first_perturbations = self.classifier.image_shape, self.free_training.first_perturbations
            self.perturbations = first_perturbations(self.attacker, composition, shape, self.seed)

    @property
    def result(self) -> Classifier:
        """The classifier to evaluate: the averaged one where there is an average."""
        return self.classifier if self.average_classifier is None else self.average_classifier

    def signs_of_collapse(self, metrics: dict) -> list[str]:
        """See `Stage`: catastrophic over-fitting to an attack of one step."""
        return health.signs_of_overfitting(metrics, float(self.best_accuracy.numpy()), self.classifier.num_classes)

    def start(self):
        """See `Stage.start`: makes the average start at the classifier's weights."""
        if self.average_classifier is not None:
            self.average_classifier.set_weights(self.classifier.get_weights())

    def checkpoint_objects(self) -> dict:
        """Everything that influences the next step, but for generated images, which do not change."""
        objects = {name: getattr(self, name) for name in ("classifier", "optimizer", "step", "best_accuracy")}
        if self.average_classifier is not None:
            objects["average_classifier"] = self.average_classifier
        return {**objects, **{f"perturbation_{kind}": one for kind, one in enumerate(self.perturbations)}}

    def train_step(self, batch):
        """Attacks real and generated images, then updates the classifier on both; with free training several times.

        Args:
            batch: this replica's real images float32 [b, H, W, C] in [-1, 1] and labels int32 [b].

        Returns:
            Dictionary of scalar metrics over the global batch.
        """
        attack_seed, fake_seed = step_seeds(self.seed, self.step, 2)
        sources = self.shares, self.generated, self.mixing, self.classifier.num_classes
        images, labels = real_and_generated(*batch, *sources, fake_seed)
        if self.free_training is None:
            _, metrics = self.update(images, self.attack(images, labels, attack_seed), labels, self.step)
        else:
            update, done = self.as_one_graph(self.update), self.step * self.updates_per_step
            metrics = self.free_training.train(self.attacker, self.perturbations, images, labels, update, done)
        self.step.assign_add(1)
        return {**self.sum_over_replicas(metrics), **self.weight_norms()}

    def update(self, images, adversarial, labels, done):
        """Updates the classifier on attacked images, after `done` updates of the stage.

        Returns:
            The gradient in the attacked images, in parts, with free training; and this replica's share of metrics.
        """
        self.classifier.power_iteration()
        # Real and generated images side by side, so that each part of the batch has its share of both.
        kinds = self.shares if self.generated is not None else self.shares[:1]
        batch = [part for tensor in (images, adversarial, labels) for part in tf.split(tensor, kinds)]
        # Batch norm assigns its running averages and asks the other replicas, which `maybe_compile` does not allow.
        differentiate = self._differentiate if self.has_batch_norm else self.maybe_compile(self._differentiate)
        differentiate_all = partial(over_parts, differentiate, batch, self.accumulation)
        if self.weight_perturbation is None:
            in_images, (gradients, metrics) = differentiate_all()
        else:
            in_images, perturbation = (), self.weight_perturbation
            gradients, metrics = perturbation.at_worst_weights(self.classifier, lambda: differentiate_all()[1])
        norm = apply_gradients(self.optimizer, gradients, self.classifier.class_variables, self.use_xla)
        metrics["classifier_gradient_norm"] = self.share(norm)
        if self.average_classifier is not None:
            update_average(self.average_classifier.weights, self.classifier.weights, self.average_decay, done)
        return in_images, metrics

    def _differentiate(self, *batch):
        """Gradients and metrics of images, attacked images and labels: of real ones, or of real and fake ones each."""
        kinds = len(batch) // 3
        images, adversarial, labels = (tf.concat(batch[i : i + kinds], axis=0) for i in range(0, len(batch), kinds))
        real = batch[0].shape[0]
        targets = labels
        if self.label_smoothing:
            targets = smoothed(labels, self.classifier.num_classes, self.label_smoothing)
        watched = [] if self.free_training is None else [adversarial]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            per_image, logits = self.objective.loss(
                self.classifier, images, adversarial, targets, self.batch_norm_training
            )
            loss = fine_tuning_loss(per_image, real, self.fake_weight) / self.batch_size
            target = scaled(self.optimizer, loss)
        metrics = {"loss": loss}
        classes = labels if labels.dtype.is_integer else tf.argmax(labels, axis=-1, output_type=tf.int32)
        of_real, of_fake = ("class_accuracy", slice(real)), ("fake_class_accuracy", slice(real, None))
        for (name, rows), count in zip((of_real, of_fake), (self.composition.real, self.composition.generated)):
            if count:
                metrics[name] = self.accuracy(logits[rows], classes[rows]) * (self.batch_size / count)
        gradients = tape.gradient(target, [*watched, *self.classifier.class_variables])
        sizes = [part.shape[0] for part in batch[:kinds]]
        in_images = [part for gradient in gradients[: len(watched)] for part in tf.split(gradient, sizes)]
        return in_images, (gradients[len(watched) :], metrics)

    def attack(self, images, labels, seed) -> tf.Tensor:
        """Returns adversarial images, made on the objective's attack; with no attacker the images themselves."""

        def objective(images, labels):
            return self.objective.attack(self.classifier, images, labels)

        with self.classifier.cached_kernels():
            return self.attacked(images, [labels], objective, seed)
