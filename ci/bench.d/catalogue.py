"""All scenes, with the targets that issues and design set."""

from loads import Scene

# Those that can hold thousands of sessions: a process each, as Postfix and Exim have, cannot.
CROWDED = {"pillarbox", "opensmtpd", "chasquid"}
# Those that can be given a filter program.
FILTERED = {"pillarbox", "opensmtpd"}
# Those whose handshakes are compared.
SECURED = {"pillarbox", "postfix", "opensmtpd", "chasquid"}
# Those without chasquid, which relays to port 25 only and has no listing of its queue.
OLDER = {"pillarbox", "postfix", "opensmtpd", "exim"}
# What chasquid takes part in if nothing else is said.
SIMPLE = {"maildir", "idle daemon"}


def catalogue(quick):
    """All scenes, with the targets that issue and design set."""
    if quick:
        return [
            Scene("to maildir, 10 sessions, tmpfs", "maildir", "tmpfs", 10, 300, unit="/s"),
            Scene("relayed, 10 sessions", "relay", "tmpfs", 10, 300, unit="/s"),
            Scene("10 MiB messages", "large", "tmpfs", 2, 4, size=10 << 20, unit="MiB/s"),
            Scene("one session, final 250", "latency", "disk", 1, 50, unit="ms", more=False),
            Scene("STARTTLS, new", "maildir", "tmpfs", 10, 200, tls="new", unit="/s"),
            Scene("STARTTLS, resumed", "maildir", "tmpfs", 10, 200, tls="resumed", unit="/s"),
            Scene("filtered, 10 sessions", "filtered", "tmpfs", 10, 300, unit="/s", only=FILTERED),
            Scene("100 slow clients", "slow clients", "tmpfs", 100, 100, slow="either", unit="ms"),
            Scene("200 idle sessions", "idle sessions", "tmpfs", 200, unit="KiB", more=False),
            Scene("idle daemon", "idle daemon", "tmpfs", unit="MiB", more=False),
        ]
    found = []
    for storage in ["tmpfs", "disk"]:
        for sessions, messages in [(1, 500), (10, 2000), (100, 3000)]:
            title = f"to maildir, {sessions} session{'s' if sessions > 1 else ''}, {storage}"
            scene = Scene(title, "maildir", storage, sessions, messages, unit="/s")
            if sessions > 1:
                scene.targets = [
                    ("value", "postfix", ">=", 2.5),
                    ("value", "opensmtpd", ">=", 5),
                    ("processor", "postfix", "<=", 0.4),
                ]
            found.append(scene)
    found.append(
        Scene("to maildir, 10 × 50, tmpfs", "maildir", "tmpfs", 10, 3000, 50, unit="/s")
    )
    for sessions in [10, 100]:
        scene = Scene(f"relayed, {sessions} sessions", "relay", "tmpfs", sessions, 3000, unit="/s")
        if sessions == 100:
            scene.targets = [("value", "postfix", ">=", 3), ("value", "opensmtpd", ">=", 2.5)]
        found.append(scene)
    found += extensions()
    found += [
        Scene(
            "a message to maildir", "budget", "tmpfs", 100, 2000, unit="system calls", more=False,
            targets=[("value", None, "<=", 60), ("switches", None, "<=", 4)],
        ),
        Scene(
            "10 MiB messages", "large", "tmpfs", 10, 40, size=10 << 20, unit="MiB/s",
            targets=[("value", "opensmtpd", ">=", 2), ("memory", None, "<=", 4)],
        ),
        Scene(
            "one session, final 250, disk", "latency", "disk", 1, 300, unit="ms", more=False,
            targets=[("over", None, "<=", 0.25)],
        ),
        Scene(
            "idle daemon", "idle daemon", "tmpfs", unit="MiB", more=False,
            targets=[("value", None, "<=", 20), ("start", None, "<=", 0.05), ("rest", None, "<=", 1)],
        ),
        Scene(
            "accepting with 100,000 deferred", "deferred", "tmpfs", 10, 100_000, unit="/s",
            only={"pillarbox", "opensmtpd", "postfix"}, rounds=2,
            targets=[
                ("share", None, ">=", 0.8),
                ("value", "opensmtpd", ">=", 1.5),
                ("known", None, "<=", 2),
                ("listing", None, "<=", 1),
            ],
        ),
    ]  # fmt: skip
    for scene in found:
        if not scene.only and scene.kind not in SIMPLE:
            scene.only = OLDER
    return found


def extensions():
    """TLS, filters, and crowds of clients."""
    found = []
    for tls, how in [
        ("new", "new"),
        ("resumed", "resuming"),
        # With TLS 1.3 a ticket is used once (RFC 8446, C.4), and not every server gives another one
        # to who resumes; with TLS 1.2 a session is used again and again.
        ("resumed-1.2", "TLS 1.2, resuming"),
    ]:
        found.append(
            Scene(
                f"STARTTLS, {how}, 10 sessions", "maildir", "tmpfs", 10, 2000, tls=tls, unit="/s",
                only=SECURED,
                targets=[("value", "chasquid", ">=", 1.3), ("value", "postfix", ">=", 3)],
            )
        )  # fmt: skip
    for sessions in [10, 100]:
        title = f"filtered, {sessions} sessions"
        scene = Scene(title, "filtered", "tmpfs", sessions, 6000, unit="/s", only=FILTERED)
        scene.targets = [("unfiltered", None, ">=", 0.75)]
        found.append(scene)
    for sessions, tls, only, targets in [
        (2000, "no", CROWDED | OLDER, [("value", None, "<=", 12)]),
        (
            10_000,
            "no",
            # OpenSMTPD takes no more than some thousands.
            CROWDED - {"opensmtpd"},
            [("value", None, "<=", 12), ("memory", None, "<=", 150), ("rest", None, "<=", 1)],
        ),
        (2000, "new", CROWDED, [("value", None, "<=", 24)]),
    ]:
        secured = " with TLS" if tls != "no" else ""
        found.append(
            Scene(
                f"{sessions:,} idle sessions{secured}", "idle sessions", "tmpfs", sessions,
                tls=tls, unit="KiB", more=False, only=only, targets=targets,
            )
        )  # fmt: skip
    for slow, tls, title in [
        ("either", "no", "2,000 clients of a byte a second"),
        ("handshake", "new", "2,000 clients that stall in TLS"),
    ]:
        found.append(
            Scene(
                title, "slow clients", "tmpfs", 2000, 1000, tls=tls, slow=slow, unit="ms",
                more=False, only=CROWDED,
                targets=[("slower", None, "<=", 2), ("slower_tail", None, "<=", 2)],
            )
        )  # fmt: skip
    return found
