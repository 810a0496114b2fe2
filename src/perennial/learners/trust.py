"""Objects by name without pickle: what a saved scikit-learn model may hold, and nothing else.

skops writes an object as its type's name, numbers and further objects. Loading makes the types blank
(``type.__new__``), fills in what was written and calls ``__setstate__`` where there is one. So what a file can do is
bounded by the types that may be named, and by what may be done to each. Both are here, and neither is taken from skops
or from the file:

- Each way of building something (skops calls it a loader) has the exact names it may build. An estimator may be made
  blank and filled, never called; only numpy's number types and Python's own plain types are called, on plain values.
- Bound methods, attribute getters and pickles have no loader here at all.
- The file must be of the current protocol of skops: older ones have loaders that say their names elsewhere.
- An operator's own types may be built in any of the remaining ways.

How the list was vetted: for every type, the code that runs while it is made and filled was read; that is
``BaseEstimator.__setstate__`` (compares a version, sets attributes) for all of scikit-learn but those named in
``tests/unit/learners/test_trust.py``, which fails when an installed type brings another one, a ``__new__`` or a
``__del__`` of its own. Functions compute on arrays or check them, whatever they are given. Left out: CatBoost inside a
pipeline, whose digest is not that of what was saved; River, whose trees were seen to predict something else; anything
that compiles, imports, opens files or keeps a cache on disk.

A list of names cannot say whether numbers make sense. Compiled code follows the indices of trees without checking
them, so these are checked here after loading. Other compiled predictors (support vectors, boosters) trust their
numbers: a crafted file may still crash a process, and does not get to run code.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import FormatError
from perennial.core.protocols import Trust

_ESTIMATORS = """
calibration CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration _TemperatureScaling
cluster._agglomerative FeatureAgglomeration
cluster._bisect_k_means BisectingKMeans
cluster._kmeans KMeans MiniBatchKMeans
compose._column_transformer ColumnTransformer
compose._target TransformedTargetRegressor
covariance._elliptic_envelope EllipticEnvelope
covariance._empirical_covariance EmpiricalCovariance
covariance._robust_covariance MinCovDet
covariance._shrunk_covariance LedoitWolf OAS ShrunkCovariance
cross_decomposition._pls CCA PLSCanonical PLSRegression PLSSVD
decomposition._dict_learning DictionaryLearning MiniBatchDictionaryLearning SparseCoder
decomposition._factor_analysis FactorAnalysis
decomposition._fastica FastICA
decomposition._incremental_pca IncrementalPCA
decomposition._kernel_pca KernelPCA
decomposition._lda LatentDirichletAllocation
decomposition._nmf MiniBatchNMF NMF
decomposition._pca PCA
decomposition._sparse_pca MiniBatchSparsePCA SparsePCA
decomposition._truncated_svd TruncatedSVD
discriminant_analysis LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis
dummy DummyClassifier DummyRegressor
ensemble._bagging BaggingClassifier BaggingRegressor
ensemble._forest ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor
ensemble._forest RandomTreesEmbedding
ensemble._gb GradientBoostingClassifier GradientBoostingRegressor
ensemble._hist_gradient_boosting.binning _BinMapper
ensemble._hist_gradient_boosting.gradient_boosting HistGradientBoostingClassifier HistGradientBoostingRegressor
ensemble._hist_gradient_boosting.predictor TreePredictor
ensemble._iforest IsolationForest
ensemble._stacking StackingClassifier StackingRegressor
ensemble._voting VotingClassifier VotingRegressor
ensemble._weight_boosting AdaBoostClassifier AdaBoostRegressor
feature_extraction._dict_vectorizer DictVectorizer
feature_extraction._hash FeatureHasher
feature_extraction.text CountVectorizer HashingVectorizer TfidfTransformer TfidfVectorizer
feature_selection._from_model SelectFromModel
feature_selection._rfe RFE RFECV
feature_selection._sequential SequentialFeatureSelector
feature_selection._univariate_selection GenericUnivariateSelect SelectFdr SelectFpr SelectFwe SelectKBest
feature_selection._univariate_selection SelectPercentile
feature_selection._variance_threshold VarianceThreshold
frozen._frozen FrozenEstimator
gaussian_process._gpc GaussianProcessClassifier _BinaryGaussianProcessClassifierLaplace
gaussian_process._gpr GaussianProcessRegressor
gaussian_process.kernels CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern
gaussian_process.kernels PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel
impute._base MissingIndicator SimpleImputer
impute._iterative IterativeImputer
impute._knn KNNImputer
isotonic IsotonicRegression
kernel_approximation AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler
kernel_ridge KernelRidge
linear_model._base LinearRegression
linear_model._bayes ARDRegression BayesianRidge
linear_model._coordinate_descent ElasticNet ElasticNetCV Lasso LassoCV MultiTaskElasticNet MultiTaskElasticNetCV
linear_model._coordinate_descent MultiTaskLasso MultiTaskLassoCV
linear_model._glm.glm GammaRegressor PoissonRegressor TweedieRegressor
linear_model._huber HuberRegressor
linear_model._least_angle Lars LarsCV LassoLars LassoLarsCV LassoLarsIC
linear_model._logistic LogisticRegression LogisticRegressionCV
linear_model._omp OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV
linear_model._passive_aggressive PassiveAggressiveClassifier PassiveAggressiveRegressor
linear_model._perceptron Perceptron
linear_model._quantile QuantileRegressor
linear_model._ransac RANSACRegressor
linear_model._ridge Ridge RidgeCV RidgeClassifier RidgeClassifierCV
linear_model._stochastic_gradient SGDClassifier SGDOneClassSVM SGDRegressor
linear_model._theil_sen TheilSenRegressor
metrics._scorer _PassthroughScorer
mixture._bayesian_mixture BayesianGaussianMixture
mixture._gaussian_mixture GaussianMixture
model_selection._classification_threshold FixedThresholdClassifier TunedThresholdClassifierCV
model_selection._search GridSearchCV RandomizedSearchCV
model_selection._split GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut LeavePOut
model_selection._split PredefinedSplit RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold
model_selection._split StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit
multiclass OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier _ConstantPredictor
multioutput ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain
naive_bayes BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB
neighbors._classification KNeighborsClassifier RadiusNeighborsClassifier
neighbors._graph KNeighborsTransformer RadiusNeighborsTransformer
neighbors._nca NeighborhoodComponentsAnalysis
neighbors._nearest_centroid NearestCentroid
neighbors._regression KNeighborsRegressor RadiusNeighborsRegressor
neural_network._multilayer_perceptron MLPClassifier MLPRegressor
neural_network._rbm BernoulliRBM
neural_network._stochastic_optimizers AdamOptimizer SGDOptimizer
pipeline FeatureUnion Pipeline
preprocessing._data Binarizer KernelCenterer MaxAbsScaler MinMaxScaler Normalizer PowerTransformer
preprocessing._data QuantileTransformer RobustScaler StandardScaler
preprocessing._discretization KBinsDiscretizer
preprocessing._encoders OneHotEncoder OrdinalEncoder
preprocessing._function_transformer FunctionTransformer
preprocessing._label LabelBinarizer LabelEncoder MultiLabelBinarizer
preprocessing._polynomial PolynomialFeatures SplineTransformer
preprocessing._target_encoder TargetEncoder
random_projection GaussianRandomProjection SparseRandomProjection
semi_supervised._label_propagation LabelPropagation LabelSpreading
semi_supervised._self_training SelfTrainingClassifier
svm._classes LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR
tree._classes DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor
"""
_PARTS = """
_loss.link HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit
_loss.loss AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss
_loss.loss HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss
neighbors._ball_tree BallTree BallTree32 BallTree64
neighbors._kd_tree KDTree KDTree32 KDTree64
metrics._dist_metrics BrayCurtisDistance32 BrayCurtisDistance64 CanberraDistance32 CanberraDistance64
metrics._dist_metrics ChebyshevDistance32 ChebyshevDistance64 EuclideanDistance32 EuclideanDistance64
metrics._dist_metrics HammingDistance32 HammingDistance64 ManhattanDistance32 ManhattanDistance64
"""
_LOSSES = """
_loss._loss CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss
_loss._loss CyHalfPoissonLoss CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss
linear_model._sgd_fast EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge
linear_model._sgd_fast SquaredLoss
"""
_FUNCTIONS = """
feature_selection._univariate_selection chi2 f_classif f_regression r_regression
feature_selection._mutual_info mutual_info_classif mutual_info_regression
preprocessing._function_transformer _identity
utils.validation check_array
"""
_BOOSTERS = """
lightgbm.basic.Booster
lightgbm.sklearn.LGBMClassifier
lightgbm.sklearn.LGBMRegressor
xgboost.core.Booster
xgboost.sklearn.XGBClassifier
xgboost.sklearn.XGBRegressor
"""
_UFUNCS = "absolute cbrt ceil cos deg2rad exp exp2 expm1 fabs floor isfinite isnan log log10 log1p log2 negative"
_UFUNCS += " positive rad2deg reciprocal rint sign sin sqrt square tan tanh trunc arctan arcsinh arccosh sinh cosh"
_NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 str_ bool_"
_NUMBERS += " longlong ulonglong"


def _of_sklearn(text: str) -> set[str]:
    lines = (line.split() for line in text.split("\n") if line)
    return {f"sklearn.{module}.{name}" for module, *names in lines for name in names}


def _within(modules: str, names: str) -> set[str]:
    return {f"{module}.{name}" for module in modules.split() for name in names.split()}


_PLAIN = {"builtins.str", "builtins.int", "builtins.float", "builtins.bool"}
_NUMPY = _within("numpy", _NUMBERS)
_TREE = "sklearn.tree._tree.Tree"

#: what may be made blank and filled
TYPES = frozenset(_of_sklearn(_ESTIMATORS) | _of_sklearn(_PARTS) | set(_BOOSTERS.split()))
#: what may be named as a function, and is called when the model predicts
FUNCTIONS = frozenset(
    _of_sklearn(_FUNCTIONS) | _within("numpy numpy._core._multiarray_umath numpy.core._multiarray_umath", _UFUNCS)
)

#: each way that skops builds something, and the names it may build; those not here may build nothing
LOADERS: Mapping[str, frozenset[str]] = {
    "JsonNode": frozenset({"builtins.str"}),
    "CachedNode": frozenset({"None.None"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "SetNode": frozenset({"builtins.set"}),
    "DictNode": frozenset({"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"}),
    "DefaultDictNode": frozenset({"collections.defaultdict"}),
    "BytesNode": frozenset({"builtins.bytes"}),
    "BytearrayNode": frozenset({"builtins.bytearray"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "TypeNode": frozenset(_PLAIN | _NUMPY | {"builtins.list", "builtins.dict", "collections.OrderedDict"}),
    "FunctionNode": FUNCTIONS,
    "PartialNode": frozenset({"functools.partial"}),  # of what is itself listed
    "NdArrayNode": frozenset({"numpy.ndarray"} | _NUMPY),
    "MaskedArrayNode": frozenset({"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"}),
    "DTypeNode": frozenset({"numpy.dtype"}),
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "SparseMatrixNode": frozenset(
        f"scipy.sparse._{kind}.{kind}_{form}"
        for kind in ("bsr", "coo", "csc", "csr", "dia")
        for form in ("matrix", "array")
    ),
    "TreeNode": frozenset({_TREE}),
    "LossNode": frozenset(_of_sklearn(_LOSSES)),
    "ObjectNode": TYPES,
}
#: the further way in which an operator's own types are built: called, with arguments from the file
_CALLED = "ConstructorFromReduceNode"

#: what skops raises over a file that is not what it should be
_BROKEN = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    ImportError,
    OSError,
    RecursionError,
    BadZipFile,
)


def dump(thing: Any) -> bytes:
    """An object and what it holds, as skops writes it.

    Raises
    ------
    TypeError, ValueError, AttributeError
        If skops cannot write some part of it.
    """
    from skops.io import dumps

    return bytes(dumps(thing, compression=ZIP_DEFLATED, compresslevel=1))


def load(data: bytes, trust: Trust) -> Any:
    """What :func:`dump` wrote, if every name in it is on the list or among ``trust.types``.

    Raises
    ------
    FormatError
        If it names anything else (nothing has run then), is no such file, or holds trees that lead nowhere.
    """
    from sklearn.exceptions import InconsistentVersionWarning
    from skops.io import loads

    schema = _schema(data)
    _refuse_strangers(schema, trust)
    # skops goes through the whole list at every part of a model: it gets the names that are in this one
    named = {name for _, name in _named(schema)}
    trusted = sorted((TYPES | FUNCTIONS | {_TREE} | set(trust.types) | _OUTER) & named)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a deprecated estimator: its maker was told
            warnings.simplefilter("error", InconsistentVersionWarning)
            thing = loads(data, trusted=trusted)
    except InconsistentVersionWarning as error:
        raise FormatError(f"saved with another scikit-learn: {error}") from error
    except _BROKEN as error:
        raise FormatError(f"the saved model does not hold what it should ({error}): train anew") from error
    for tree, columns in _trees(thing, math.inf, set()):
        _check_tree(tree, columns)
    return thing


#: containers and numbers that skops itself does not trust, or under another name
_OUTER = frozenset(set().union(*LOADERS.values()) - TYPES - FUNCTIONS - {_TREE, "None.None"})


def opens(data: bytes) -> str:
    """How skops alone opens what :func:`dump` wrote, in Python."""
    from skops.io import get_untrusted_types

    return f"skops.io.load(path, trusted={get_untrusted_types(data=data)})"


def _schema(data: bytes) -> dict[str, Any]:
    from skops.io._protocol import PROTOCOL

    try:
        with ZipFile(io.BytesIO(data)) as file:
            schema = json.loads(file.read("schema.json"))
    except _BROKEN as error:
        raise FormatError(f"this is no file of skops ({error}): train anew") from error
    if not isinstance(schema, dict) or schema.get("protocol") is not PROTOCOL:
        raise FormatError(f"it is not written in protocol {PROTOCOL}, which the installed skops writes: train anew")
    return schema


def _strangers(schema: dict[str, Any], trust: Trust) -> list[str]:
    found = set()
    for loader, name in _named(schema):
        ways = LOADERS.keys() | {_CALLED}
        if name not in LOADERS.get(loader, ()) and not (name in trust.types and loader in ways):
            found.add(name if loader in ways else f"{name} as a {loader}")
    return sorted(found)


def _refuse_strangers(schema: dict[str, Any], trust: Trust) -> None:
    if found := _strangers(schema, trust):
        raise FormatError(f"the saved model holds {unlisted(found)}")


def unlisted(found: list[str]) -> str:
    """Names that are not on the list, and what to do about it."""
    said = f"{', '.join(found)}, not on the list of what may be loaded by name"
    if any(" " in name for name in found):
        return f"{said}: use a class or a function of a module of yours instead"
    return f"{said}: if the code is yours, allow it with `serialisation: {{trust: [{', '.join(found)}]}}`"


def _named(root: Any) -> Iterator[tuple[str, str]]:
    """Every loader in a schema, and the name it is given."""
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            if "__loader__" in value or "__class__" in value:
                name = f"{value.get('__module__')}.{value.get('__class__')}"
                yield str(value.get("__loader__")), name
                if value.get("__loader__") == "JsonNode":
                    continue  # a literal
            stack.extend(value.values())


# -- what compiled code follows without looking ----------------------------------------------------------------------


def _trees(root: Any, columns: float, seen: set[int]) -> Iterator[tuple[Any, float]]:
    """Every tree of scikit-learn inside an object, and how many columns its owner lets through."""
    stack = [(root, columns)]
    while stack:
        value, columns = stack.pop()
        if isinstance(value, dict):
            stack += [(item, columns) for item in value.values()]
        elif isinstance(value, list | tuple):
            stack += [(item, columns) for item in value]
        elif isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                stack += [(item, columns) for item in value.ravel().tolist()]
        elif type(value).__module__ in (
            "sklearn.tree._tree",
            "sklearn.neighbors._kd_tree",
            "sklearn.neighbors._ball_tree",
        ):
            yield value, columns
        elif hasattr(value, "__dict__") and not isinstance(value, type) and id(value) not in seen:
            seen.add(id(value))
            inside = vars(value)
            if type(value).__name__ == "TreePredictor":
                yield value, columns
                continue
            own = inside.get("n_features_in_", math.inf)
            own = own if isinstance(own, int | np.integer) else math.inf
            # a boosted tree is asked without its own check of the columns: the narrower of the two is what protects it
            inner = min(own, columns) if "tree_" in inside else own
            stack += [(item, float(inner)) for item in inside.values()]


def _check_tree(tree: Any, columns: float) -> None:
    state = tree.__getstate__()
    if isinstance(state, tuple):
        sound = _is_sound_neighbour_tree(state)
    elif "raw_left_cat_bitsets" in state:
        nodes, words = state["nodes"], state["raw_left_cat_bitsets"]
        inner = nodes["is_leaf"] == 0
        asked = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
        sound = _leads_on(nodes["left"], nodes["right"], nodes["feature_idx"], inner, columns)
        sound = sound and words.shape[1:] == (8,) and bool((asked < len(words)).all())
    else:
        nodes = state["nodes"]
        inner = nodes["left_child"] != -1
        sound = len(nodes) == len(state["values"]) == state["node_count"]
        sound = sound and _leads_on(nodes["left_child"], nodes["right_child"], nodes["feature"], inner, columns)
    if not sound:
        raise FormatError("a tree in the saved model leads out of its own nodes or columns: it was tampered with")


def _leads_on(left: Any, right: Any, column: Any, inner: NDArray[np.bool_], columns: float) -> bool:
    """Whether every inner node leads to two later nodes, and asks for a column that there is."""
    if not len(inner) or not math.isfinite(columns):
        return False
    at = np.flatnonzero(inner)
    children = np.concatenate([left[at], right[at]]).astype(np.int64)
    later = bool(((children > np.concatenate([at, at])) & (children < len(inner))).all())
    return later and bool(((column[at] >= 0) & (column[at] < columns)).all())


def _is_sound_neighbour_tree(state: tuple[Any, ...]) -> bool:
    """Whether a k-d or ball tree keeps to its own rows and nodes."""
    rows, index, nodes, bounds, _, _, count = state[:7]
    n = len(rows)
    if rows.ndim != 2 or len(index) != n or len(nodes) != count or bounds.shape[1:] != (count, rows.shape[1]):
        return False
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    childless = 2 * np.arange(count) + 2 >= count
    return bool(
        ((index >= 0) & (index < n)).all()
        and ((starts >= 0) & (starts <= ends) & (ends <= n)).all()
        and (nodes["is_leaf"][childless] != 0).all()
    )
