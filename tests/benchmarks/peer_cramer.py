"""Train the CramerGAN of PyPI's `pidgan` 0.2.0; run by its own interpreter.

    python peer_cramer.py INPUT.npz OUTPUT.npz

INPUT has conditions and targets in network coordinates, weights, the conditions to
generate at, and the settings; OUTPUT gets the generated targets, the number of steps,
the seconds they took, and "marks": steps and seconds at some of them.
"""

import contextlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from pidgan.algorithms import CramerGAN
from pidgan.players.discriminators import Discriminator
from pidgan.players.generators import Generator

given = dict(np.load(sys.argv[1]))
x, y, w, judged = (given[name] for name in ("x", "y", "w", "judged"))
batch, width, layers, n_noise, critic_output = map(int, given["sizes"])
seconds = float(given["seconds"])
keras.utils.set_random_seed(1)

generator = Generator(
    output_dim=y.shape[1],
    latent_dim=n_noise,
    num_hidden_layers=layers,
    mlp_hidden_units=width,
)
critic = Discriminator(
    output_dim=critic_output,
    num_hidden_layers=layers,
    mlp_hidden_units=width,
    output_activation="linear",
)
model = CramerGAN(generator=generator, discriminator=critic, lipschitz_penalty=10.0)
model(x[:batch], y[:batch])
model.compile(
    generator_optimizer=keras.optimizers.RMSprop(5e-4),
    discriminator_optimizer=keras.optimizers.RMSprop(5e-4),
)
rows = (
    tf.data.Dataset.from_tensor_slices((x, y, w))
    .shuffle(len(x), seed=1)
    .repeat()
    .batch(batch, drop_remainder=True)
    .prefetch(tf.data.AUTOTUNE)
)


class TimeIsUp(Exception):  # noqa: N818
    """Ends a training."""


marks: list[tuple[int, float]] = []


class Clock(keras.callbacks.Callback):
    """Counts steps after the first few, marks the time of some, and stops in time."""

    warm_up = 20
    every = 16
    steps = 0
    start = 0.0

    def on_train_batch_end(self, step, logs=None):
        if step == self.warm_up:
            self.start = time.perf_counter()
        elif step > self.warm_up:
            self.steps += 1
            self.seconds = time.perf_counter() - self.start
            if self.steps % self.every == 0:
                marks.append((self.steps, self.seconds))
            if self.seconds > seconds:
                raise TimeIsUp


clock = Clock()
with contextlib.suppress(TimeIsUp):
    model.fit(rows, steps_per_epoch=10**9, epochs=1, verbose=0, callbacks=[clock])
generated = np.concatenate(
    [
        model.generate(judged[i : i + 16384], seed=i).numpy()
        for i in range(0, len(judged), 16384)
    ]
)
np.savez(
    sys.argv[2],
    generated=generated,
    steps=clock.steps,
    seconds=clock.seconds,
    marks=marks,
)
