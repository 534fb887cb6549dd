"""From sources to token files: sources, tokenizers, the validation policy, the prepared folder."""
