"""What a model makes of a text: of the splits of a data set, of any file."""
