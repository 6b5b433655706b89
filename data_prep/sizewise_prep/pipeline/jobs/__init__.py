"""What workers do in a preparation: jobs, each of which leaves files and a record of them, and is never done twice.

    parts.parse                # a piece of a raw file to a part: good rows, bad lines
    assembly.make              # parts to a shard
    fitting.fit                # what the training rows say of columns of numbers
    merging.merge              # a column's distinct values

`row_files` has the rows between two jobs, `sorting` their order by time.
"""
