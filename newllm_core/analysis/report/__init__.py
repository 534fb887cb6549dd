"""Reports people look at: charts as data, drawn as SVG in one HTML page or as PNG files.

Everything here works on the JSON of `analyze` and `compare`, and needs no torch.
"""
