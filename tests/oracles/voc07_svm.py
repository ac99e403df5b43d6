"""The VOC07 protocol as scikit-learn spells it out: cross_val_score, one class after the other."""

import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC


def slow_voc07_map(train_features, train_targets, test_features, test_targets, *, dual):
    train_features, test_features = normalize(train_features), normalize(test_features)
    values = []
    for k in range(train_targets.shape[1]):
        signs = np.where(train_targets[:, k] == 1, 1, -1)
        best_score, best_svm = -1.0, None
        for cost in (0.01, 0.1, 1.0, 10.0):
            svm = LinearSVC(
                C=cost,
                class_weight={1: 2, -1: 1},
                penalty="l2",
                loss="squared_hinge",
                max_iter=2000,
                dual=dual,
                random_state=0,
            )
            folds = cross_val_score(svm, train_features, signs, cv=3, scoring="average_precision")
            if folds.mean() > best_score:
                best_score, best_svm = folds.mean(), svm.fit(train_features, signs)
        known = test_targets[:, k] != 0
        scores = best_svm.decision_function(test_features[known])
        values.append(average_precision_score(test_targets[known, k] == 1, scores))
    return 100 * float(np.mean(values))
