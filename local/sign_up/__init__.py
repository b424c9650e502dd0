"""Who may sign up: invitations, and the warning where everybody may at somebody's cost."""
