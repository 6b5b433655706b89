"""Full tables of 10 GB and pools of 1/100, 1/1,000 and 1/10,000 of them on hundreds of millions of rows, on one GPU.

    python -m benchmarks.scale --minutes 6.5 --out build/scale     # one GPU of 80 GB, from the repository's root
    python -m benchmarks.scale --smoke --out build/smoke           # tiny, on the CPU: what it prints means nothing

On a machine where Sizewise is not installed, PyTorch, Triton, NumPy, numba and pydantic are enough:
`export PYTHONPATH=platform:data_prep`. Every finished training is kept in the folder; the same command goes on where
it was stopped, and makes the same rows. `table.md`, `table.csv`, `results.jsonl` and `evaluations.jsonl` are written
after every training, so that whatever is finished when the clock runs out is the result.

Rows are planted (`sizewise_prep.planted`), so that the best AUC that any model can reach is known. All values that
training rows hold have a row in the full tables; ones seen elsewhere alone read the row "all others", and hash like
any other value.

On paper, for an H100 (3.3 TB/s), 256 Mi training rows, 150 million values, batch 8,192:

| | bytes | seconds |
| --- | --- | --- |
| rows: 26 ids of 4 bytes, 13 dense values of 2, label, teacher's scores: 135 bytes | 36 GB | |
| making them: about 30 KB a row of reads and writes | 8 TB | 4 to 8 |
| numbering: 26 columns, 2 random accesses of 32 bytes a row and column | 0.5 TB | 2 to 4 |
| full tables: numbers, squares, a step's sums | 3 x 10 GB | |
| a step of full tables: 213,000 vectors of 64 bytes, read twice, six accesses for Adagrad, ids | 0.11 GB | 0.10 ms |
| a step of a pool: below 1 GB, so half of it from the cache | 0.05 GB | 0.03 ms |
| MLPs of a step: 7 GFLOP in bfloat16, 20 MB of activations some ten times | 0.2 GB | 0.08 ms |
| launches of a step: 80 to 100 in one graph, 1.5 to 2.5 microseconds each | | 0.15 to 0.25 ms |
| an epoch, 32,768 steps: pools / full tables | | 8 to 11 / 10 to 14 |
| an evaluation on 4 million rows | 0.6 GB | 0.05 to 0.1 |
| a teacher's scores for all training rows | 20 GB | 2 |

So a table of 25 epochs' worth of trainings takes 4 to 5 minutes, after a minute of start, rows and small runs; where
steps turn out slower, the batch is doubled until the list fits (`--batch` fixes it), and what does not fit any more is
left out, and said to be.

`planted` makes the rows, `arrays` numbers and scores them, `methods` says how vectors are stored and what ships,
`training` trains, `table` writes; `benchmarks.quality` uses the same for many seeds on few rows.
"""
