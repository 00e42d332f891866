"""The `qfed` command, one module a command group; other packages plug in through the entry points `qfed.commands`."""
