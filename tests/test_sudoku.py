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
    "Plain trial of every digit in every empty cell finds the same solutions"
    shares_a_unit = (places() @ places().T > 0) & ~torch.eye(81).bool()
    peers = [row.nonzero()[:, 0].tolist() for row in shares_a_unit]
    def plain(x, i=0):
        while i < 81 and x[i] != 9: i += 1
        if i == 81: return [x[:]]
        found = []
        for d in set(range(9)) - {x[k] for k in peers[i]}:
            x[i] = d
            found += plain(x, i + 1)
            x[i] = 9
        return found
    rng = random.Random(3)
    for n in 20, 30, 36:
        x = ANSWER[0].tolist()
        for i in rng.sample(range(81), n): x[i] = 9
        assert sorted(plain(x[:])) == sorted(solve(x, most=10**6))


def test_a_change_of_one_cell_makes_a_grid_improper():
    x = grids(1, seed=4).long().repeat(81, 1)
    x.diagonal().copy_((x.diagonal() + 1)%9)
    assert not proper(x).any()


def test_symmetric_grids_are_proper_and_different_and_keep_masked_cells_masked():
    u = torch.rand(500, 81, generator=torch.Generator().manual_seed(1))
    answers = symmetric(ANSWER[:1].expand(500, -1), u)
    asked = symmetric(ASKED[:1].expand(500, -1), u)
    assert proper(answers).all() and len(answers.unique(dim=0)) == 500
    assert ((asked == 9).sum(1) == 51).all()
    asked, answer = symmetric(ASKED[:1], u[:1]), symmetric(ANSWER[:1], u[:1])
    assert asked.ne(9).equal(answer == asked)


def test_every_cell_and_digit_is_as_likely_in_a_symmetric_grid():
    u = torch.rand(9000, 81, generator=torch.Generator().manual_seed(2))
    x = symmetric(ANSWER[:1].expand(9000, -1), u)
    share = torch.nn.functional.one_hot(x, 9).double().mean(0)
    assert (share - 1/9).abs().max() < 5*(8/81/9000)**.5


def test_the_forward_process_masks_a_symmetric_grid():
    forward = symmetric_forward(mask_forward)
    noisy = forward(board(), ANSWER.long(), torch.tensor([[.5]]), torch.rand(12, 81, 2))
    assert proper(noisy.target).all()
    assert (noisy.x_t == torch.where(noisy.in_loss, 9, noisy.target)).all()


@pytest.mark.parametrize('givens', [10, 82])
def test_what_cannot_be_made_is_refused(givens):
    with pytest.raises(ValueError, match='between 24 and 81'): puzzles(1, givens=givens)
