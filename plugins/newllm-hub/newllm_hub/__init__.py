"""newllm models where language models work: Transformers, the hub, lm-evaluation-harness."""
