"""Tests of sources, tokenizers, the validation policy and the prepared folder."""
