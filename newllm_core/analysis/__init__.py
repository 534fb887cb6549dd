"""What contexts are like: one file per section, thresholds and verdicts, and the whole report.

`analyze.analyze` looks at a checkpoint, `matrix.analyze_matrix` at any matrix in a file. Nothing
here knows how a model is trained.
"""
