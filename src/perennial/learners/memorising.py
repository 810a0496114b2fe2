"""Models that hold rows they were trained on, and not only what they learned from them.

What every model holds are statistics: weights, means, thresholds, the words of a category, extremes of a column. Of a
group with a single row these are the row's own values, and still statistics. Here are the kinds that hold rows as such,
by the classes of scikit-learn and River that do: among them trees that keep every value of a column at their leaves,
and vectorisers that keep every word of prose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: classes, with what they hold; a subclass holds it too
_HOLDING = {
    "sklearn.neighbors._base.NeighborsBase": "every row it was fitted on",
    "sklearn.neighbors._kde.KernelDensity": "every row it was fitted on",
    "sklearn.impute._knn.KNNImputer": "every row it was fitted on",
    "sklearn.svm._base.BaseLibSVM": "its support vectors, which are rows",
    "sklearn.gaussian_process._gpc.GaussianProcessClassifier": "every row it was fitted on",
    "sklearn.gaussian_process._gpr.GaussianProcessRegressor": "every row it was fitted on",
    "sklearn.kernel_ridge.KernelRidge": "every row it was fitted on",
    "sklearn.kernel_approximation.Nystroem": "a sample of rows",
    "sklearn.decomposition._kernel_pca.KernelPCA": "every row it was fitted on",
    "sklearn.semi_supervised._label_propagation.BaseLabelPropagation": "every row it was fitted on",
    "sklearn.manifold._isomap.Isomap": "every row it was fitted on",
    "sklearn.manifold._locally_linear.LocallyLinearEmbedding": "every row it was fitted on",
    "sklearn.preprocessing._data.QuantileTransformer": "values of rows, up to a thousand of each column",
    "sklearn.isotonic.IsotonicRegression": "values of rows",
    "sklearn.cluster._dbscan.DBSCAN": "its core samples, which are rows",
    "sklearn.cluster._affinity_propagation.AffinityPropagation": "its centres, which are rows",
    "sklearn.feature_extraction.text.CountVectorizer": "every word of the prose: take a HashingVectorizer",
    "river.neighbors.knn_classifier.KNNClassifier": "the newest rows",
    "river.neighbors.knn_regressor.KNNRegressor": "the newest rows",
    "river.neighbors.base.BaseNN": "the newest rows",
    "river.anomaly.lof.LocalOutlierFactor": "every row",
    "river.forest.aggregated_mondrian_forest.AMFLearner": "the rows of its leaves",
    "river.tree.splitter.ebst_splitter.EBSTSplitter": "values of rows at its leaves: give splitter=QOSplitter()",
    "river.tree.splitter.exhaustive_splitter.ExhaustiveSplitter": "values of rows: give splitter=GaussianSplitter()",
    "river.feature_extraction.vectorize.BagOfWords": "every word of the prose",
}
#: whose trees get a splitter that holds values, unless one is named
_BY_DEFAULT = {"river.forest.adaptive_random_forest.ARFRegressor": "values of rows: give splitter=QOSplitter()"}


def memorises(model: Any) -> str | None:
    """Which part of a model holds rows, and what it holds; None if none does that is known here.

    Parameters
    ----------
    model : object
        An estimator, fitted or not, or a pipeline, an ensemble or a wrapper of some.

    Examples
    --------
    >>> from sklearn.linear_model import SGDClassifier
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> memorises(SGDClassifier()) is None
    True
    >>> memorises(make_pipeline(KNeighborsClassifier()))
    'KNeighborsClassifier holds every row it was fitted on'
    """
    for part in _parts(model, set()):
        for base in type(part).__mro__:
            path = f"{base.__module__}.{base.__qualname__}"
            held = _HOLDING.get(path)
            if path in _BY_DEFAULT and getattr(part, "splitter", None) is None:
                held = _BY_DEFAULT[path]
            if held is not None:
                return f"{type(part).__name__} holds {held}"
    return None


def _parts(found: Any, seen: set[int]) -> Iterator[Any]:
    """An object and what it is made of, as far as that may be an estimator."""
    if id(found) in seen or isinstance(found, str | bytes | int | float | type(None)):
        return
    seen.add(id(found))
    if isinstance(found, Mapping):
        for value in found.values():
            yield from _parts(value, seen)
        return
    if isinstance(found, list | tuple | set):
        for value in found:
            yield from _parts(value, seen)
        return
    if not type(found).__module__.startswith(("sklearn.", "river.", "imblearn.")) and not hasattr(found, "get_params"):
        return
    yield found
    yield from _parts(getattr(found, "__dict__", {}), seen)
