"""`make bench`: the figures of docs/performance.md, measured on this machine in one run."""
