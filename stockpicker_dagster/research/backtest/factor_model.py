"""How much of a book's return a benchmark or known factors explain, and what is left.

Ordinary least squares of excess returns on factor returns of the same sessions, with Newey and West's (1987) standard
errors. The factors are the caller's: a market index, or French's five factors and momentum. Aligning dates is
`market.reference_returns`' work.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import SESSIONS_PER_YEAR, annual_return, finite

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FactorModel:
    """One regression; `alpha` per year (intercept times the periods of a year), betas per unit of factor return."""

    alpha: float
    alpha_t: float
    """t statistic under Newey-West errors."""
    betas: Mapping[str, float]
    beta_t: Mapping[str, float]
    r_squared: float
    residual_volatility: float
    """Population standard deviation of the residuals, per year: Bacon's specific risk."""
    sessions: int


@dataclass(frozen=True)
class AgainstBenchmark:
    """A book beside one benchmark, per year; NaN where undefined (a benchmark that never moves, too few sessions)."""

    beta: float
    alpha: float
    """Arithmetic: intercept of the regression times the periods of a year."""
    alpha_t: float
    correlation: float
    jensen_alpha: float
    """Compounded return of the book less beta times that of the benchmark (Bacon's Jensen's alpha, selectivity)."""
    specific_risk: float
    systematic_risk: float
    appraisal_ratio: float
    """Jensen's alpha over specific risk."""
    fama_beta: float
    """Volatility of the book over that of the benchmark."""
    tracking_error: float
    """Sample standard deviation of the difference of returns."""
    information_ratio: float
    """Mean difference of returns over the tracking error."""


def newey_west_lag(sessions: int) -> int:
    """floor(4 (T / 100)^(2/9)), the rule of Newey and West (1994) as commonly simplified."""
    return int(4.0 * (sessions / 100.0) ** (2.0 / 9.0))


def factor_model(
    returns: ArrayLike,
    factors: Mapping[str, ArrayLike],
    *,
    risk_free: ArrayLike | None = None,
    lag: int | None = None,
    periods: int = SESSIONS_PER_YEAR,
) -> FactorModel:
    """Regress returns `(T,)` on named factor returns `(T,)` each, all simple fractions of the same sessions.

    `risk_free` `(T,)` is subtracted from the returns: leave it out for a long-short book, whose return is an excess
    return already, and give it for a long-only one. `lag` of the Newey-West errors defaults to `newey_west_lag`; they
    carry no small-sample correction. Raises `InvalidInput` for no factor, lengths that differ, values that are not
    finite, fewer sessions than coefficients plus two, or factors that are linear combinations of each other.
    """
    own = finite(returns)
    if risk_free is not None:
        own = own - _same_length(finite(risk_free), own, "risk_free")
    if not factors:
        raise InvalidInput("a factor model of no factor; name at least one, such as mkt_rf")
    columns = [_same_length(finite(values), own, name) for name, values in factors.items()]
    design = np.column_stack([np.ones(len(own)), *columns])
    if len(own) < design.shape[1] + 2:
        raise InvalidInput(
            f"{len(own)} sessions for {design.shape[1]} coefficients; give at least {design.shape[1] + 2}"
        )
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise InvalidInput(
            f"the factors {', '.join(factors)} are linear combinations of each other, or one is constant"
        )
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ (design.T @ own)
    residuals = own - design @ coefficients
    errors = _newey_west_errors(design, residuals, inverse, newey_west_lag(len(own)) if lag is None else lag)
    t = coefficients / np.where(errors > 0.0, errors, np.nan)
    total = float(((own - own.mean()) ** 2).sum())
    return FactorModel(
        alpha=float(coefficients[0]) * periods,
        alpha_t=float(t[0]),
        betas=dict(zip(factors, coefficients[1:].tolist(), strict=True)),
        beta_t=dict(zip(factors, t[1:].tolist(), strict=True)),
        r_squared=1.0 - float((residuals**2).sum()) / total if total > 0.0 else float("nan"),
        residual_volatility=float(residuals.std()) * float(np.sqrt(periods)),
        sessions=len(own),
    )


def against_benchmark(
    returns: ArrayLike, benchmark: ArrayLike, *, periods: int = SESSIONS_PER_YEAR
) -> AgainstBenchmark:
    """The book beside a benchmark on the same sessions, both `(T,)` simple returns; raises as `factor_model` does."""
    own, other = finite(returns), finite(benchmark)
    model = factor_model(own, {"benchmark": other}, periods=periods)
    beta, year = model.betas["benchmark"], float(np.sqrt(periods))
    jensen = annual_return(own, periods) - beta * annual_return(other, periods)
    difference = own - other
    tracking = float(difference.std(ddof=1))
    return AgainstBenchmark(
        beta=beta,
        alpha=model.alpha,
        alpha_t=model.alpha_t,
        correlation=float(np.corrcoef(own, other)[0, 1]) if own.std() > 0.0 else float("nan"),
        jensen_alpha=jensen,
        specific_risk=model.residual_volatility,
        systematic_risk=abs(beta) * float(other.std()) * year,
        appraisal_ratio=jensen / model.residual_volatility if model.residual_volatility > 0.0 else float("nan"),
        fama_beta=float(own.std() / other.std()),
        tracking_error=tracking * year,
        information_ratio=float(difference.mean()) / tracking * year if tracking > 0.0 else float("nan"),
    )


def _newey_west_errors(design: Floats, residuals: Floats, inverse: Floats, lag: int) -> Floats:
    scores = design * residuals[:, None]
    covariance = scores.T @ scores
    for distance in range(1, min(lag, len(scores) - 1) + 1):
        shifted = scores[distance:].T @ scores[:-distance]
        covariance += (1.0 - distance / (lag + 1.0)) * (shifted + shifted.T)
    return np.asarray(np.sqrt(np.maximum(np.diag(inverse @ covariance @ inverse), 0.0)))


def _same_length(values: Floats, own: Floats, name: str) -> Floats:
    if values.shape != own.shape:
        raise InvalidInput(
            f"{name} has {len(values)} returns and the book has {len(own)}; align them to the same sessions first"
        )
    return values
