"""What a stage costs: its work in operations and bytes, its memory, and the size of its output. Needs no torch.

In: a config, the sizes of its models and data, assumptions.
Out: the cost of each stage, whatever the device.
Open first: work.py (work and its time on a device), then stage_costs.py (the cost of each stage).

assumed         assumptions and their sources (assumed.yaml)
sizes           sizes of a grid's models and data, counted or assumed
memory          memory of models and of training
model_costs     parts that the costs of several stages share
training_costs  stages that make checkpoints
stage_costs     stages that answer and score; all stages together
"""
