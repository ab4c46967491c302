"""Peers: what a user would use instead of this project, each in one file, run in an environment of its own.

A peer's file names the packages it needs (PEP 723) and ends with `serve(prepare)`. They are no dependencies of this
project: `fra bench … --peer NAME` installs them on the first use.
"""
