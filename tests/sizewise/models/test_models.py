"""What every model promises; studies that search several; what no model can do."""

import pytest
import torch
from optuna.trial import FixedTrial
from pydantic import ValidationError
from tests.sizewise.models.by_hand import CARDINALITIES, DIM, OPTIONS, ROWS, inputs, make, rows_of

from sizewise.config.study_file import StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.embedding import Bags, build
from sizewise.models import MODELS
from sizewise.models import build as build_model
from sizewise.search.space import configure
from sizewise.search.with_optuna.samplers import Suggester
from sizewise_core.errors import InputError


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
