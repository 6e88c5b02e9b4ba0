"9x9 Sudoku: the solver, the generator, and the symmetries that make one grid many."
import random
import pytest, torch
from remask.core.forward import mask_forward
from remask.domains.sudoku import board, grids, places, proper, puzzles, solve, symmetric, symmetric_forward

ASKED, ANSWER = puzzles(12, seed=11)


def test_every_puzzle_has_thirty_givens_and_the_one_solution_that_is_kept():
    assert ((ASKED < 9).sum(1) == 30).all() and proper(ANSWER.long()).all()
    assert ((ASKED == 9) | (ASKED == ANSWER)).all()
    for a, b in zip(ASKED.tolist(), ANSWER.tolist()): assert solve(a, most=3) == [b]


def test_the_solver_counts_what_an_independent_search_counts():
    "Plain trial of every digit in every hidden cell finds the same solutions"
    peers = [[k for k in range(81) if k != i and (places()[i]*places()[k]).sum() > 0] for i in range(81)]
    def plain(x, i=0):
        while i < 81 and x[i] != 9: i += 1
        if i == 81: return [x[:]]
        found = []
        for d in set(range(9)) - {x[k] for k in peers[i]}:
            x[i] = d; found += plain(x, i + 1); x[i] = 9
        return found
    rng = random.Random(3)
    for n in 20, 30, 36:
        x = ANSWER[0].tolist()
        for i in rng.sample(range(81), n): x[i] = 9
        assert sorted(plain(x[:])) == sorted(solve(x, most=10**6))


def test_a_change_of_one_cell_makes_a_grid_improper():
    x = grids(1, seed=4).long().repeat(81, 1)
    x[range(81), range(81)] = (x[range(81), range(81)] + 1)%9
    assert not proper(x).any()


def test_twins_are_proper_different_and_keep_what_is_hidden_hidden():
    u = torch.rand(500, 81, generator=torch.Generator().manual_seed(1))
    twins = symmetric(ANSWER[:1].expand(500, -1), u)
    assert proper(twins).all() and len(twins.unique(dim=0)) == 500
    assert ((symmetric(ASKED[:1].expand(500, -1), u) == 9).sum(1) == 51).all()
    assert (
        symmetric(ASKED[:1], u[:1])[0]
        .ne(9)
        .equal((symmetric(ANSWER[:1], u[:1]) == symmetric(ASKED[:1], u[:1]))[0])
    )


def test_every_cell_and_digit_is_as_likely_in_a_twin():
    u = torch.rand(9000, 81, generator=torch.Generator().manual_seed(2))
    share = torch.nn.functional.one_hot(symmetric(ANSWER[:1].expand(9000, -1), u), 9).double().mean(0)
    assert (share - 1/9).abs().max() < 5*(8/81/9000)**.5


def test_a_twin_is_what_the_network_is_asked_about():
    noisy = symmetric_forward(mask_forward)(
        board(), ANSWER.long(), torch.tensor([[0.5]]), torch.rand(12, 81, 2)
    )
    assert proper(noisy.target).all() and (noisy.x_t == torch.where(noisy.in_loss, 9, noisy.target)).all()


@pytest.mark.parametrize('givens', [10, 82])
def test_what_cannot_be_made_is_refused(givens):
    with pytest.raises(ValueError, match='between 24 and 81'): puzzles(1, givens=givens)
