"""How sure one may be that a Sharpe ratio is above zero, given its sample, its tails and how many were tried.

Bailey and Lopez de Prado, *The Sharpe Ratio Efficient Frontier* (2012) and *The Deflated Sharpe Ratio* (2014). All
Sharpe ratios here are per session, never annualised: mean over standard deviation (ddof 1) of one session's returns.
Comparing a book with random books is not done here.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput

EULER_MASCHERONI = 0.5772156649015329
FEWEST_SESSIONS = 21
"""With fewer returns than a month of them no moment beyond the mean means anything."""
_STILL = 1e-12
_NORMAL = NormalDist()


@dataclass(frozen=True)
class SharpeSample:
    """What the theory needs to know of a series of returns."""

    sessions: int
    sharpe: float
    """Per session."""
    skewness: float
    """Third central moment over the 3/2 power of the second (population moments)."""
    kurtosis: float
    """Fourth central moment over the square of the second; 3 for a normal distribution."""

    @classmethod
    def of(cls, returns: ArrayLike) -> "SharpeSample":
        """The sample of simple returns `(T,)`, one a session.

        Raises `InvalidInput` for a NaN or infinite return, for fewer than 21 of them, and for returns that never move,
        which have no Sharpe ratio.
        """
        values = finite_series(returns, FEWEST_SESSIONS)
        deviations = values - values.mean()
        variance = float((deviations**2).mean())
        if math.sqrt(variance) < _STILL:
            raise InvalidInput(
                f"the {len(values)} returns never move, so that they have no Sharpe ratio; judge a book that traded"
            )
        return cls(
            sessions=len(values),
            sharpe=float(values.mean() / values.std(ddof=1)),
            skewness=float((deviations**3).mean()) / variance**1.5,
            kurtosis=float((deviations**4).mean()) / variance**2,
        )

    @property
    def spread(self) -> float:
        """sqrt(1 - skewness SR + (kurtosis - 1) / 4 SR^2): the standard error of the ratio times sqrt(T - 1)."""
        return math.sqrt(max(1.0 - self.skewness * self.sharpe + (self.kurtosis - 1.0) / 4.0 * self.sharpe**2, _STILL))


def probabilistic_sharpe(sample: SharpeSample, benchmark: float = 0.0) -> float:
    """The probability that the true Sharpe ratio exceeds `benchmark` (per session).

    Phi[(SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)], equation 10 of the 2012 paper.
    """
    return _NORMAL.cdf((sample.sharpe - benchmark) * math.sqrt(sample.sessions - 1) / sample.spread)


def expected_best_of(trials: int, sharpe_variance: float) -> float:
    """The Sharpe ratio that the best of so many worthless trials is expected to show, 0.0 for a single one.

    sqrt(V) [(1 - g) PhiInv(1 - 1/N) + g PhiInv(1 - 1/(N e))], equation 1 of the 2014 paper; `sharpe_variance` is that
    of the trials' ratios per session. Raises `InvalidInput` for no trial or a negative variance.
    """
    if trials < 1 or not 0.0 <= sharpe_variance < math.inf:
        raise InvalidInput(
            f"{trials} trials with a variance of {sharpe_variance}: give at least one trial and a variance of 0 or more"
        )
    if trials == 1:
        return 0.0
    best = (1.0 - EULER_MASCHERONI) * _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    best += EULER_MASCHERONI * _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(sharpe_variance) * best


def deflated_sharpe(sample: SharpeSample, trial_sharpes: ArrayLike) -> float:
    """The probability that the true Sharpe ratio is above what luck alone gives the best of all trials.

    `trial_sharpes` `(N,)` are the ratios per session of every distinct trial made on the universe and window, this one
    included; NaN where a trial never traded, which counts as a trial all the same. Their variance is taken no smaller
    than 1 / (T - 1), that of one worthless trial's estimate, so that near copies do not pass for no search at all.
    """
    ratios = np.asarray(trial_sharpes, dtype=np.float64)
    known = ratios[np.isfinite(ratios)]
    observed = float(known.var(ddof=1)) if len(known) > 1 else 0.0
    variance = max(observed, 1.0 / (sample.sessions - 1))
    return probabilistic_sharpe(sample, expected_best_of(len(ratios), variance))


def minimum_track_record(sample: SharpeSample, confidence: float = 0.95, benchmark: float = 0.0) -> float:
    """Sessions until a Sharpe ratio that stays as it is exceeds `benchmark` with this confidence; infinite if never.

    1 + [1 - g3 SR + (g4 - 1) / 4 SR^2] (z / (SR - SR*))^2, equation 11 of the 2012 paper.
    """
    if not 0.5 <= confidence < 1.0:
        raise InvalidInput(f"a confidence of {confidence} is not allowed; give at least 0.5 and less than 1")
    if sample.sharpe <= benchmark:
        return math.inf
    return 1.0 + sample.spread**2 * (_NORMAL.inv_cdf(confidence) / (sample.sharpe - benchmark)) ** 2


def finite_series(returns: ArrayLike, fewest: int) -> NDArray[np.float64]:
    """The returns as float64, or `InvalidInput` where one is not finite or there are fewer than `fewest`."""
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) < fewest:
        raise InvalidInput(
            f"returns of shape {values.shape} cannot be judged; give one series of at least {fewest} sessions"
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidInput(f"the return in row {row} is {values[row]}; a back-test has a figure for every session")
    return values
