"""Lineage: from any artifact back to code, parameters, environment, verdict and images; and forward again.

dvc.lock says which bytes each stage read and wrote, and with which parameters. What it does not say, each stage writes
into a record of its own (`record`): the code's commit and the environment.
"""
