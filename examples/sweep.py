"""A hyper-parameter sweep: which support vector machine reads handwritten digits best?

A map runs one step for each combination of `C`, `gamma` and cross-validation fold: 4 x 4 x 5 small trainings on the
digits that ship with scikit-learn. A reduce ranks the settings by their mean score, a last step trains the winner on
all of the training digits and scores it on digits that nobody has seen.

    python examples/sweep.py                            # 80 trainings on process workers
    python examples/sweep.py --small --backend thread   # fewer digits, settings and folds
    python examples/sweep.py --check                    # beside scikit-learn's own GridSearchCV

It prints the best settings with their scores, and the winner's score on the unseen digits. With `--check` the exit code
is 1 unless GridSearchCV finds the same winner with the same scores, to the last bit.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.svm import SVC

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, context, step

GRID = {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [1e-4, 3e-4, 1e-3, 3e-3]}
SMALL_GRID = {"C": [1.0, 10.0], "gamma": [3e-4, 1e-3, 1e-2]}


class Digits(NamedTuple):
    """Images as rows of pixels, and the digits that they show."""

    images: np.ndarray
    labels: np.ndarray


class Ranked(NamedTuple):
    """A setting with its scores."""

    setting: dict[str, float]
    mean: float
    scores: tuple[float, ...]


@step(outputs=["train", "test"])
def load(digits: int) -> tuple[Digits, Digits]:
    """Load some digits and put a quarter of them aside."""
    images, labels = load_digits(return_X_y=True)
    images, unseen, labels, truth = train_test_split(
        images[:digits], labels[:digits], stratify=labels[:digits], random_state=0
    )
    return Digits(images, labels), Digits(unseen, truth)


@step
def score(C: float, gamma: float, fold: int, train: Digits, folds: int) -> float:  # noqa: N803  C: scikit-learn's name
    """Train with one setting on all folds but one, return the share of digits of that fold that it reads."""
    learn, judge = list(StratifiedKFold(folds).split(*train))[fold]
    model = SVC(C=C, gamma=gamma).fit(train.images[learn], train.labels[learn])
    return float(model.score(train.images[judge], train.labels[judge]))


@step
def ranking(score: list[float], settings: list[dict[str, float]], folds: int) -> list[Ranked]:
    """Put the settings in order, the best first; the scores of a setting's folds stand side by side."""
    by_setting = np.reshape(score, (len(settings), folds))
    ranked = [
        Ranked(setting, float(scores.mean()), tuple(map(float, scores)))
        for setting, scores in zip(settings, by_setting, strict=True)
    ]
    return sorted(ranked, key=lambda each: -each.mean)


@step(outputs=["model", "unseen_score"])
def winner(ranking: list[Ranked], train: Digits, test: Digits) -> tuple[SVC, float]:
    """Train the best setting on all training digits."""
    model = SVC(**ranking[0].setting).fit(*train)
    return model, float(model.score(*test))


def sweep_pipeline(grid: dict[str, list[float]], folds: int, digits: int) -> Pipeline:
    """Build the pipeline: load, one item for each setting and fold, rank, train the winner."""
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    pipeline = Pipeline("sweep", context=context(settings=settings, folds=folds, digits=digits))
    pipeline.add_step(load)
    pipeline.map(score, over={**grid, "fold": range(folds)}, combine="product")
    return pipeline.add_steps([ranking, winner])


def by_scikit_learn(grid: dict[str, list[float]], folds: int, digits: int) -> tuple[Ranked, float]:
    """Do the same with GridSearchCV: return the winner with its scores, and its score on the unseen digits."""
    train, test = load(digits)
    search = GridSearchCV(SVC(), grid, cv=StratifiedKFold(folds)).fit(*train)
    scores = tuple(float(search.cv_results_[f"split{fold}_test_score"][search.best_index_]) for fold in range(folds))
    return Ranked(search.best_params_, float(search.best_score_), scores), float(search.score(*test))


def main(arguments: list[str] | None = None) -> int:
    """Read the options, run the sweep, print the best."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="process", choices=["local", "thread", "process", "async"])
    parser.add_argument("--workers", type=int, default=2, help="how many workers")
    parser.add_argument("--small", action="store_true", help="500 digits, 6 settings, 3 folds")
    parser.add_argument("--check", action="store_true", help="compare with GridSearchCV")
    options = parser.parse_args(arguments)
    grid, folds, digits = (SMALL_GRID, 3, 500) if options.small else (GRID, 5, 1797)

    many = {"max_workers": options.workers, "backend": options.backend}
    executor = LocalExecutor() if options.backend == "local" else ParallelExecutor(**many)
    with executor:
        result = sweep_pipeline(grid, folds, digits).run(executor=executor, raise_on_failure=True)

    print(f"{len(result['score'])} trainings, {result.duration_seconds:.2f} s; the best settings:")
    for each in result["ranking"][:3]:
        shown = "  ".join(f"{name}={value:<6g}" for name, value in each.setting.items())
        print(f"  {shown} {each.mean:.4f}  ({' '.join(f'{score:.3f}' for score in each.scores)})")
    print(f"the winner reads {result['unseen_score']:.2%} of the unseen digits")
    if not options.check:
        return 0
    equal = by_scikit_learn(grid, folds, digits) == (result["ranking"][0], result["unseen_score"])
    print(f"GridSearchCV: {'equal' if equal else 'DIFFERENT'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
