"""Language models that newllm is compared with: one file each, all with tied embeddings."""
