"""Named seeds."""

from salsa.runtime.seeds import derive_seed, run_seed


def test_names_do_not_run_together():
    assert derive_seed(1, "a", "bc") != derive_seed(1, "ab", "c") != derive_seed(1, "abc")
    assert 0 <= derive_seed(1, "a") < 2**31


def test_runs_draw_independently_and_a_run_without_a_name_draws_as_its_seed_says():
    seeds = [run_seed(seed, run) for seed in (1, 2) for run in ("", "llama-mini", "llama-mini-r2", "gemma-mini")]
    assert len(set(seeds)) == len(seeds)
    assert run_seed(7, "") == 7
