"""Quality a byte: full tables and pools of 1/100 to 1/10,000 of them, over seeds, with paired intervals.

    python -m benchmarks.quality           # real rows where they are, and a planted log
    python -m benchmarks.quality --show    # the tables of what is finished
    python -m benchmarks.quality --data planted --rows 3430000 --seeds 3 --epochs 1 2 --teachers 2    # the trend

The first 80 % of the rows train, the next 10 % choose settings (how often the rows are passed over, from labels alone
the learning rate, and which way of storing vectors is the best of a size), the last 10 % test. What is reported is the
test AUC of what validation chose, mean over seeds with a 95 % interval (Student's t), and its difference from full
tables of the same seed. Models are trained in float32 and rounded afterwards; every byte that ships for the embeddings
counts: numbers, scales, lists of ids.

Full tables, `robe`, `hash` and `hot` are the library's. A teacher is a model with rows of its own for the values that
ten training rows or more hold; students pass over the rows 4 to 16 times, at a learning rate that falls to zero.

Each finished training is a line in the work folder and is skipped next time. Without a GPU two trainings run at a
time, one core and about 400 MB each; with one, steps are CUDA graphs. `arms` lists what is compared, `rows` reads and
makes the data, `once` trains, `tables` writes.
"""
