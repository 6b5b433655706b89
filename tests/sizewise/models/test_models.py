"""The models against NumPy float64 transcriptions, backward passes too; what every model promises."""

import numpy as np
import pytest
import torch
from optuna.trial import FixedTrial
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.config.study_file import StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.embedding import Bags, build
from sizewise.models import MODELS
from sizewise.models import build as build_model
from sizewise.search.space import configure
from sizewise.search.with_optuna.samplers import Suggester
from sizewise.training.steps.optimizers import build_optimizer
from sizewise_core.errors import InputError

CARDINALITIES, DIM, ROWS = [10, 1, 33], 5, 6
OPTIONS = {
    "dlrm": {"bottom_mlp": [7], "top_mlp": [9, 4]},
    "dcn": {"layers": 3, "rank": 2, "bottom_mlp": [7], "top_mlp": [9, 4]},
    "deepfm": {"top_mlp": [9, 4]},
    "wide_deep": {"top_mlp": [9, 4]},
    "din": {"target": 0, "attention_mlp": [6, 3], "top_mlp": [9, 4]},
    "mlp": {"top_mlp": [9, 4]},
}


def make(kind, dense=3, seed=1, dim=DIM, method="full", **options):
    embedding = build(method, CARDINALITIES, dim, 10**6, seed)
    return build_model(kind, embedding, dense, {**OPTIONS[kind], **options})


def inputs(dense=3):
    random = np.random.default_rng(0)
    ids = np.stack([random.integers(0, n, ROWS) for n in CARDINALITIES], axis=1)
    return random.normal(size=(ROWS, dense)), ids, random.integers(0, 2, ROWS)


def rows_of(kind, dense=3):
    """What a model is called with, float32: its last feature is a list where it needs one."""
    numbers, ids, _ = inputs(dense)
    numbers, ids = torch.from_numpy(numbers).float(), torch.from_numpy(ids)
    if "list" not in MODELS[kind].columns.values():
        return numbers, ids
    lengths = torch.tensor([2, 0, 1, 3, 1, 4])
    values = torch.arange(int(lengths.sum())) % CARDINALITIES[-1]
    return (
        numbers,
        ids[:, :2],
        Bags(values, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])),
    )


def array(parameter):
    return parameter.detach().numpy()


class Layers:
    """An MLP with ReLU between its layers, forwards and backwards."""

    def __init__(self, module, last_relu=False):
        self.linears = [m for m in module if isinstance(m, torch.nn.Linear)]
        self.last_relu = last_relu
        self.gradients = {}

    def forward(self, x):
        self.kept = [x]
        for number, linear in enumerate(self.linears):
            x = x @ array(linear.weight).T + array(linear.bias)
            x = np.maximum(x, 0) if self.last_relu or number < len(self.linears) - 1 else x
            self.kept.append(x)
        return x

    def backward(self, gradient):
        for number, linear in reversed(list(enumerate(self.linears))):
            if self.last_relu or number < len(self.linears) - 1:
                gradient = gradient * (self.kept[number + 1] > 0)
            self.gradients[linear.weight] = gradient.T @ self.kept[number]
            self.gradients[linear.bias] = gradient.sum(0)
            gradient = gradient @ array(linear.weight)
        return gradient


def by_hand_dcn(model, dense, vectors, backward):
    bottom, over = Layers(model.bottom, last_relu=True), Layers(model.over)
    parts = ([bottom.forward(dense)] if model.dense_features else []) + [vectors.reshape(ROWS, -1)]
    start = x = np.concatenate(parts, axis=1)
    crosses = list(zip(model.crosses.down, model.crosses.up, model.crosses.bias, strict=True))
    kept = []
    for v, w, b in crosses:
        low = x @ array(v).T
        factor = low @ array(w).T + array(b)
        kept.append((x, low, factor))
        x = start * factor + x
    gradient = over.backward(backward(over.forward(x)[:, 0])[:, None])
    of_start, gradients = np.zeros_like(start), {}
    for (v, w, b), (x, low, factor) in reversed(list(zip(crosses, kept, strict=True))):
        of_factor, of_start = gradient * start, of_start + gradient * factor
        gradients |= {w: of_factor.T @ low, b: of_factor.sum(0), v: (of_factor @ array(w)).T @ x}
        gradient = gradient + of_factor @ array(w) @ array(v)
    gradient = gradient + of_start
    if model.dense_features:
        bottom.backward(gradient[:, :DIM])
        gradient = gradient[:, DIM:]
    return {**gradients, **bottom.gradients, **over.gradients}, gradient.reshape(vectors.shape)


def by_hand_deepfm(model, dense, vectors, backward):
    deep, v, first = Layers(model.deep), vectors[:, :, :-1], vectors[:, :, -1]
    pairs = sum((v[:, i] * v[:, j]).sum(1) for i in range(3) for j in range(i))
    logits = first.sum(1) + pairs
    logits += deep.forward(np.concatenate([v.reshape(ROWS, -1), dense], axis=1))[:, 0]
    gradients = {}
    if model.dense_features:
        logits += (dense @ array(model.linear.weight).T)[:, 0]
    gradient = backward(logits)
    if model.dense_features:
        gradients[model.linear.weight] = gradient[None] @ dense
    of_vectors = deep.backward(gradient[:, None])[:, : v[0].size].reshape(v.shape)
    of_vectors = of_vectors + gradient[:, None, None] * (v.sum(1, keepdims=True) - v)
    of_first = np.broadcast_to(gradient[:, None, None], (ROWS, 3, 1))
    return {**gradients, **deep.gradients}, np.concatenate([of_vectors, of_first], axis=2)


def by_hand_wide_deep(model, dense, vectors, backward):
    deep, v = Layers(model.deep), vectors[:, :, :-1]
    logits = vectors[:, :, -1].sum(1)
    logits += deep.forward(np.concatenate([v.reshape(ROWS, -1), dense], axis=1))[:, 0]
    if model.dense_features:
        logits += (dense @ array(model.linear.weight).T)[:, 0]
    gradient, gradients = backward(logits), {}
    if model.dense_features:
        gradients[model.linear.weight] = gradient[None] @ dense
    of_vectors = deep.backward(gradient[:, None])[:, : v[0].size].reshape(v.shape)
    of_first = np.broadcast_to(gradient[:, None, None], (ROWS, 3, 1))
    return {**gradients, **deep.gradients}, np.concatenate([of_vectors, of_first], axis=2)


def by_hand_mlp(model, dense, vectors, backward):
    layers = Layers(model.layers)
    logits = layers.forward(np.concatenate([dense, vectors.reshape(ROWS, -1)], axis=1))[:, 0]
    gradient = layers.backward(backward(logits)[:, None])
    return layers.gradients, gradient[:, dense.shape[1] :].reshape(vectors.shape)


@pytest.mark.parametrize("dense_features", [3, 0])
@pytest.mark.parametrize("kind", ["dcn", "deepfm", "wide_deep", "mlp"])
def test_forward_and_gradients_equal_numpy(kind, dense_features):
    model = make(kind, dense_features).double()
    with torch.no_grad():  # larger than at the start of training, so that every product matters
        model.embedding.table.weight.mul_(50)
        if kind == "dcn":
            for bias in model.crosses.bias:
                bias.normal_(generator=torch.Generator().manual_seed(2))
    dense, ids, label = inputs(dense_features)
    found = model(torch.from_numpy(dense), torch.from_numpy(ids))
    assert found.shape == (ROWS,)
    binary_cross_entropy_with_logits(found, torch.from_numpy(label).double()).backward()

    table = array(model.embedding.table.weight)
    rows = ids + np.cumsum([0, *CARDINALITIES[:-1]])

    def backward(logits):
        np.testing.assert_allclose(array(found), logits, rtol=0, atol=1e-10)
        return (1 / (1 + np.exp(-logits)) - label) / ROWS

    gradients, of_vectors = globals()[f"by_hand_{kind}"](model, dense, table[rows], backward)
    of_table = np.zeros_like(table)
    np.add.at(of_table, rows, of_vectors)
    gradients[model.embedding.table.weight] = of_table
    assert gradients.keys() == set(model.parameters())
    for parameter, expected in gradients.items():
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-10)
        assert np.abs(expected).max() > 1e-6


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("dense_features", [3, 0])
def test_din_equals_numpy(dense_features, pooling):
    """Four features: the target, another token, the history, and a list that is pooled."""
    cardinalities, lists = (
        [10, 4, 33, 5],
        [[[3], [], [7, 7, 1], [30], [2, 9], [4]], [[], [1, 2], [4], [], [0, 0, 3], [2]]],
    )
    embedding = build("full", cardinalities, DIM, 10**6, 1, pooling=pooling)
    options = {"target": 1, "history": 2, "attention_mlp": [6, 3], "top_mlp": [9, 4]}
    model = build_model("din", embedding, dense_features, options).double()
    with torch.no_grad():
        embedding.table.weight.mul_(80)
    dense, ids, label = inputs(dense_features)
    ids = np.stack([ids[:, 0], ids[:, 2] % 4], axis=1)
    bags = [bag for column in lists for bag in column]
    offsets = torch.tensor(np.cumsum([0, *map(len, bags)]))
    found = model(
        torch.from_numpy(dense),
        torch.from_numpy(ids),
        Bags(torch.tensor([value for bag in bags for value in bag]), offsets),
    )
    binary_cross_entropy_with_logits(found, torch.from_numpy(label).double()).backward()

    table, starts = array(embedding.table.weight), np.cumsum([0, *cardinalities[:-1]])
    attention, top = Layers(model.attention), Layers(model.top)
    row = np.repeat(np.arange(ROWS), list(map(len, lists[0])))
    keys = np.concatenate([np.array(bag, dtype=int) for bag in lists[0]]) + starts[2]
    q, k = table[ids[row, 1] + starts[1]], table[keys]
    weights = attention.forward(np.concatenate([q, k, q - k, q * k], axis=1))
    history, other = np.zeros((ROWS, DIM)), np.zeros((ROWS, DIM))
    np.add.at(history, row, weights * k)
    share = [1 / max(len(bag), 1) if pooling == "mean" else 1 for bag in lists[1]]
    for number, bag in enumerate(lists[1]):
        other[number] = share[number] * table[np.array(bag, dtype=int) + starts[3]].sum(0)
    single = table[ids + starts[:2]]
    logits = top.forward(np.concatenate([dense, single.reshape(ROWS, -1), other, history], axis=1))[:, 0]
    np.testing.assert_allclose(array(found), logits, rtol=0, atol=1e-10)

    gradient = top.backward(((1 / (1 + np.exp(-logits)) - label) / ROWS)[:, None])[:, dense_features:]
    of_single, of_other, of_history = np.split(gradient, [2 * DIM, 3 * DIM], axis=1)
    of_table = np.zeros_like(table)
    np.add.at(of_table, ids + starts[:2], of_single.reshape(ROWS, 2, DIM))
    for number, bag in enumerate(lists[1]):
        for value in bag:
            of_table[value + starts[3]] += share[number] * of_other[number]
    of_weights = (of_history[row] * k).sum(1, keepdims=True)
    of_q, of_k, of_difference, of_product = np.split(attention.backward(of_weights), 4, axis=1)
    np.add.at(of_table, ids[row, 1] + starts[1], of_q + of_difference + of_product * k)
    np.add.at(of_table, keys, weights * of_history[row] + of_k - of_difference + of_product * q)
    expected = {**attention.gradients, **top.gradients, embedding.table.weight: of_table}
    assert expected.keys() == set(model.parameters())
    for parameter, wanted in expected.items():
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=0, atol=1e-10)
        assert np.abs(wanted).max() > 1e-6


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("method", ["full", "robe", "hash"])
def test_din_steps_its_tables_in_the_backward_pass_as_an_optimizer_would(method, optimizer):
    """By the gradients of single values and of a list's together."""
    dense, ids, bags = rows_of("din")
    label, models = torch.tensor([0.0, 1, 1, 0, 1, 0]), [make("din", method=method) for _ in range(2)]
    for model, in_backward in zip(models, (True, False), strict=True):
        stepper = build_optimizer(optimizer, model, 0.3, in_backward=in_backward)
        for _ in range(4):
            stepper.zero_grad()
            binary_cross_entropy_with_logits(model(dense, ids, bags), label).backward()
            stepper.step()
    before = make("din", method=method).state_dict()
    for name, value in models[1].state_dict().items():
        torch.testing.assert_close(models[0].state_dict()[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, before[name]) or value.dim() == 0


@pytest.mark.parametrize("kind", OPTIONS)
def test_one_seed_makes_the_complete_model(kind):
    rows = rows_of(kind)
    first = make(kind, seed=1)
    torch.rand(7)  # whatever else draws from the global generator
    second, other = make(kind, seed=1), make(kind, seed=2)
    assert torch.equal(first(*rows), second(*rows))
    drawn = [(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True) if a.any()]
    assert all(not torch.equal(a, b) for a, b in drawn)
    with torch.device("meta"):
        assert make(kind).model_bytes == first.model_bytes


@pytest.mark.parametrize("dense", [3, 0])
@pytest.mark.parametrize("kind", OPTIONS)
def test_the_computed_parameters_are_those_that_there_are(kind, dense):
    options = MODELS[kind].options(**OPTIONS[kind])
    model = make(kind, dense, method="robe")
    lists = "list" in MODELS[kind].columns.values()
    computed = MODELS[kind].floats(3, dense, DIM, options)
    inside = {id(p) for p in model.embedding.parameters()}
    assert computed.parameters == sum(p.numel() for p in model.parameters() if id(p) not in inside)

    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        rows = torch.rand(512, dense), torch.zeros(512, 3, dtype=torch.int64)
        if lists:
            bags = Bags(torch.zeros(512 * 5, dtype=torch.int64), torch.arange(513) * 5)
            rows = rows[0], rows[1][:, :2], bags
        model(*rows).sum()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    measured = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights) / 512 / 4
    per_row = computed.per_row + 5 * computed.per_value
    # Counted by the footprint itself, with the vectors of lists.
    indices = 2 * 2 * 3 * DIM if not lists else 2 * 2 * 7 * DIM + 2 * 5 * DIM
    assert measured <= per_row + indices
    assert per_row < 3 * measured


@pytest.mark.parametrize("kind", [kind for kind in OPTIONS if kind != "din"])
def test_a_list_of_one_value_is_that_value(kind):
    dense, ids, _ = inputs()
    dense, ids = torch.from_numpy(dense).float(), torch.from_numpy(ids)
    model = make(kind)
    bags = Bags(ids[:, 2].contiguous(), torch.arange(ROWS + 1))
    torch.testing.assert_close(model(dense, ids[:, :2], bags), model(dense, ids))


@pytest.mark.parametrize("kind", OPTIONS)
def test_bfloat16_changes_little_and_gives_float32(kind):
    rows = rows_of(kind)
    exact = make(kind)
    embedding = build("full", CARDINALITIES, DIM, 10**6, 1)
    rounded = build_model(kind, embedding, 3, OPTIONS[kind], "bfloat16")
    found = rounded(*rows)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact(*rows), rtol=0.05, atol=0.05)
    assert not torch.equal(found, exact(*rows))


def test_mlperf_configuration_has_its_published_sizes():
    """dlrm_dcnv2: 13-512-256-128, three crosses of rank 512 over 27 * 128, 1024-1024-512-256-1: 16,044,033 numbers."""
    embedding = build("robe", [40_000_000] * 26, 128, 1024, 1, block_len=128)
    options = {"layers": 3, "rank": 512, "bottom_mlp": [512, 256, 128], "top_mlp": [1024, 1024, 512, 256]}
    model = build_model("dcn", embedding, 13, options)
    crosses = 3 * (2 * 3_456 * 512 + 3_456)
    over = (3_456 * 1024 + 1024) + 1_049_600 + 524_800 + 131_328 + 257
    assert model.model_bytes == 4 * ((7_168 + 131_328 + 32_896) + crosses + over) + 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 2}, "must be two of 3 features"),
        ({"target": 0, "history": 3}, "must be two of 3 features"),
        ({"target": "user"}, "as numbers"),
    ],
)
def test_a_din_without_target_or_history_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_model("din", build("robe", CARDINALITIES, DIM, 10_000, 1), 3, options)


def test_a_din_on_rows_without_lists_is_refused():
    rows = rows_of("din")
    with pytest.raises(InputError, match="3 token columns and no lists: use another model"):
        make("din")(rows[0], torch.zeros(ROWS, 3, dtype=torch.int64))
    bags = Bags(torch.zeros(0, dtype=torch.int64), torch.zeros(3 * ROWS + 1, dtype=torch.int64))
    with pytest.raises(InputError, match="have 0 token columns: use another model"):
        make("din")(rows[0], torch.zeros(ROWS, 0, dtype=torch.int64), bags)


def test_a_deepfm_of_dim_1_has_no_vectors_and_is_refused():
    with pytest.raises(InputError, match=r"model.dim: model deepfm needs vectors of at least 2 numbers"):
        make("deepfm", dim=1)
    with pytest.raises(ValidationError, match=r"model deepfm needs vectors of at least 2 numbers: raise dim"):
        study(kind="deepfm", dim={"low": 1, "high": 9})


def study(**model):
    return StudySpec.model_validate(
        {
            "name": "s",
            "data": "d",
            "model": model,
            "embedding": {"method": "robe"},
            "search": {"memory_budget": 1_000, "learning_rate": 0.1, "epochs": 1},
        }
    )


def drawn(spec, count=40):
    suggester = Suggester("random", 1, ["maximize"], lambda trial: configure(spec, trial, 10**6))
    for number in range(count):
        params = suggester.ask(number, {})
        yield configure(spec, FixedTrial(dict(params)), 10**6), params


def test_models_are_searched_each_with_its_own_options():
    spec = study(
        kind={"choices": ["dlrm", "dcn", "deepfm", "din"]},
        rank={"low": 2, "high": 8},
        target={"choices": [0, 1]},
        bottom_mlp={"choices": [[8], [16]]},
        top_mlp=[32],
    )
    assert StudySpec.model_validate(spec.model_dump()) == spec  # as study.yaml is read again
    assert [name for name, _ in spec.searched()] == ["model", "bottom_mlp", "rank", "target"]
    found = {config.model.kind: (config, params) for config, params in drawn(spec)}
    assert {kind: sorted(params) for kind, (_, params) in found.items()} == {
        "dlrm": ["bottom_mlp", "model"],
        "dcn": ["bottom_mlp", "model", "rank"],
        "deepfm": ["model"],
        "din": ["model", "target"],
    }
    for kind, (config, params) in found.items():
        assert TrialConfig.from_flat(config.flat()) == config
        alone = study(
            kind=kind,
            top_mlp=[32],
            **{
                name: getattr(config.model, name)
                for name in ("bottom_mlp", "rank", "target")
                if name in params
            },
        )
        assert config.digest() == next(drawn(alone))[0].digest()  # as in a study of that model alone
        model = build_model(kind, build("robe", [9, 8, 7], 16, 1_000, 1), 2, config.options_of_model())
        assert type(model) is MODELS[kind]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": {"choices": ["dlrm", "dcm"]}}, r"unknown model 'dcm': .*did you mean dcn"),
        ({"kind": {"choices": ["dlrm", "mlp"]}, "rank": 3}, r"rank: no such option of model dlrm or mlp"),
        ({"kind": "dcn", "rank": {"low": 0, "high": 4}}, r"rank: Input should be greater"),
        ({"kind": {"choices": ["mlp", "deepfm"]}, "bottom_mlp": [4]}, r"bottom_mlp: no option of model mlp or deepfm"),
        ({"kind": ["dcn"]}, r"unknown model"),
        ({"kind": {"choices": ["mlp", "din"]}}, r"target: Field required"),
        ({"kind": "din", "target": "i", "attention_mlp": [0]}, r"attention_mlp.0: Input should be greater"),
    ],
)  # fmt: skip
def test_what_none_of_the_models_has_is_refused(model, message):
    with pytest.raises(ValidationError, match=message):
        study(**model)
