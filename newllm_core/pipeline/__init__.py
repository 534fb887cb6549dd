"""The commands as functions: of resolved settings (`runs`), and of what somebody gave."""
