"""Makes machines on this host: containers of systemd, virtual machines. Knows nothing of agents."""
