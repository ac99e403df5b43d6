"""The VOC07 protocol's SVMs one after the other: as scikit-learn spells it out, and as we did."""

import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from sklearn.utils.parallel import Parallel, delayed

COSTS = (0.01, 0.1, 1.0, 10.0)


def svm(cost, *, dual=False, tol=1e-4):
    return LinearSVC(
        C=cost,
        class_weight={1: 2, -1: 1},
        penalty="l2",
        loss="squared_hinge",
        max_iter=2000,
        dual=dual,
        tol=tol,
        random_state=0,
    )


def slow_voc07_map(train_features, train_targets, test_features, test_targets, *, dual):
    train_features, test_features = normalize(train_features), normalize(test_features)
    values = []
    for k in range(train_targets.shape[1]):
        signs = np.where(train_targets[:, k] == 1, 1, -1)
        best_score, best_svm = -1.0, None
        for cost in COSTS:
            candidate = svm(cost, dual=dual)
            folds = cross_val_score(
                candidate, train_features, signs, cv=3, scoring="average_precision"
            )
            if folds.mean() > best_score:
                best_score, best_svm = folds.mean(), candidate.fit(train_features, signs)
        known = test_targets[:, k] != 0
        scores = best_svm.decision_function(test_features[known])
        values.append(average_precision_score(test_targets[known, k] == 1, scores))
    return 100 * float(np.mean(values))


def one_by_one_scores(train_features, train_signs, test_features, *, num_jobs=1, tol=1e-4):
    """(M, K) decision values; classes run side by side in threads, as liblinear lets go of the GIL.

    The fastest way with LinearSVC: what the benchmark takes as its yardstick.
    """
    columns = Parallel(n_jobs=num_jobs, prefer="threads")(
        delayed(_class_scores)(train_features, signs, test_features, tol) for signs in train_signs.T
    )
    return np.stack(columns, axis=1)


def _class_scores(train_features, signs, test_features, tol):
    precisions = [
        np.mean(
            [
                average_precision_score(
                    signs[held_out] > 0,
                    svm(cost, tol=tol)
                    .fit(train_features[train], signs[train])
                    .decision_function(train_features[held_out]),
                )
                for train, held_out in StratifiedKFold(3).split(train_features, signs)
            ]
        )
        for cost in COSTS
    ]
    cost = COSTS[int(np.argmax(precisions))]
    return svm(cost, tol=tol).fit(train_features, signs).decision_function(test_features)
