"""A stand-in for the Hetzner Cloud API v1, the part that gives an agent a server: actions, servers, Primary IPs,
firewalls, SSH keys, images, volumes, prices, DNS zones. How to start it: server.py; how it lies: lies.py."""
