"""Standard errors of a fitted curve: the least-squares covariance on the tangent space of its constraints.

The parameters of a fit obey D(0-) = D(0+) (the smooth law: m_+ = m_-), and those at a bound of the search are held
fixed, so the covariance is Z (Z' J' W J Z)^-1 Z' s^2, where the columns of Z span the directions that remain free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space

from . import fitted_curves
from .solve import Problem, Solution, bounds, continuity_gradient

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BOUND_TOLERANCE = 1e-7
DETERMINED = 1e-9  # smallest share of the largest singular value that still counts as determined


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Covariance (P, P) and standard errors (P,) of the parameters; see ``FitResult`` for their meaning."""

    covariance: Array
    stderr: Array
    condition: float
    at_bound: Mask
    n_free: int
    determined: bool


def _bounds_hit(kind: fitted_curves.Kind, problem: Problem, solution: Solution) -> tuple[Mask, Mask]:
    """Which of the P parameters were fitted, and which of those ended at a bound of the search."""
    n_linear = len(fitted_curves.LINEAR_NAMES[kind])
    fitted, hit = np.ones(n_linear + 6, dtype=bool), np.zeros(n_linear + 6, dtype=bool)
    fitted[n_linear:] = False
    for i, side in enumerate(problem.sides):
        first = n_linear + (0 if side == "plus" else 3)
        limits = np.array(bounds(problem)[3 * i : 3 * i + 3])
        values = solution.shape[3 * i : 3 * i + 3]
        fitted[first : first + 3] = True
        hit[first : first + 3] = (np.abs(values[:, None] - limits) < BOUND_TOLERANCE).any(axis=1)
    return fitted, hit


def free_directions(kind: fitted_curves.Kind, params: Array, fitted: Mask, held: Mask) -> Array:
    """Columns (P, F) spanning the moves the constraints allow, in scaled parameters.

    Scaled means that a unit of L or p is a factor e; centres and linear coefficients keep their own units.
    ``held`` parameters do not move. Continuity is linearised at ``params``.
    """
    names = fitted_curves.parameter_names(kind)
    free = np.flatnonzero(fitted & ~held)
    rows = np.zeros((0, len(free)))
    if fitted.all() and params[-6] == params[-3]:  # the smooth law: its centres are one
        rows = np.eye(len(names))[[-6], :][:, free] - np.eye(len(names))[[-3], :][:, free]
        rows = rows[np.abs(rows).max(axis=1, initial=0.0) > 0]
    elif fitted.all():
        shape = params[-6:].copy()
        shape[[1, 2, 4, 5]] = np.log(shape[[1, 2, 4, 5]])
        gradient = np.concatenate([np.zeros(len(names) - 6), continuity_gradient(shape)])[free]
        if np.abs(gradient).max(initial=0.0) > 0:
            rows = gradient[None] / np.abs(gradient).max()
    directions = np.zeros((len(names), len(free) - len(rows)))
    directions[free] = null_space(rows) if len(rows) else np.eye(len(free))
    return directions


def log_scaling(params: Array) -> Array:
    """Factor that turns a move in scaled parameters into one in natural parameters, (P,); NaN becomes 1."""
    factor = np.ones(len(params))
    for i in (-5, -4, -2, -1):
        factor[i] = params[i] if np.isfinite(params[i]) else 1.0
    return factor


def uncertainty(
    kind: fitted_curves.Kind, m: Array, residual: Array, params: Array, problem: Problem, solution: Solution
) -> Uncertainty:
    """Covariance of the parameters from the residuals (M,) of the fit at m (M,)."""
    fitted, hit = _bounds_hit(kind, problem, solution)
    directions = free_directions(kind, params, fitted, hit) * log_scaling(params)[:, None]
    gradient = np.where(fitted, fitted_curves.curve_gradient(kind, m, params), 0.0)
    sensitivity = (gradient @ directions) * problem.root_weight[:, None]
    lengths = np.linalg.norm(sensitivity, axis=0)
    lengths[lengths == 0] = 1.0
    _, singular, right = np.linalg.svd(sensitivity / lengths, full_matrices=False)
    determined = bool(singular[-1] > DETERMINED * singular[0])
    n_free = directions.shape[1]
    dof = len(m) - n_free
    variance = float(((residual * problem.root_weight) ** 2).sum() / dof) if dof > 0 else np.nan
    inverse = right.T / np.maximum(singular, DETERMINED * singular[0])
    root = directions @ (inverse / lengths[:, None])
    covariance = variance * (root @ root.T)
    stderr = np.sqrt(np.diag(covariance))
    if not determined:
        stderr = np.where(stderr > 0, np.inf, stderr)
    stderr = np.where(fitted & ~hit, stderr, np.nan)
    condition = float((singular[0] / singular[-1]) ** 2) if singular[-1] > 0 else np.inf
    return Uncertainty(covariance, stderr, condition, hit, n_free, determined)
