"""Data sources; each is a plugin of the entry-point group newllm.data_sources."""
