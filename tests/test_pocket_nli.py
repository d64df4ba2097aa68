"The built-in data set keeps what its README promises."

import json
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

TASK = load_task("pocket_nli")
SPLITS = {split: load_examples(TASK, split) for split in TASK.splits}
ROWS = [example for split in SPLITS.values() for example in split]


def test_every_premise_has_one_hypothesis_of_each_class():
    labels = {}
    for row in ROWS:
        labels.setdefault(row.fields["premise"], []).append(row.label)
    assert len(labels) == 142
    assert all(Counter(found) == Counter(TASK.labels) for found in labels.values())


def test_hypotheses_are_distinct_and_every_row_has_a_rationale_of_one_sentence():
    assert len({row.fields["hypothesis"] for row in ROWS}) == len(ROWS) == 426
    for row in ROWS:
        assert 10 <= len(row.rationale.split()) <= 25, row
        assert not re.search(r"\b(entail|contradict|neutral|premise|hypothes)", row.rationale.lower()), row


def hypothesis_only_accuracies(n_foldings: int) -> dict[str, float]:
    "Accuracy of bag-of-words classifiers that see the hypothesis alone: 8 folds by premise, mean of some foldings."
    texts = [row.fields["hypothesis"] for row in ROWS]
    labels = np.array([row.label for row in ROWS])
    premises = np.unique([row.fields["premise"] for row in ROWS], return_inverse=True)[1]
    found = {}
    for ngrams in (1, 2):
        for classifier in (LogisticRegression(max_iter=2000), MultinomialNB()):
            model = make_pipeline(CountVectorizer(ngram_range=(1, ngrams), binary=True), classifier)
            scores = [
                cross_val_score(model, texts, labels, groups=premises, cv=StratifiedGroupKFold(8, shuffle=True, random_state=seed)).mean()
                for seed in range(n_foldings)
            ]
            found[f"{type(classifier).__name__}, up to {ngrams}-grams"] = float(np.mean(scores))
    return found


def test_the_hypothesis_alone_does_not_give_the_class_away():
    accuracies = hypothesis_only_accuracies(5)
    print(json.dumps(accuracies, indent=1))
    assert max(accuracies.values()) < 0.45


def test_that_check_finds_a_give_away(monkeypatch):
    leaky = [
        row
        if row.label != "contradiction"
        else type(row)(row.id, {**row.fields, "hypothesis": row.fields["hypothesis"] + " never"}, row.label, row.rationale)
        for row in ROWS
    ]
    monkeypatch.setitem(globals(), "ROWS", leaky)
    assert max(hypothesis_only_accuracies(1).values()) > 0.45


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_readme_states_the_counts(split):
    readme = (definitions_dir() / "pocket_nli" / "README.md").read_text()
    assert f"| {split} | {len(SPLITS[split]) // 3} | {len(SPLITS[split])} |" in readme
