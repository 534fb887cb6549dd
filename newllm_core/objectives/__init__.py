"""What the recurrence is trained for; each is a plugin of the group `newllm.objectives`."""
