"""The study file's sections: one class a section, its fields and their checks together.

The sections that a trial depends on (`model`, `embedding`, `search`, `train`) are also what its configuration consists
of: see `section` and `sizewise.config.trial`. A new setting of trials is one field in one of them.
"""
