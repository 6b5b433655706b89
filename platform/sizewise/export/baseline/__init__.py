"""What runs today, scored on the validation rows of a study: an exported model, a foreign program, a file of scores.

    at = Where.of_study(study, place("runs"))
    record = recorded(BaselineAsked.read("today.onnx,bytes=20MB"), at)        # scored once, then kept in the study
    sizewise.results.decision.baseline.Baseline.of(record)

Programs of others are code: only `run` and `--baseline` load them, by the path that their user names.
"""

from sizewise.export.baseline.scoring import Where, recorded

__all__ = ["Where", "recorded"]
