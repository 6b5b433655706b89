"""What theory says before any training.

bounds.memory_bound(rows, dim, epsilon)            # memory that is enough for a dense projection
pool_report.shared_pool(...)                       # errors to expect of `hash` and `robe`
communication.exchange_seconds(bytes, cards, links)  # time to add up gradients over many cards
"""
