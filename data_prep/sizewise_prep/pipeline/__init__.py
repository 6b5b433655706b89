"""From raw files to shards, in bounded memory, on local processes or on Ray.

    prep.prepare(raw, out, options)            # on this machine
    on_ray.prepare_on_ray(raw, out, options)   # on a cluster
    options.Options                            # what is asked for

`steps` has the steps in between, `workers` the local processes that do them.
"""
