"""CSV, Parquet, JSON and Arrow files as a data source of newllm."""
