"""Fits of the preference and utility curves (Eqs. 15 and 17) by SLSQP under continuity at m = 0 (App. D).

The fit is unweighted unless standard errors are given.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError
from . import decay, fitted_curves
from .logodds import check_reach
from .result import FitResult, r_squared
from .solve import Problem, Solution, solve
from .uncertainty import uncertainty

Array = NDArray[np.float64]

FLAT = 1e-9  # a curve whose range is below this share of its size (or of 1 nat) carries no shape
BRANCH_PARAMETERS = 3
BEND = 0.1  # share of its range that a curve may bend between two strengths without a word


def fit_preference(m: ArrayLike, y: ArrayLike, stderr: ArrayLike | None = None, law: decay.Law = "paper") -> FitResult:
    """Fit (alpha m + beta) D(m) + b (Eq. 15, nine parameters) to a preference curve.

    Args:
        m: (M,) strengths, in any order; one may appear more than once, each is a point of its own.
        y: (M,) preference log-odds in nats. NaN and infinite points are left out and counted.
        stderr: (M,) standard errors of y in nats; points are weighted by 1 / stderr^2. None weighs all alike.
        law: ``"paper"`` (Eq. 12: the branches meet at m = 0) or ``"smooth"`` (they meet at their common centre, see
            ``decay``). With one branch the two are one.
    Returns:
        FitResult. When all m >= 0 (or all m <= 0) one branch is fitted, and the result says so.
    Raises:
        FitError: the input cannot determine the curve (shapes, too few points, flat, bad standard errors).
        DataError: see ``logodds.check_reach``.
    """
    return _fit("preference", m, y, stderr, law)


def fit_utility(m: ArrayLike, y: ArrayLike, stderr: ArrayLike | None = None, law: decay.Law = "paper") -> FitResult:
    """Fit beta D(m) + b (Eq. 17, eight parameters) to a utility curve; otherwise as ``fit_preference``."""
    return _fit("utility", m, y, stderr, law)


def _fit(kind: fitted_curves.Kind, m: ArrayLike, y: ArrayLike, stderr: ArrayLike | None, law: decay.Law) -> FitResult:
    if law not in ("paper", "smooth"):
        raise FitError(f"law is {law!r}; say 'paper' or 'smooth'.")
    at, value, error, n_dropped = _points(kind, m, y, stderr)
    sides = _sides(kind, at)
    check_reach(at)
    reach, centre, spread = float(np.abs(at).max()), float(value.mean()), float(value.std())
    problem = Problem(at / reach, (value - centre) / spread, 1.0 / error, kind == "preference", sides,
                      law == "smooth" and len(sides) == 2)  # fmt: skip
    solution = solve(problem)
    if solution is None:
        raise FitError(f"No start of the {kind} fit reached a continuous curve; check the sweep for outliers.")
    params = _natural(kind, solution, sides, reach, centre, spread)
    return _result(kind, params, at, value, problem, solution, n_dropped)


def _points(kind: str, m: ArrayLike, y: ArrayLike, stderr: ArrayLike | None) -> tuple[Array, Array, Array, int]:
    """Checked points, sorted by m, their relative errors (ones when none are given), the number left out."""
    at, value = np.asarray(m, dtype=float), np.asarray(y, dtype=float)
    if at.ndim != 1 or at.shape != value.shape:
        raise FitError(f"m has shape {at.shape} and y has shape {value.shape}; give two arrays of shape (M,).")
    if not np.isfinite(at).all():
        raise FitError(f"m holds {at[~np.isfinite(at)][0]}; every strength must be finite.")
    error = np.ones_like(at) if stderr is None else np.asarray(stderr, dtype=float)
    if error.shape != at.shape:
        raise FitError(f"stderr has shape {error.shape} for {len(at)} points; give one error a point.")
    keep = np.isfinite(value)
    n_dropped = int((~keep).sum())
    if not keep.any():
        raise FitError(f"All {len(at)} points of the {kind} curve are undefined; use reduction='sum'.")
    at, value, error = at[keep], value[keep], error[keep]
    if not (np.isfinite(error) & (error > 0)).all():
        raise FitError("A standard error is zero, negative or not finite; give positive ones, or none at all.")
    span, size = float(np.ptp(value)), max(1.0, float(np.abs(value).max()))
    if span <= FLAT * size:
        raise FitError(
            f"The {kind} curve is flat (its range is {span:.3g} nats), so there is no shape to fit; "
            "check that the change is attached, or sweep larger strengths."
        )
    order = np.argsort(at, kind="stable")
    return at[order], value[order], error[order] / float(np.median(error)), n_dropped


def _sides(kind: str, m: Array) -> tuple[str, ...]:
    """Branches the points can determine."""
    distinct = np.unique(m)
    n_plus, n_minus = int((distinct > 0).sum()), int((distinct < 0).sum())
    sides = tuple(side for side, n in (("plus", n_plus), ("minus", n_minus)) if n)
    n_linear = len(fitted_curves.LINEAR_NAMES[kind])
    needed = n_linear + BRANCH_PARAMETERS * len(sides) + (len(sides) == 1)
    if len(distinct) < needed:
        raise FitError(
            f"The {kind} curve has {len(distinct)} distinct strengths with a defined value but the fit needs "
            f"at least {needed}; sweep more strengths."
        )
    if len(sides) == 2 and min(n_plus, n_minus) < BRANCH_PARAMETERS:
        few = "negative" if n_minus < n_plus else "positive"
        raise FitError(
            f"Only {min(n_plus, n_minus)} strengths are {few} but a branch needs {BRANCH_PARAMETERS}; "
            "sweep more of them, or leave that side out to fit one branch."
        )
    return sides


def _natural(
    kind: str, solution: Solution, sides: tuple[str, ...], reach: float, centre: float, spread: float
) -> Array:
    """Parameters in the user's units, in the order of ``parameter_names``."""
    linear = solution.linear * spread
    linear[-1] += centre
    if kind == "preference":
        linear[0] /= reach
    shape = np.full(6, np.nan)
    for i, side in enumerate(sides):
        at, log_scale, log_power = solution.shape[3 * i : 3 * i + 3]
        first = 0 if side == "plus" else 3
        shape[first : first + 3] = at * reach, np.exp(log_scale) * reach**2, np.exp(log_power)
    return np.concatenate([linear, shape])


def _result(
    kind: fitted_curves.Kind, params: Array, m: Array, y: Array, problem: Problem, solution: Solution, n_dropped: int
) -> FitResult:
    names = fitted_curves.parameter_names(kind)
    sides = "both" if len(problem.sides) == 2 else problem.sides[0]
    on_branch = decay.on_branch(m, sides)
    predicted = fitted_curves.curve(kind, on_branch, params)
    r2 = r_squared(y, predicted)
    spread = uncertainty(kind, on_branch, y - predicted, params, problem, solution)
    dof = len(m) - spread.n_free
    gap = decay.continuity_gap(params[-6:]) if sides == "both" else 0.0
    at_bound = tuple(name for name, hit in zip(names, spread.at_bound, strict=True) if hit)
    result = FitResult(
        kind=kind,
        params={name: float(value) for name, value in zip(names, params, strict=True)},
        stderr={name: float(value) for name, value in zip(names, spread.stderr, strict=True)},
        covariance=spread.covariance,
        condition=spread.condition,
        r2=r2,
        adjusted_r2=1.0 - (1.0 - r2) * (len(m) - 1) / dof if dof > 0 else float("nan"),
        rmse=float(np.sqrt(((y - predicted) ** 2).mean())),
        continuity_residual=gap,
        sides=sides,
        m=m,
        residual=y - predicted,
        root_weight=problem.root_weight,
        n_dropped=n_dropped,
        n_free=spread.n_free,
        n_starts=solution.n_starts,
        at_bound=at_bound,
        success=solution.converged,
        message="",
    )
    return replace(result, message=_message(result, spread.determined))


def _message(fit: FitResult, determined: bool) -> str:
    if not fit.success:
        return (
            f"The search did not converge from {fit.n_starts} starts, so do not use these numbers; "
            "add strengths to the sweep or check it for outliers."
        )
    parts = [f"Converged with R^2 = {fit.r2:.4f} over {fit.n_points} points"]
    if fit.sides != "both":
        parts.append(f"one branch only, since every m is {'>=' if fit.sides == 'plus' else '<='} 0")
    if fit.n_dropped:
        parts.append(f"{fit.n_dropped} undefined point{'' if fit.n_dropped == 1 else 's'} left out")
    if fit.at_bound:
        parts.append(f"{', '.join(fit.at_bound)} at the bound of the search")
    if not determined:
        parts.append("single parameters are not determined by these points although the curve is")
    if fit.kind == "utility" and fit.params["beta"] < 0:
        parts.append("beta is negative, although the law supposes that utility decays")
    parts += _bend(fit)
    return "; ".join(parts) + "."


def _bend(fit: FitResult) -> list[str]:
    """A phrase when the law bends between neighbouring strengths, where nothing was measured."""
    at = np.unique(fit.m)
    between = np.linspace(at[0], at[-1], 40 * len(at))
    value = fit.predict(at)
    off = np.abs(fit.predict(between) - np.interp(between, at, value))
    worst = int(np.argmax(off))
    if off[worst] <= max(BEND * float(np.ptp(value)), 4.0 * fit.rmse):
        return []
    return [
        f"the law bends by {off[worst]:.2g} nats between neighbouring strengths near m = {between[worst]:.2g}, where "
        "nothing was measured: sweep more strengths there"
    ]
