"""A trial as a model that runs without Sizewise, and that model's predictions for raw rows.

    export(Path("runs"), "quickstart", 7, Path("model"))     # model/model.pt2, model/model.json
    deployed = Deployed.open(Path("model"))
    deployed(dense, tokens)                                  # log-odds, from the integers and tokens of raw rows

Serving the model needs PyTorch, and nothing of Sizewise:

    model = torch.export.load("model/model.pt2").module()
    click_probability = torch.sigmoid(model(dense, tokens))

No file holds a pickle.
"""

from sizewise.export.deployed import Deployed, Description
from sizewise.export.exporting import export
from sizewise.export.scoring import Scored, evaluate, score

__all__ = ["Deployed", "Description", "Scored", "evaluate", "export", "score"]
