"""What browsers load or are led through: the web app's files, its configuration, sign-in with providers."""
