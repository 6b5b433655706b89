"""Records what TorchRec's and DeepCTR-Torch's own modules give, for `tests/sizewise/models/test_other_libraries.py`.

Neither is a dependency. In an environment of its own, with PyTorch 2.13:

    pip install torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 deepctr-torch==0.3.0
    python tests/data/models/record.py

Everything is in float64. A record has the weights by the names that the library gives them, the inputs, the logits, and
the gradients of the mean cross entropy.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

BATCH, DENSE, CARDINALITIES = 5, 3, [4, 6, 2]


def listed(tensors):
    return {name: tensor.detach().tolist() for name, tensor in tensors.items()}


def recorded(library, modules, inputs, logits, label):
    """Weights, inputs and logits; gradients of all weights, and of inputs that have some."""
    binary_cross_entropy_with_logits(logits, label).backward()
    weights = {
        f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_parameters()
    }
    gradients = {name: value.grad for name, value in {**weights, **inputs}.items() if value.grad is not None}
    return {
        "library": f"{library} {version(library)}, PyTorch {torch.__version__}",
        "weights": listed(weights),
        "inputs": listed({**inputs, "label": label}),
        "logits": logits.detach().tolist(),
        "gradients": listed(gradients),
    }


def rows():
    ids = torch.stack([torch.randint(0, count, (BATCH,)) for count in CARDINALITIES], dim=1)
    return torch.randn(BATCH, DENSE), ids, torch.randint(0, 2, (BATCH,)).double()


def dlrm_dcn():
    """TorchRec's DLRM_DCN on given vectors: its embedding tables would make float32 of them."""
    from torchrec.models.dlrm import DLRM_DCN
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection

    dim = 4
    tables = [
        EmbeddingBagConfig(name=f"t{n}", embedding_dim=dim, num_embeddings=count, feature_names=[f"f{n}"])
        for n, count in enumerate(CARDINALITIES)
    ]
    model = DLRM_DCN(EmbeddingBagCollection(tables=tables), DENSE, [6, dim], [7, 5, 1], 3, 2).double()
    for module in (model.dense_arch, model.inter_arch, model.over_arch):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    dense, ids, label = rows()
    table = torch.randn(sum(CARDINALITIES), dim, requires_grad=True)
    vectors = table[ids + torch.tensor([0, 4, 10])]
    logits = model.over_arch(model.inter_arch(model.dense_arch(dense), vectors)).squeeze(1)
    modules = {"dense_arch": model.dense_arch, "inter_arch": model.inter_arch, "over_arch": model.over_arch}
    return recorded("torchrec", modules, {"dense": dense, "ids": ids, "table": table}, logits, label)


def deepctr_deepfm():
    """DeepCTR-Torch's DeepFM, tables and all."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat
    from deepctr_torch.models import DeepFM

    columns = [SparseFeat(f"f{n}", count, embedding_dim=4) for n, count in enumerate(CARDINALITIES)]
    columns += [DenseFeat(f"d{n}", 1) for n in range(DENSE)]
    # As for a regression: the same without the sigmoid at the end.
    model = DeepFM(columns, columns, dnn_hidden_units=(7, 5), task="regression").double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    dense, ids, label = rows()
    logits = model(torch.cat([ids.double(), dense], dim=1)).squeeze(1)
    return recorded("deepctr-torch", {"model": model}, {"dense": dense, "ids": ids}, logits, label)


def torchrec_deepfm():
    """TorchRec's DeepFM and FactorizationMachine.

    The latter adds up over the numbers of a vector as well as over vectors, so that it is the published one for
    vectors of one number only.
    """
    from torchrec.modules.deepfm import DeepFM, FactorizationMachine

    layers = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 1)).double()
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.5)
    _, ids, label = rows()
    table = torch.randn(sum(CARDINALITIES), 1, requires_grad=True)
    vectors = [table[ids + torch.tensor([0, 4, 10])]]
    logits = (DeepFM(layers)(vectors) + FactorizationMachine()(vectors)).squeeze(1)
    return recorded("torchrec", {"layers": layers}, {"ids": ids, "table": table}, logits, label)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    found = {made.__name__: made() for made in (dlrm_dcn, deepctr_deepfm, torchrec_deepfm)}
    text = "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()) + "\n}"
    Path(__file__).with_name("recorded.json").write_text(text + "\n")
