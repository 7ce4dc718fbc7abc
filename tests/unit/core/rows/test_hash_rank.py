from hypothesis import given
from hypothesis import strategies as st

from tasks.core.rows.hash_rank import choose, hash_rank, id_rank, keyed_rank, shuffled


def test_ranks_are_those_that_stored_selections_were_made_with() -> None:
    assert hash_rank(3, "row").hex() == "812ab16f65e22a47"
    assert hash_rank("row").hex() == "57bd6a3704dd935b"
    assert keyed_rank("row", 3).hex() == "97c9023f9131d53e2e8cd442169a3dde"
    assert id_rank("00000000000000ff" + "0" * 16) == 255
    assert shuffled(["a", "b", "c", "d"], 0).tolist() == [3, 0, 1, 2]


def test_the_order_of_rows_depends_on_their_ids_and_not_on_how_they_came() -> None:
    ids = [f"row{i}" for i in range(50)]
    turned = ids[::-1]
    assert [ids[i] for i in shuffled(ids, 4)] == [turned[i] for i in shuffled(turned, 4)]


@given(st.sets(st.text(min_size=1), min_size=2), st.integers(1, 5), st.text(min_size=1))
def test_a_new_row_pushes_out_at_most_one_row_of_a_capped_split(
    ids: set[str], at_most: int, new: str
) -> None:
    rows = sorted(ids)
    before = {rows[i] for i in choose(rows, range(len(rows)), at_most, seed=0)}
    rows = sorted(ids | {new})
    after = {rows[i] for i in choose(rows, range(len(rows)), at_most, seed=0)}
    assert len(before - after) <= 1
    assert len(after) == min(at_most, len(rows))
