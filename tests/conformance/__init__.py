"""Upstream's conformance tests of the API server, each answered by a test of our own.

A test's docstring begins with the name of the conformance test that it answers for; `test_every_one_is_answered.py`
checks that none is left out.
"""
