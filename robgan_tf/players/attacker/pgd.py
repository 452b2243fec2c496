"""PGD: projected gradient ascent (Madry et al., ICLR 2018)."""

from __future__ import annotations

from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.gradients import score_and_gradient
from robgan_tf.players.attacker.judge import by_loss_alone, over_images, repeat_on_standing
from robgan_tf.players.attacker.threat_model import ThreatModel, epsilon_255
from robgan_tf.values import check, number, optional, switch, whole


@gin.register
class PGD(Attack):
    """x <- project(x + step_size * direction(gradient)), `steps` times (Rob-GAN, equation 2).

    With one step of size epsilon and no random start it is FGSM (Goodfellow et al., ICLR 2015). With momentum the steps
    go along a running sum of gradients (Dong et al., CVPR 2018): v <- momentum * v + gradient / mean |gradient|.

    In training its result is where the last step ends. In an evaluation it is the first point on the way that fooled
    the classifier (with several `samples` that of the highest loss), and where none did, where the last step ends.

    Args:
        threat_model: norm, epsilon and projection, e.g. `@LInf()`.
        steps: number of gradient steps.
        step_size: length of a step on the pixel scale [-1, 1]. Give this or `relative_step_size`.
        relative_step_size: length of a step as a share of epsilon (the paper's epsilon / 5 is 0.2).
        random_start: whether it starts at a random point of the ball instead of at the image.
        momentum: share of the running sum that each step keeps, in [0, 1); None for plain gradients.
        loss: see `Attack`.
        targets: see there.
        restarts: see there.
        samples: passes that each gradient is averaged over, for classifiers that are random on purpose.
        last_point: in an evaluation too the result is where the last step ends, as in the paper and other libraries.
        attacker: another PGD, whose threat model, steps, start and momentum are taken; none of these is given then.
        objective: `loss` by its former name, for stored configurations.

    Raises:
        ValueError: for settings that contradict each other, or that can't reach the border of the ball.
    """

    def __init__(
        self,
        threat_model: ThreatModel | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        relative_step_size: float | None = None,
        random_start: bool = False,
        momentum: float | None = None,
        loss: Callable = class_loss,
        targets: int = 0,
        restarts: int = 1,
        samples: int = 1,
        last_point: bool = False,
        attacker: PGD | None = None,
        objective: Callable | None = None,
    ):
        kind = type(self).__name__
        if attacker is not None:
            if not isinstance(attacker, PGD):
                raise ValueError(f"{kind}.attacker must be such as @evaluation/Attacker(), got {attacker!r}.")
            if (threat_model, steps, step_size, relative_step_size, momentum) != (None,) * 5:
                raise ValueError(f"Give either {kind}.attacker or threat model, steps and momentum, not both.")
            threat_model, steps, random_start = attacker.threat_model, attacker.steps, attacker.random_start
            step_size, relative_step_size = attacker.absolute_step_size, attacker.relative_step_size
            momentum = attacker.momentum
        super().__init__(threat_model, loss if objective is None else objective, targets, restarts)
        check(f"{kind}.steps", steps, whole(1), "for no attack set the attacker to None")
        check(f"{kind}.random_start", random_start, switch())
        check(f"{kind}.last_point", last_point, switch())
        if (step_size is None) == (relative_step_size is None):
            raise ValueError(
                f"Give exactly one of {kind}.step_size (got {step_size!r}) and {kind}.relative_step_size "
                f"(got {relative_step_size!r})."
            )
        check(f"{kind}.step_size", step_size, optional(number(above=0)))
        check(f"{kind}.relative_step_size", relative_step_size, optional(number(above=0)))
        check(f"{kind}.momentum", momentum, optional(number(least=0, below=1)), "usual are 0.75 to 0.9")
        if restarts > 1 and not random_start:
            raise ValueError(
                f"{kind}.restarts = {restarts} would do the same {restarts} times: set the attacker's random_start."
            )
        check(f"{kind}.samples", samples, whole(1))
        self.steps = steps
        self.absolute_step_size = step_size
        self.relative_step_size = relative_step_size
        self.random_start = random_start
        self.momentum = momentum
        self.samples = samples
        self.last_point = last_point
        self._check_reach()

    @property
    def name(self):
        return "pgd" if self.steps > 1 or self.random_start else "fgsm"

    @property
    def one_step(self):
        """See `Attack`."""
        return self.steps == 1

    @property
    def label(self):
        samples = f", {self.samples} passes each" if self.samples > 1 else ""
        return f"{self.name.upper()}-{self.steps} on {self.loss.__name__}{samples}{self.runs_label()}"

    @property
    def step_size(self):
        """Length of a step on the pixel scale [-1, 1]."""
        if self.absolute_step_size is not None:
            return self.absolute_step_size
        return self.relative_step_size * self.threat_model.epsilon

    def with_epsilon(self, epsilon) -> PGD:
        """Returns the same attack on a ball of another radius; a relative step size scales with it.

        Args:
            epsilon: a number, or a scalar tensor, so that one graph serves many radii; only a number can be checked.

        Raises:
            ValueError: where the steps can't reach it.
        """
        other = super().with_epsilon(epsilon)
        other._check_reach()
        return other

    def _check_reach(self):
        epsilon, reach = self.threat_model.epsilon, self.steps * self.step_size
        if tf.is_tensor(epsilon):
            return
        # A tolerance of rounding alone: 5 steps of epsilon / 5 are allowed, and of the length that the message advises.
        if reach < epsilon * (1 - 1e-5):
            raise ValueError(
                f"The attack can't reach epsilon = {epsilon:g} ({epsilon_255(epsilon):.2f}/255): {self.steps} steps of "
                f"{self.step_size:g} go {reach:g} at most. Take at least {-int(-epsilon // self.step_size)} steps, or "
                f"a step_size of at least {epsilon / self.steps:g}."
            )

    def ascend(self, start, images, loss, seed=None):
        """See `Attack`: where the last step ends."""
        return tf.stop_gradient(self._last(start, images, by_loss_alone(loss)))

    def search(self, start, images, judge, seed):
        """See `Attack`. An image that is broken costs nothing more, unless the classifier is random on purpose."""
        if self.last_point:
            return self._last(start, images, judge)
        once = self.samples == 1

        def seen(state, score):
            better = False if once else score.loss > state["highest"]
            better = score.broken & (~state["fooled"] | better)
            return {
                "found": tf.where(over_images(better), state["image"], state["found"]),
                "highest": tf.where(better, score.loss, state["highest"]),
                "fooled": state["fooled"] | score.broken,
            }

        def step(index, state, judge):
            score, gradient = score_and_gradient(judge, state["image"], self.samples)
            return {**state, **seen(state, score), **self._step(state, gradient, state["clean"])}

        none = tf.zeros(tf.shape(images)[:1])
        first = {"clean": images, "found": start, "highest": none, "fooled": none > 0}
        goes_on = (lambda state: ~state["fooled"]) if once else (lambda state: tf.ones_like(state["fooled"]))
        last = repeat_on_standing(step, {**first, **self._first(start)}, judge, self.steps, goes_on)
        if not once:  # where one fooling point does as well as another one, the last image is the result in any case
            last.update(seen(last, score_and_gradient(judge, last["image"], self.samples)[0]))
        return tf.where(over_images(last["fooled"]), last["found"], last["image"])

    def _last(self, start, images, judge):
        """Does all steps; returns where the last one ends."""

        def step(index, state):
            _, gradient = score_and_gradient(judge, state["image"], self.samples)
            return index + 1, self._step(state, gradient, images)

        state = (0, self._first(start))
        return tf.while_loop(lambda index, _: index < self.steps, step, state, maximum_iterations=self.steps)[1][
            "image"
        ]

    def _first(self, start):
        """What a step changes, before the first one."""
        return {"image": start} if self.momentum is None else {"image": start, "velocity": tf.zeros_like(start)}

    def _step(self, state, direction, clean):
        """The same after a step along a gradient [B, H, W, C]."""
        after = {}
        if self.momentum is not None:
            size = tf.reduce_mean(tf.abs(direction), axis=[1, 2, 3], keepdims=True)
            direction = self.momentum * state["velocity"] + tf.math.divide_no_nan(direction, size)
            after["velocity"] = direction
        return {**after, "image": self.stepped(state["image"], direction, clean)}

    def stepped(self, images, gradient, originals):
        """Returns images [B, H, W, C] after a step along a gradient of the same shape, projected around `originals`."""
        moved = images + self.step_size * self.threat_model.ascent_direction(gradient)
        return self.threat_model.project(moved, originals)

    def __str__(self):
        length = f"{self.step_size:g} ({epsilon_255(self.step_size):.2f}/255)"
        start = "random start" if self.random_start else "from the image"
        return f"{self.steps} steps of {length}, {start}, in the {self.threat_model}"

    def settings(self):
        """See `Attack`. A relative step size stands for one in pixels, which changes with epsilon."""
        length = "relative_step_size" if self.absolute_step_size is None else "step_size"
        return {
            "steps": self.steps,
            length: getattr(self, length),
            "random_start": self.random_start,
            **({} if self.momentum is None else {"momentum": self.momentum}),
            "samples": self.samples,
            "last_point": self.last_point,
            **super().settings(),
        }


@gin.register
class Attacker(PGD):
    """PGD with the settings that training needs; an evaluation takes it, too, and judges where its last step ends.

    Args:
        threat_model: see `PGD`.
        steps: see there.
        step_size: see there.
        relative_step_size: see there.
        random_start: see there.

    Raises:
        ValueError: as `PGD`.
    """

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = gin.REQUIRED,
        step_size: float | None = None,
        relative_step_size: float | None = None,
        random_start: bool = False,
    ):
        super().__init__(threat_model, steps, step_size, relative_step_size, random_start, last_point=True)


@gin.register
class MomentumAttacker(PGD):
    """`Attacker` with momentum.

    Args:
        momentum: see `PGD`.
        threat_model: see there.
        steps: see there.
        step_size: see there.
        relative_step_size: see there.
        random_start: see there.

    Raises:
        ValueError: as `PGD`.
    """

    def __init__(
        self,
        momentum: float = gin.REQUIRED,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = gin.REQUIRED,
        step_size: float | None = None,
        relative_step_size: float | None = None,
        random_start: bool = False,
    ):
        super().__init__(threat_model, steps, step_size, relative_step_size, random_start, momentum, last_point=True)
