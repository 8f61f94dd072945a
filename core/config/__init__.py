"""Settings: the command line, configuration files, and the groups of flags."""
