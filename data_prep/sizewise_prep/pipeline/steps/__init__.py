"""The steps of a preparation, each a list of jobs that any worker can do, and the folder that they work in.

    log.Log                    # the first step: raw files to parts
    shard_steps.make           # those after it: parts to shards, and what the manifest says of them
    work_folder.claim          # what of an earlier run is of use

`parts` and `assembly` have the jobs themselves, `row_files` the rows between two steps, `progress` what is reported.
"""
