"""Other tools' verdicts and files: import them, compare with them, calibrate a judge against them.

In: archives of FastChat's llm_judge and of arena-hard-auto; answers and texts of your own.
Out: entries of a ledger, prompts and verdicts to compare, a judge's card.
Open first: formats.py (the files), then importing.py and calibrate.py (the commands).
"""
