"""Update rules, a file each; every one is a plugin of the entry-point group `newllm.cells`."""
