"""Speed and quality of the fit against a plain nine-parameter SLSQP from 50 random starts.

    python benchmarks/fit.py [--curves 200] [--starts 50]

Curves are drawn from the law, half preference and half utility, with noise of 1% of their range. The
reference searches all nine (eight) parameters with SLSQP under the same constraint and the same bounds of the
shape. Prints the median and the longest time of a fit (on a shared machine wall time counts the others' work
too), and the largest amount by which R^2 falls short of the reference.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.optimize import minimize

from easyedit_split.analysis import fitted_curves
from easyedit_split.analysis.fit import fit_preference, fit_utility
from easyedit_split.analysis.solve import LOG_POWER_BOUNDS, LOG_SCALE_BOUNDS, continuity, continuity_gradient

FITS = {"preference": fit_preference, "utility": fit_utility}


def random_curve(rng: np.random.Generator, n_points: int = 41, reach: float = 20.0):
    """One noisy curve of the law: (kind, m, y)."""
    kind = "preference" if rng.random() < 0.5 else "utility"
    m = np.linspace(-reach, reach, n_points)
    while True:
        scales = reach**2 * np.exp(rng.uniform(np.log(0.005), np.log(2.0), 2))
        powers = np.exp(rng.uniform(np.log(0.3), np.log(3.0), 2))
        m_plus = rng.uniform(0.0, 0.4 * reach)
        drop = powers[0] * np.log1p(m_plus**2 / scales[0])
        m_minus = -np.sqrt(scales[1] * np.expm1(drop / powers[1]))
        if m_minus > -0.6 * reach:
            break
    linear = [rng.uniform(-5, 5), rng.uniform(-5, 5)]
    linear = [rng.uniform(2, 20) / reach, *linear] if kind == "preference" else [rng.uniform(2, 30), linear[1]]
    params = np.array([*linear, m_plus, scales[0], powers[0], m_minus, scales[1], powers[1]])
    y = fitted_curves.curve(kind, m, params)
    return kind, m, y + rng.normal(size=n_points) * 0.01 * np.ptp(y)


def plain_r2(kind: str, m: np.ndarray, y: np.ndarray, n_starts: int, rng: np.random.Generator) -> float:
    """Best R^2 of SLSQP over all parameters at once, from random starts; L and p by their logarithms."""
    x, z = m / np.abs(m).max(), (y - y.mean()) / y.std()
    n_linear = len(fitted_curves.LINEAR_NAMES[kind])
    logs = n_linear + np.array([1, 2, 4, 5])

    def natural(v):
        w = v.copy()
        w[logs] = np.exp(w[logs])
        return w

    def objective(v):
        w = natural(v)
        gradient = fitted_curves.curve_gradient(kind, x, w)
        residual = z - gradient[:, :n_linear] @ w[:n_linear]  # the curve is linear in these
        gradient[:, logs] *= w[logs]
        return residual @ residual / len(z), -2.0 * residual @ gradient / len(z)

    def gap(v):
        return continuity(v[n_linear:])

    def gap_gradient(v):
        return np.concatenate([np.zeros(n_linear), continuity_gradient(v[n_linear:])])

    bounds = [(None, None)] * n_linear
    for centre in ((0.0, 1.0), (-1.0, 0.0)):
        bounds += [centre, LOG_SCALE_BOUNDS, LOG_POWER_BOUNDS]
    best = -np.inf
    for _ in range(n_starts):
        start = [rng.uniform(*b) if b[0] is not None else 2.0 * rng.normal() for b in bounds]
        end = minimize(
            objective, start, jac=True, method="SLSQP", bounds=bounds,
            constraints=[{"type": "eq", "fun": gap, "jac": gap_gradient}], options={"maxiter": 500, "ftol": 1e-10},
        )  # fmt: skip
        if np.isfinite(end.fun) and abs(gap(end.x)) < 1e-6:
            best = max(best, 1.0 - end.fun)
    return float(best)


def main() -> None:
    from common import machine  # beside this file; the fits themselves need no torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=200)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(machine())
    rng = np.random.default_rng(args.seed)
    seconds, busy, shortfall, failed = [], [], [], 0
    for number in range(args.curves):
        kind, m, y = random_curve(rng)
        begin, begin_busy = time.perf_counter(), time.process_time()
        result = FITS[kind](m, y)
        seconds.append(time.perf_counter() - begin)
        busy.append(time.process_time() - begin_busy)
        failed += not result.success
        if args.starts:
            reference = plain_r2(kind, m, y, args.starts, np.random.default_rng([args.seed, number]))
            shortfall.append(reference - result.r2)
            if shortfall[-1] > 1e-5:
                print(f"curve {number} ({kind}): R^2 {result.r2:.6f}, reference {reference:.6f}", flush=True)
    print(f"{args.curves} curves, {failed} not converged")
    for name, times in (("wall", seconds), ("processor", busy)):
        print(f"{name} time a curve: median {np.median(times):.4f} s, longest {np.max(times):.4f} s")
    if shortfall:
        print(f"R^2 below the best of {args.starts} plain starts by at most {np.max(shortfall):.2e}")


if __name__ == "__main__":
    main()
