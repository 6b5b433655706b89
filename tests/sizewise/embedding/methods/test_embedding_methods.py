"""Each method against an independent writing of what it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise.embedding import METHODS, build
from sizewise.embedding.ids.hashing import splitmix64
from sizewise.embedding.methods.clustered import kmeans
from sizewise.embedding.methods.quotient_remainder import _split

CARDINALITIES = [6, 1, 40]


def contiguous(rows=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in CARDINALITIES], dim=1)


def tokens(rows=50, seed=0):
    return torch.randint(0, 2**32, (rows, 3), generator=torch.Generator().manual_seed(seed))


def test_full_equals_torch_embeddings_and_their_gradients():
    full, ids = build("full", CARDINALITIES, 8, 10**6, 1), contiguous()
    pieces = full.table.weight.detach().split(CARDINALITIES)
    references = [torch.nn.Embedding.from_pretrained(p.clone(), freeze=False) for p in pieces]
    expected = torch.stack([r(ids[:, f]) for f, r in enumerate(references)], dim=1)
    assert torch.equal(full(ids), expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (full(ids) * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(full.table.weight.grad, torch.cat([r.weight.grad for r in references]))


@pytest.mark.parametrize("feature_term", [True, False])
def test_robe_with_whole_rows_is_the_hashing_trick(feature_term):
    ids = tokens()
    rows = build("hash", CARDINALITIES, 8, 4000, 3, feature_term=feature_term)
    blocks = build("robe", CARDINALITIES, 8, 4000, 3, block_len=8, align=8, feature_term=feature_term)
    assert torch.equal(rows(ids), blocks(ids))
    rows(ids).square().sum().backward()
    blocks(ids).square().sum().backward()
    torch.testing.assert_close(blocks.pool.weight.grad, rows.table.weight.grad.flatten())


def fast_slot(seed, features, blocks, feature, block, value, slots):
    """The default hash in Python integers."""
    word = splitmix64(seed, features * blocks)[feature * blocks + block]
    x = (((word >> 32) | 1) * value + word % 2**31) % 2**32
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    x ^= x >> 16
    return x * slots >> 32, x & 1


def test_block_len_1_is_hashed_nets():
    """HashedNets: every virtual weight (feature, id, i) is the pool's number at its own hash."""
    ids, seed, dim = tokens(10), 5, 6
    embedding = build("robe", CARDINALITIES, dim, 400, seed, block_len=1, align=1)
    pool = embedding.pool.weight.detach().numpy()
    expected = np.empty((10, 3, dim), np.float32)
    for row in range(10):
        for feature in range(3):
            for i in range(dim):
                value = int(ids[row, feature])
                expected[row, feature, i] = pool[fast_slot(seed, 3, dim, feature, i, value, len(pool))[0]]
    assert (embedding(ids).detach().numpy() == expected).all()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_robe_reads_the_blocks_that_its_definition_names(data):
    """Any dim, block length, alignment, sign, wrap-around and hash form, element by element in Python."""
    dim = data.draw(st.integers(1, 24), "dim")
    block_len = data.draw(st.integers(1, dim), "block_len")
    form = data.draw(st.sampled_from(["fast", "authors", "paper"]), "hash")
    plain = form == "authors"
    divisors = [a for a in range(1, block_len + 1) if block_len % a == 0]
    align = 1 if plain else data.draw(st.sampled_from(divisors), "align")
    sign = not plain and data.draw(st.booleans(), "sign")
    wrap = not plain and data.draw(st.booleans(), "wrap")
    budget = data.draw(st.integers(4 * block_len, 4000), "budget")
    seed = data.draw(st.integers(0, 10**6), "seed")
    ids = tokens(2, seed)
    options = {"block_len": block_len, "align": align, "sign": sign, "wrap": wrap, "hash": form}
    embedding = build("robe", CARDINALITIES, dim, budget, seed, **options)
    pool = embedding.pool.weight.detach().numpy()
    m, blocks = len(pool), -(-dim // block_len)
    assert m == budget // 4 // align * align
    slots = m // align if wrap else (m - block_len) // align + 1
    random = [int(r) for r in np.random.RandomState(1024).randint(0, 2038074743, (50,))]
    prime = 2**31 - 1
    k = [1 + word % (prime - 1) for word in splitmix64(seed, 8)]
    expected = np.empty((2, 3, dim), np.float32)
    for row in range(2):
        for e in range(3):
            for i in range(dim):
                x, c = int(ids[row, e]), i // block_len
                g = 1
                if form == "fast":
                    slot, bit = fast_slot(seed, 3, blocks, e, c, x, slots)
                    g = 1 - 2 * bit
                elif form == "authors":
                    v = x + sum(CARDINALITIES[:e])
                    slot = (v * random[2] + c * random[1] + random[0]) % 2038074743 % slots
                else:
                    slot = (k[0] * e + k[1] * x + k[2] * c + k[3]) % prime % slots
                    g = 2 * ((k[4] * e + k[5] * x + k[6] * i + k[7]) % prime % 2) - 1
                position = slot * align + i % block_len
                expected[row, e, i] = (g if sign else 1) * pool[position % m if wrap else position]
    assert (embedding(ids).detach().numpy() == expected).all()


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_quotient_remainder_equals_its_formula(combine):
    ids = contiguous()
    embedding = build("qr", CARDINALITIES, 8, 14 * 8 * 4, 1, combine=combine, contiguous_ids=True)
    remainders = embedding.remainders.weight.detach().numpy()
    quotients = embedding.quotients.weight.detach().numpy()
    key = ids.numpy() + np.array([0, 6, 7])
    left, right = remainders[key % len(remainders)], quotients[key // len(remainders)]
    expected = left + right if combine == "sum" else left * right
    assert (embedding(ids).detach().numpy() == expected).all()


def test_quotient_remainder_tells_all_values_apart_in_few_rows():
    embedding = build("qr", [1000], 4, 64 * 4 * 4, 1, contiguous_ids=True)
    vectors = embedding(torch.arange(1000).unsqueeze(1)).detach()
    assert len(vectors.squeeze(1).unique(dim=0)) == 1000


@given(rows=st.integers(2, 3000), count=st.integers(1, 3000))
def test_quotient_remainder_split_is_the_best(rows, count):
    m, q = _split(rows, count)
    assert m + q == rows
    reaching = [quotients for quotients in range(1, rows) if (rows - quotients) * quotients >= count]
    assert q == (min(reaching) if reaching else rows // 2)


def test_tensor_train_equals_the_contracted_cores():
    embedding = build("tt", CARDINALITIES, 12, 6000, 1, contiguous_ids=True)
    (n1, n2, n3), (d1, d2, d3), r = embedding.shape.modes, embedding.shape.factors, embedding.shape.rank
    first, middle, last = (
        t.weight.detach().double() for t in (embedding.first, embedding.middle, embedding.last)
    )
    table = torch.einsum(
        "iap,jpbq,kqc->ijkabc",
        first.view(n1, d1, r),
        middle.view(n2, r, d2, r),
        last.view(n3, r, d3),
    ).reshape(n1 * n2 * n3, 12)
    ids = contiguous()
    expected = table[ids + torch.tensor([0, 6, 7])]
    torch.testing.assert_close(embedding(ids).double(), expected, rtol=1e-5, atol=1e-8)


def test_tensor_train_starts_with_the_variance_of_the_other_methods():
    for budget in (2_000, 200_000):
        values = build("tt", [10**6], 16, budget, 1)(torch.arange(20_000).unsqueeze(1))
        assert values.std().item() == pytest.approx(0.01 / 3**0.5, rel=0.25)


def test_clustering_follows_its_schedule():
    embedding = build("cce", [500], 8, 10_000, 1, chunks=2, cluster_every=3, clusterings=2)
    ids = torch.arange(20).unsqueeze(1)
    before, changed = embedding.pointers.clone(), []
    for lookup in range(1, 13):
        embedding.eval()(ids)  # evaluation is not counted
        embedding.train()(ids)
        if not torch.equal(before, embedding.pointers):
            changed.append(lookup)
            before = embedding.pointers.clone()
    assert changed == [3, 6]


def clustered_before(lookups, epochs, **options):
    """The training lookups, 10 an epoch, before which pointers changed."""
    embedding = build("cce", [500], 8, 10_000, 1, chunks=2, **options)
    if epochs:
        embedding.set_schedule(10, epochs)
    found, before = [], embedding.pointers.clone()
    for lookup in range(1, lookups + 1):
        embedding.train()(torch.arange(20).unsqueeze(1))
        if not torch.equal(before, embedding.pointers):
            found.append(lookup)
            before = embedding.pointers.clone()
    assert embedding.clustered == len(found)
    return found


def test_clustering_comes_after_epochs_in_the_first_three_quarters():
    assert clustered_before(80, 8) == [11, 21, 31]
    assert clustered_before(80, 8, clusterings=10) == [11, 21, 31, 41, 51, 61]
    assert clustered_before(20, 2) == [11]
    assert clustered_before(20, 2, cluster_every=0.5, clusterings=9) == [6, 11, 16]
    assert clustered_before(20, 2, clusterings=0) == clustered_before(10, 1) == []
    assert clustered_before(40, None) == []  # nobody has said how long an epoch is


def test_whether_shorter_trainings_cluster_alike_is_known():
    """Compared with the schedules themselves."""
    for every in (0.2, 0.25, 0.5, 1.0, 1.5, 7):
        for clusterings in (0, 1, 3, 4, 9):
            options = METHODS["cce"].options(cluster_every=every, clusterings=clusterings)
            longest = options.due(1000, 100)
            alike = all(
                options.due(1000, epochs) == [due for due in longest if due <= 1000 * epochs]
                for epochs in range(1, 20)
            )
            assert options.depends_on_epochs == (not alike and isinstance(every, float)), (every, clusterings)


def test_a_state_of_version_0_1_keeps_its_vectors():
    """It did not say how often it had clustered: that followed from its lookups."""
    options = {"chunks": 2, "cluster_every": 3}
    embedding = build("cce", [500], 8, 10_000, 1, **options)
    ids = torch.arange(20).unsqueeze(1)
    for _ in range(7):
        embedding.train()(ids)
    state = dict(embedding.state_dict())
    state["lookups"] = state["lookups"][0]
    again = build("cce", [500], 8, 10_000, 1, **options)
    again.load_state_dict(state)
    assert again.clustered == 2
    assert torch.equal(again.eval()(ids), embedding.eval()(ids))
    # Its studies left cluster_every out where it was 100.
    state["lookups"] = torch.tensor(250)
    as_then = build("cce", [500], 8, 10_000, 1, chunks=2)
    as_then.load_state_dict(state)
    assert as_then.clustered == 2


def test_kmeans_finds_tight_groups():
    groups = 5 * torch.eye(4)[torch.arange(400) % 4]
    points = groups + 0.01 * torch.randn(400, 4, generator=torch.Generator().manual_seed(1))
    means, assigned = kmeans(points, 40, seed=1)
    assert (means[assigned] - points).norm(dim=1).max() < 0.1


@pytest.mark.parametrize("width", [4, 12])
def test_kmeans_assigns_the_nearest_mean_and_lowers_the_error(width):
    points = torch.randn(3000, width, generator=torch.Generator().manual_seed(1))
    means, assigned = kmeans(points, 50, seed=1)
    assert means.shape == (50, width)
    distances = torch.cdist(points.double(), means.double())
    torch.testing.assert_close(distances[torch.arange(3000), assigned], distances.min(1).values)
    first, nearest = kmeans(points, 50, seed=1, iterations=0)
    assert (points - means[assigned]).square().sum() < 0.9 * (points - first[nearest]).square().sum()


def test_kmeans_with_a_cluster_for_every_point_keeps_them():
    points = torch.randn(5, 3)
    means, assigned = kmeans(points, 9, seed=1)
    assert torch.equal(means[assigned], points)


def test_clustering_keeps_the_vectors_where_clusters_suffice():
    """With a cluster for every key, clustering changes pointers and tables but no vector."""
    ids = torch.arange(300).unsqueeze(1)
    embedding = build("cce", [300], 8, 10**5, 1, chunks=2, count_pointers=False, contiguous_ids=True)
    assert embedding.clusters >= 300
    before = embedding.eval()(ids)
    embedding.cluster()
    torch.testing.assert_close(embedding(ids), before)
    assert not embedding.helpers.weight.any()
