"""The faults of backups, apart from the code that has them: `concerto up` knows them without loading that."""


class BackupError(Exception):
    """A backup cannot be made, read or restored. The message says what to do."""


class StoppedError(BackupError):
    """Ctrl-C, or a signal that means the same."""
