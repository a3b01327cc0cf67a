"""An OpenAI-compatible endpoint: calls, retries, rate limits, prices, a budget, a batch API.

In: a chat request and the config's `judge` section.
Out: a reply, or a typed failure.
Open first: endpoint.py (one call), then pace.py and budget.py (limits on all calls).
"""
