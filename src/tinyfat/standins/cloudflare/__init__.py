"""A stand-in for Cloudflare's API v4, the part for DNS records (developers.cloudflare.com/api, "DNS Records")."""
