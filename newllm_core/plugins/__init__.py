"""Finding, describing, checking and starting plugins. What a plugin must be: docs/PLUGINS.md."""
