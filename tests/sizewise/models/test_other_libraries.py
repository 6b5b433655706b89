"""dcn and deepfm give what TorchRec's and DeepCTR-Torch's modules give on the same weights.

`tests/data/models/record.py` has recorded those; it says of which versions.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.embedding import build
from sizewise.models import build as build_model

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "models" / "recorded.json").read_text())
CARDINALITIES = [4, 6, 2]


def tensors(values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def linears(theirs, ours):
    """Names of the weights of linear layers there, by those that they have here."""
    return {
        f"{our}.{kind}": f"{their}.{kind}"
        for their, our in zip(theirs, ours, strict=True)
        for kind in ("weight", "bias")
    }


def dlrm_dcn(record):
    names = linears(
        [f"dense_arch.model._mlp.{n}._linear" for n in range(2)]
        + [f"over_arch.model.0._mlp.{n}._linear" for n in range(2)]
        + ["over_arch.model.1"],
        ["bottom.0", "bottom.2", "over.0", "over.2", "over.4"],
    )
    for ours, theirs in (("down", "V_kernels"), ("up", "W_kernels"), ("bias", "bias")):
        names |= {f"crosses.{ours}.{n}": f"inter_arch.crossnet.{theirs}.{n}" for n in range(3)}
    options = {"layers": 3, "rank": 2, "bottom_mlp": [6, 4], "top_mlp": [7, 5]}
    model = build_model("dcn", build("full", CARDINALITIES, 4, 10**4, 1), 3, options)
    return model, names, lambda values: values["table"]


def deepctr_deepfm(record):
    """A first-order weight is the last number of a vector here, and a table of its own there."""
    names = linears([f"model.dnn.linears.{n}" for n in range(2)], ["deep.0", "deep.2"])
    names |= {"deep.4.weight": "model.dnn_linear.weight", "deep.4.bias": "model.out.bias"}
    names["linear.weight"] = "model.linear_model.weight"

    def table(values):
        tables = [
            torch.cat([values[f"model.{where}embedding_dict.f{n}.weight"] for n in range(3)])
            for where in ("", "linear_model.")
        ]
        return torch.cat(tables, dim=1)

    model = build_model("deepfm", build("full", CARDINALITIES, 5, 10**4, 1), 3, {"top_mlp": [7, 5]})
    return model, names, table


def torchrec_deepfm(record):
    """Which has no first-order weights: they are zero here, and their gradients are not compared."""
    names = linears(["layers.0", "layers.2"], ["deep.0", "deep.2"])
    model = build_model("deepfm", build("full", CARDINALITIES, 2, 10**4, 1), 0, {"top_mlp": [7]})
    return model, names, lambda values: torch.cat([values["table"], torch.zeros(12, 1)], dim=1)


@pytest.mark.parametrize("name", RECORDED)
def test_logits_and_gradients_equal_theirs(name):
    record = RECORDED[name]
    weights, inputs, gradients = (tensors(record[part]) for part in ("weights", "inputs", "gradients"))
    model, names, table = globals()[name](record)
    model.double()
    own = dict(model.named_parameters())
    assert own.keys() == {*names, "embedding.table.weight"}
    with torch.no_grad():
        own["embedding.table.weight"].copy_(table({**weights, **inputs}))
        for ours, theirs in names.items():
            own[ours].copy_(weights[theirs].reshape(own[ours].shape))
    found = model(inputs.get("dense", torch.empty(5, 0)), inputs["ids"].long())
    torch.testing.assert_close(found, torch.tensor(record["logits"], dtype=torch.float64), rtol=0, atol=1e-10)
    binary_cross_entropy_with_logits(found, inputs["label"]).backward()
    for ours, theirs in names.items():
        expected = gradients[theirs].reshape(own[ours].shape)
        torch.testing.assert_close(own[ours].grad, expected, rtol=0, atol=1e-10)
    compared = slice(0, 1) if name == "torchrec_deepfm" else slice(None)
    found_table, expected = own["embedding.table.weight"].grad[:, compared], table(gradients)[:, compared]
    torch.testing.assert_close(found_table, expected, rtol=0, atol=1e-10)
