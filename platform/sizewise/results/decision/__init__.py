"""Which model to take: the study's answer, a choice within limits, how sure they are, and against what runs today."""
