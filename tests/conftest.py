"""What holds for the whole suite: it is deterministic, so hypothesis tries the same examples every time."""

from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")
