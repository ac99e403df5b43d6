"""Classification metrics as one would count them by hand."""


def slow_average_precision(present, scores):
    """Sum the gain in recall times the precision over distinct thresholds."""
    total, previous_recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [flag for flag, score in zip(present, scores, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(present)
        total += (recall - previous_recall) * sum(chosen) / len(chosen)
        previous_recall = recall
    return total


def slow_top_k_accuracy(labels, scores, k):
    """Count images where fewer than k other classes score at least as high as the true one."""
    correct = 0
    for label, row in zip(labels, scores, strict=True):
        rivals = [s for c, s in enumerate(row) if c != label and s >= row[label]]
        correct += len(rivals) < k
    return correct / len(labels)
