"""The one door to fast forms: what is computed here in another way than its formula says.

Nothing changes a result when this folder is switched off (`run.kernels = off`). `door` has the
table of fast forms and chooses one; `python -m benchmarks.kernels` times each beside its plain
twin.
"""
