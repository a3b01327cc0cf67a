"""Answers: policies answer the benchmarks' questions, by transformers or vLLM.

In: a policy's checkpoint and a benchmark's questions.
Out: one JSONL file of answers for each policy and benchmark; an interrupted run continues.
Open first: generate.py (the command), then engines.py (how an engine is chosen and given batches).
"""
