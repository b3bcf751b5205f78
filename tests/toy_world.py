"""A world without a renderer: a hand that walks along a line to a goal which the seed chooses."""

import numpy as np

from recordings import HEIGHT, WIDTH, robot
from xwam.core.cameras import intrinsics_of_fovy, look_at
from xwam.core.types import Observation


class ToyWorld:
    """Solved while the hand is within 5 cm of its goal; a step moves it by a tenth of the action."""

    name = "toy/reach"
    instructions = ("reach the goal", "go there")

    def __init__(self, max_steps=40, hopeless_seeds=()):
        self.embodiment, self.max_steps, self.hopeless_seeds = robot(), max_steps, hopeless_seeds
        self.executed, self.looks, self.closed = [], 0, False

    def reset(self, seed):
        self.hand, self.seed, self.looks = 0.0, seed, 0
        self.goal = 0.5 + 0.1 * (seed % 7)
        self.executed = []

    def step(self, action):
        self.executed.append(action)
        self.hand += 0.1 * float(np.clip(action[0], -1, 1))
        return abs(self.hand - self.goal) < 0.05

    def observe(self, depth=False):
        self.looks += 1
        names = self.embodiment.camera_names
        shade = np.full((HEIGHT, WIDTH, 3), (10 + 3 * len(self.executed)) % 256, np.uint8)
        depths = {name: np.full((HEIGHT, WIDTH), 0.5, np.float32) for name in names} if depth else {}
        proprio = np.array([self.hand, 0, 0, 1], np.float32)
        intrinsics = {name: intrinsics_of_fovy(1.0, HEIGHT, WIDTH) for name in names}
        poses = {name: look_at((1, 1, 1), (0, 0, 0)) for name in names}
        return Observation(dict.fromkeys(names, shade), proprio, self.instructions[0], depths, intrinsics, poses)

    def expert_action(self):
        towards = -1 if self.seed in self.hopeless_seeds else np.clip((self.goal - self.hand) / 0.1, -1, 1)
        return np.array([towards, 0, 0, 0], np.float32)

    def close(self):
        self.closed = True
