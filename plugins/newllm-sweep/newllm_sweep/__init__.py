"""Many runs with other settings each, shared by any number of processes."""
