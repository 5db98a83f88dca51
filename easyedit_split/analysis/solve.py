"""The constrained least squares behind the fit (App. D), in scaled units.

Variable projection: for given shape parameters the linear ones (alpha, beta, b) follow by least squares, so
SLSQP searches the shape alone, in (centre, log L, log p) of each branch, under the equality constraint
D(0-) = D(0+). In the smooth law (see ``decay``) the two branches share their centre, and nothing constrains them.
Starts are deterministic: a fixed list of continuous shapes is screened in one vectorised pass, and SLSQP runs
from the best few that differ from one another.
Strengths are scaled to [-1, 1] and values to mean 0 and deviation 1 before they come here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log1p

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgels
from scipy.optimize import OptimizeResult, minimize

Array = NDArray[np.float64]

# Hard bounds of the shape in scaled units: centres stay inside the sweep, sqrt(L) between 1% and ten times
# its reach.
LOG_SCALE_BOUNDS = (float(np.log(1e-4)), float(np.log(1e2)))
LOG_POWER_BOUNDS = (float(np.log(0.05)), float(np.log(10.0)))
CONTINUITY_TOLERANCE = 1e-6
SEARCH_TOLERANCE, FINAL_TOLERANCE = 1e-8, 1e-13
# What is screened: (log L, log p) of a branch, and -log D(0), which fixes the centre.
_BRANCHES = np.array(
    [(s, p) for s in np.log([0.0003, 0.003, 0.01, 0.03, 0.1, 0.5, 3.0]) for p in np.log([0.2, 0.5, 1.2, 4.0])]
)
_SCREEN_CENTRES = (-0.6, -0.3, -0.12, -0.03, 0.03, 0.12, 0.3, 0.6)
SCREEN_DROPS = (1e-3, 0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 0.9)


@dataclass(frozen=True, eq=False)
class Problem:
    """Points of one curve, scaled and sorted by x; the first ``n_minus`` belong to the negative branch.

    ``root_weight`` multiplies the residuals. ``sides`` lists the branches that are fitted, in the order their
    three parameters stand in the shape vector: ``("plus", "minus")``, ``("plus",)`` or ``("minus",)``.
    """

    x: Array
    y: Array
    root_weight: Array
    has_slope: bool  # preference: a column x D besides D and 1
    sides: tuple[str, ...]
    smooth: bool = False  # both branches have one centre and meet there

    @property
    def n_minus(self) -> int:
        return int((self.x < 0).sum()) if "plus" in self.sides else len(self.x)

    def block(self, side: str) -> slice:
        return slice(0, self.n_minus) if side == "minus" else slice(self.n_minus, len(self.x))


@dataclass(frozen=True, eq=False)
class Solution:
    """The best shape found, its linear coefficients, and how the search went."""

    shape: Array
    linear: Array
    converged: bool
    n_starts: int


def basis(problem: Problem, value: Array) -> Array:
    """Columns of the linear part for the decay ``value`` (M,): (x D, D, 1) or (D, 1)."""
    design = np.ones((len(value), 3 if problem.has_slope else 2), order="F")
    design[:, -2] = value
    if problem.has_slope:
        design[:, 0] = problem.x * value
    return design


def linear_part(problem: Problem, design: Array) -> Array:
    """Least-squares coefficients of the columns of ``design`` (M, k)."""
    weighted, target = design * problem.root_weight[:, None], problem.y * problem.root_weight
    _, solution, info = dgels(weighted, target)
    if info == 0:
        return solution[: design.shape[1]]
    return np.asarray(np.linalg.lstsq(weighted, target, rcond=1e-12)[0], dtype=float)


class Objective:
    """Residual sum of squares over total sum of squares, and its gradient in the shape."""

    def __init__(self, problem: Problem):
        self.problem = problem
        weight = problem.root_weight**2
        centre = weight @ problem.y / weight.sum()
        self.total = float(weight @ (problem.y - centre) ** 2)
        self.blocks = [problem.block(side) for side in problem.sides]
        self.points = [problem.x[block] for block in self.blocks]

    def decay(self, shape: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """D at every point, and for each branch its offsets from the centre and log1p(offset^2 / L).

        `decay.decay` again, by blocks instead of signs and with the terms the gradient reuses: the search's inner loop.
        """
        value, terms = np.empty_like(self.problem.x), []
        for i, (block, x) in enumerate(zip(self.blocks, self.points, strict=True)):
            offset = x - shape[3 * i]
            log_term = np.log1p(offset**2 / exp(shape[3 * i + 1]))
            value[block] = np.exp(-exp(shape[3 * i + 2]) * log_term)
            terms.append((offset, log_term))
        return value, terms

    def __call__(self, shape: Array) -> tuple[float, Array]:
        """The linear coefficients are at their optimum, so only the direct derivative counts."""
        problem = self.problem
        value, terms = self.decay(shape)
        design = basis(problem, value)
        linear = linear_part(problem, design)
        residual = (problem.y - design @ linear) * problem.root_weight
        rise = linear[0] * problem.x + linear[1] if problem.has_slope else linear[0]
        pull = -2.0 / self.total * residual * problem.root_weight * rise * value
        gradient = np.empty(len(shape))
        for i, (block, (offset, log_term)) in enumerate(zip(self.blocks, terms, strict=True)):
            scale, power = exp(shape[3 * i + 1]), exp(shape[3 * i + 2])
            pulled, ratio = pull[block], power * offset / (scale + offset**2)
            gradient[3 * i : 3 * i + 3] = (
                2 * (pulled @ ratio),
                pulled @ (ratio * offset),
                -power * (pulled @ log_term),
            )
        return float(residual @ residual) / self.total, gradient

    def linear(self, shape: Array) -> Array:
        """Linear coefficients that go with a shape."""
        return linear_part(self.problem, basis(self.problem, self.decay(shape)[0]))


def continuity(shape: Array) -> float:
    """log D(0-) - log D(0+): zero when the decay is continuous.

    `decay.continuity_gap` in logarithms: two values of D near 0 do not hide that one is many times the other.
    """
    plus, minus = (exp(shape[i + 2]) * log1p(shape[i] ** 2 * exp(-shape[i + 1])) for i in (0, 3))
    return plus - minus


def continuity_gradient(shape: Array) -> Array:
    """Derivative of ``continuity`` in the six shape parameters."""
    gradient = np.empty(6)
    for i, sign in ((0, 1.0), (3, -1.0)):
        centre, scale, power = shape[i], exp(shape[i + 1]), exp(shape[i + 2])
        ratio = sign * power * centre / (scale + centre**2)
        gradient[i : i + 3] = 2 * ratio, -ratio * centre, sign * power * log1p(centre**2 / scale)
    return gradient


class JoinedAtCentre(Objective):
    """The same for the smooth law, in (centre, log L+, log p+, log L-, log p-)."""

    @staticmethod
    def whole(shape: Array) -> Array:
        """The six shape parameters, (centre, log L, log p) of each branch."""
        return shape[[0, 1, 2, 0, 3, 4]]

    def _join(self, centre: float) -> None:
        at = int(np.searchsorted(self.problem.x, centre))
        self.blocks = [slice(at, len(self.problem.x)), slice(0, at)]
        self.points = [self.problem.x[block] for block in self.blocks]

    def __call__(self, shape: Array) -> tuple[float, Array]:
        self._join(shape[0])
        value, gradient = super().__call__(self.whole(shape))
        return value, np.concatenate([[gradient[0] + gradient[3]], gradient[[1, 2, 4, 5]]])

    def linear(self, shape: Array) -> Array:
        self._join(shape[0])
        return super().linear(self.whole(shape))


def bounds(problem: Problem) -> list[tuple[float, float]]:
    """Bounds of the shape parameters, in their order."""
    result: list[tuple[float, float]] = []
    low, high = float(problem.x.min()), float(problem.x.max())
    for side in problem.sides:
        centre = (low, high) if problem.smooth else (0.0, high) if side == "plus" else (low, 0.0)
        result += [centre, LOG_SCALE_BOUNDS, LOG_POWER_BOUNDS]
    return result


def branch_fits(problem: Problem, side: str, drop: float) -> tuple[Array, Array, Array]:
    """Screened branches with -log D(0) = ``drop``: shapes (S, 3) and normal equations (S, k, k), (S, k)."""
    reach = float(np.abs(problem.x[problem.block(side)]).max())
    centres = np.sqrt(np.exp(_BRANCHES[:, 0]) * np.expm1(drop / np.exp(_BRANCHES[:, 1])))
    inside = centres <= reach
    shapes = np.column_stack([(1.0 if side == "plus" else -1.0) * centres, _BRANCHES])[inside]
    return _normal_equations(problem, problem.block(side), shapes)


def _normal_equations(problem: Problem, block: slice, shapes: Array) -> tuple[Array, Array, Array]:
    """Shapes (S, 3) of one branch, and the normal equations (S, k, k), (S, k) of each on the points of ``block``."""
    x = problem.x[block]
    # D of every shape at once; `decay.decay` takes one
    value = np.exp(-np.exp(shapes[:, 2:]) * np.log1p((x - shapes[:, :1]) ** 2 * np.exp(-shapes[:, 1:2])))
    columns = [x * value, value, np.ones_like(value)] if problem.has_slope else [value, np.ones_like(value)]
    weight = problem.root_weight[block]
    design = np.stack(columns, axis=-1) * weight[:, None]
    return shapes, design.swapaxes(1, 2) @ design, (problem.y[block] * weight) @ design


def starts(problem: Problem) -> Array:
    """Screened shapes to start from, (S, 3 branches): for each drop of D at 0, the one that fits best.

    Normal equations of the branches add up, so every pair of branches costs one small linear solve.
    """
    best = []
    for fits in _screened(problem):
        shapes, normal, moment = fits[0]
        if len(fits) == 2:
            normal = (normal[:, None] + fits[1][1][None]).reshape(-1, *normal.shape[1:])
            moment = (moment[:, None] + fits[1][2][None]).reshape(-1, moment.shape[1])
            shapes = np.hstack([np.repeat(shapes, len(fits[1][0]), axis=0), np.tile(fits[1][0], (len(shapes), 1))])
        if not len(shapes):
            continue
        linear = np.linalg.solve(normal + 1e-10 * np.eye(normal.shape[-1]), moment[..., None])[..., 0]
        gain = (linear * moment).sum(axis=1)
        number = int(np.argmax(gain))
        best.append((float(gain[number]), shapes[number]))
    best.sort(key=lambda item: -item[0])
    return np.array([shape for _, shape in best])


def _screened(problem: Problem) -> Iterator[list[tuple[Array, Array, Array]]]:
    """What is tried together: the branches with one drop of D at 0 or, for the smooth law, with one centre."""
    if not problem.smooth:
        for drop in SCREEN_DROPS:
            yield [branch_fits(problem, side, drop) for side in problem.sides]
        return
    for centre in _SCREEN_CENTRES:
        at = int(np.searchsorted(problem.x, centre))
        if 0 < at < len(problem.x):
            shapes = np.column_stack([np.full(len(_BRANCHES), centre), _BRANCHES])
            blocks = slice(at, len(problem.x)), slice(0, at)
            yield [_normal_equations(problem, block, shapes) for block in blocks]


def solve(problem: Problem) -> Solution | None:
    """Run SLSQP from every start, then once more from the best end; None when none is continuous."""
    first = starts(problem)
    objective = JoinedAtCentre(problem) if problem.smooth else Objective(problem)
    if problem.smooth:
        first = first[:, [0, 1, 2, 4, 5]]
    ends = [_search(objective, start, SEARCH_TOLERANCE) for start in first]
    ends = [end for end in ends if _continuous(end)]
    if not ends:
        return None
    best = min(ends, key=lambda end: end.fun)
    final = _search(objective, best.x, FINAL_TOLERANCE)
    if _continuous(final) and final.fun <= best.fun + SEARCH_TOLERANCE:
        best, converged = final, final.status == 0 or best.status == 0
    else:
        converged = best.status == 0
    shape = JoinedAtCentre.whole(best.x) if problem.smooth else best.x
    return Solution(shape, objective.linear(best.x), converged, len(first))


def _search(objective: Objective, start: Array, tolerance: float) -> OptimizeResult:
    limits = bounds(objective.problem)
    two_sided = len(limits) == 6 and not objective.problem.smooth
    if objective.problem.smooth:
        limits = [limits[i] for i in (0, 1, 2, 4, 5)]
    rule = {"type": "eq", "fun": continuity, "jac": continuity_gradient}
    end = minimize(
        objective, start, jac=True, method="SLSQP", bounds=limits, constraints=[rule] if two_sided else [],
        options={"maxiter": 300, "ftol": tolerance},
    )  # fmt: skip
    low, high = np.array(limits).T
    end.x = np.clip(end.x, low, high)
    return end


def _continuous(end: OptimizeResult) -> bool:
    if not np.isfinite(end.fun):
        return False
    return len(end.x) != 6 or abs(continuity(end.x)) < CONTINUITY_TOLERANCE
