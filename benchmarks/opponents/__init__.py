"""Published ways to make embeddings small, at equal bytes and equal tuning beside `robe`, `hash` and `hot`.

    python -m benchmarks.opponents                  # real rows where they are, and a planted log; three seeds
    python -m benchmarks.opponents --show

Rows, splits, models, optimizer, batch and learning rate are those of `benchmarks.quality`: labels alone, a constant
rate, up to two (100x), three (1,000x) and four (10,000x) passes. Each opponent has two settings of its own, and as many
passes as there are results to choose from; both are chosen on the validation rows of the first seed, and the other
seeds train what was chosen. All of its numbers are rounded to four bits after training, with one scale a table, as ours
are (which the papers do not do: in float32 they would hold an eighth of the rows), but those of `alpt`, which trains in
eight or four bits. Every byte that ships counts: numbers, scales, keys of values with rows of their own.

Each is a small module written here, where the library has no such method; what each leaves out of its paper is said in
its file. `cafe`, `double` and `alpt` follow the papers' methods as we know them and `memrec` its abstract alone; none
was compared with its authors' code.
"""
