"""What `make test` did not run, and how to run it."""

from __future__ import annotations

ELSEWHERE = (
    ("whole programs, restarts, outages, threads, races, hostile boxes", "they take some minutes", "make stories"),
    ("the real OpenClaw and pi", "they install 800 MB from npm", "make runtimes"),
    ("swaks and a real Postfix", "they need Debian and root", "make story-mail"),
    (
        "systemd containers, virtual machines, Docker",
        "they need Debian and root",
        "make story-vm, make machines, make machines-long",
    ),
    ("every surface fed its nastiest bodies by every key", "it takes a minute", "make heartbeat"),
    (
        "killing everything under load",
        "it takes up to 10 minutes; the 200 kills longer",
        "make faults, make faults-cloud, make faults-long",
    ),
)


def main() -> None:
    print("\nNot run by `make test`:")
    for what, why, how in ELSEWHERE:
        print(f"  {what}: {why}. Run: {how}")


if __name__ == "__main__":
    main()
