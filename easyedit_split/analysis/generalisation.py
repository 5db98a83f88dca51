"""Whether the law fitted on one set of examples holds on another: R^2 on the test split (Table 6)."""

from __future__ import annotations

from dataclasses import dataclass

from .fit import fit_preference, fit_utility
from .logodds import Sweep, curves
from .result import FitResult


@dataclass(frozen=True, eq=False)
class Transfer:
    """Fits of the training curves and their R^2 on both splits.

    R^2 is the paper's, about the mean of the curve it is asked on: on the test split it may be negative.
    ``undefined_train`` and ``undefined_test`` count the utility points that were undefined.
    """

    preference_fit: FitResult
    utility_fit: FitResult
    preference_test: float
    utility_test: float
    undefined_train: int
    undefined_test: int

    @property
    def preference_train(self) -> float:
        """R^2 of the preference fit on the split it was fitted on."""
        return self.preference_fit.r2

    @property
    def utility_train(self) -> float:
        """R^2 of the utility fit on the split it was fitted on."""
        return self.utility_fit.r2


def transfer(train: Sweep, test: Sweep) -> Transfer:
    """Fit both curves on the training sweep and ask how much of the test sweep they explain.

    Args:
        train, test: sweeps of one change on two sets of pairs. The strengths may differ.
    Raises:
        FitError: a curve of the training sweep cannot be fitted, or no utility point of a sweep is defined.
    """
    train_preference, train_utility = curves(train)
    test_preference, test_utility = curves(test)
    preference = fit_preference(train_preference.m, train_preference.mean)
    utility = fit_utility(train_utility.m, train_utility.mean)
    return Transfer(
        preference_fit=preference,
        utility_fit=utility,
        preference_test=preference.r2_on(test_preference.m, test_preference.mean),
        utility_test=utility.r2_on(test_utility.m, test_utility.mean),
        undefined_train=train_utility.n_undefined,
        undefined_test=test_utility.n_undefined,
    )
