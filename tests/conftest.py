"""What holds for the whole suite: it is deterministic, so hypothesis tries the same examples every time."""

from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.register_profile("long", derandomize=False, deadline=None, max_examples=2000)
"""For a search of its own: pytest --hypothesis-profile=long tests/apiserver/hostile (make fuzz)."""
settings.load_profile("deterministic")
