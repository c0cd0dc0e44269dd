"""Passes of the Artist's update: dealt out evenly, each one done once, with the edits it needs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.parallel import ranks
from components.parallel.ranks import Share, share_of
from components.reinforcement.dealing import Deal, deal

PHOTO, UPDATES, LEVELS, AT_ONCE = 12, 2, 2, 2
"""Edits of a photo, optimiser steps, noise levels and `micro_batch` of the production profile."""


def passes_by_rank(dealt: Deal) -> list[int]:
    counts = [0] * dealt.ranks
    for number, passes in enumerate(dealt.passes):
        done: list[int] = []
        for rank in range(dealt.ranks):
            mine = dealt.mine(number, rank)
            counts[rank] += len(mine.rows)
            done += mine.rows if mine.first else ()
        assert sorted(done) == list(range(len(passes))), "every pass is spoken for once"
    return counts


@pytest.mark.parametrize("world", range(2, 65))
def test_seven_of_eight_ranks_work_at_any_moment_and_none_takes_more_than_it_can_hold(world: int) -> None:
    dealt = deal(world * PHOTO, UPDATES, LEVELS, AT_ONCE, world)
    counts = passes_by_rank(dealt)
    assert max(counts) == dealt.busiest
    assert sum(counts) / (world * dealt.busiest) >= 7 / 8
    assert all(rows.stop - rows.start <= AT_ONCE for passes in dealt.passes for rows in passes)


@pytest.mark.parametrize("world", [2, 3, 8, 64])
def test_groups_that_are_dropped_leave_no_rank_more_than_one_pass_behind(world: int) -> None:
    for photos in range(1, world + 1):
        dealt = deal(photos * PHOTO, UPDATES, LEVELS, AT_ONCE, world)
        assert max(passes_by_rank(dealt)) - min(passes_by_rank(dealt)) <= len(dealt.updates)


def test_every_edit_is_trained_on_at_every_level_in_one_update() -> None:
    for edits in (1, 2, 5, 24, 97):
        dealt = deal(edits, 4, 3, 5, 1)
        seen = [
            update.start + row
            for update, passes in zip(dealt.updates, dealt.passes, strict=True)
            for rows in passes
            for row in range(rows.start, rows.stop)
        ]
        assert sorted(seen) == sorted([*range(edits)] * 3)
        split = [len(part) for part in torch.arange(edits).tensor_split(min(4, edits))]
        assert [update.stop - update.start for update in dealt.updates] == split
        assert dealt.edits_of(0) == list(range(edits))


def test_what_a_rank_needs_is_what_its_passes_hold() -> None:
    dealt = deal(30, 2, 2, 4, 3)
    for rank in range(3):
        needed = {
            dealt.updates[number].start + row
            for number in range(2)
            for chosen in dealt.mine(number, rank).rows
            for row in range(dealt.passes[number][chosen].start, dealt.passes[number][chosen].stop)
        }
        assert dealt.edits_of(rank) == sorted(needed)


def exchange_as(rank: int, world: int) -> None:
    """One rank of `test_rows_reach_the_ranks_that_want_them`."""
    made = [share_of(each, world, 7) for each in range(world)]
    everything = torch.arange(14.0).view(7, 2) + 100
    wanted = [[0, 3, 6], [1, 2, 3, 4, 5], []][:world]
    with ranks.joined("cpu"):
        found = ranks.exchange(made[rank].of(everything), made, wanted)
        assert torch.equal(found, everything[wanted[rank]]), found
        copies = [Share((0,), 1, copies=world, first=each == 0) for each in range(world)]
        alone = ranks.exchange(torch.full((1, 2), float(rank)), copies, [[0]] * world)
        assert torch.equal(alone, torch.zeros(1, 2)), "the first rank speaks for the row"


@pytest.mark.slow
def test_rows_reach_the_ranks_that_want_them(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    code = "from tests.reinforcement.test_dealing import exchange_as; import sys; exchange_as(int(sys.argv[1]), 3)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank)],
            cwd=root,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], "\n".join(said)
