"""The steps of a preparation, each a list of jobs for workers, and the folder that they work in.

    log.Log                    # the first step: raw files to parts
    shard_steps.make           # those after it: parts to shards, and what the manifest says of them
    work_folder.claim          # what of an earlier run is of use

`pipeline.jobs` has the jobs themselves, `progress` what is reported.
"""
