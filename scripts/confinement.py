#!/usr/bin/env python3
"""Compares what containers have been denied, row by row: Warden's, Docker's and podman's.

`confinement.py inside` runs in a container, as its root, and prints what the kernel says there as JSON.
`confinement.py table HERE [PODMAN VERSION]` reads such files and prints the table. What was not measured is the published
default for a container started by root without flags, on x86_64. `make confinement` does all of it.
"""
import ctypes
import errno
import json
import os
import platform
import socket
import sys

DOCKER_SOURCE = "published: Docker 29, moby/profiles of May 2026"
PODMAN_SOURCE = "published: podman 5, containers/common at 08bbb0d"

CAPABILITIES = """chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct
sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore""".split()
PODMAN = set("chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot".split())
DOCKER = PODMAN | {"audit_write", "mknod", "net_raw"}

# Number on x86_64 and aarch64, and what Docker and podman publish. None of them does anything with these arguments.
REFUSED, ABSENT, ALLOWED, MISSING = "refused", "absent", "allowed", "not in this kernel"
CALLS = {
    "mount": (165, 40, REFUSED, ALLOWED), "umount2": (166, 39, REFUSED, ALLOWED),
    "pivot_root": (155, 41, REFUSED, ALLOWED), "unshare": (272, 97, ALLOWED, ALLOWED),
    "open_tree": (428, 428, REFUSED, ALLOWED), "move_mount": (429, 429, REFUSED, ALLOWED),
    "fsopen": (430, 430, REFUSED, ALLOWED), "fsmount": (432, 432, REFUSED, ALLOWED),
    "mount_setattr": (442, 442, REFUSED, ABSENT), "clone3": (435, 435, ABSENT, ALLOWED),
    "open_by_handle_at": (304, 265, REFUSED, REFUSED), "bpf": (321, 280, REFUSED, REFUSED),
    "perf_event_open": (298, 241, REFUSED, REFUSED), "userfaultfd": (323, 282, REFUSED, REFUSED),
    "io_uring_setup": (425, 425, REFUSED, ABSENT), "keyctl": (250, 219, REFUSED, ALLOWED),
    "add_key": (248, 217, REFUSED, ABSENT), "request_key": (249, 218, REFUSED, ABSENT),
    "kexec_load": (246, 104, REFUSED, REFUSED), "kexec_file_load": (320, 294, REFUSED, REFUSED),
    "init_module": (175, 105, REFUSED, REFUSED), "finit_module": (313, 273, REFUSED, REFUSED),
    "delete_module": (176, 106, REFUSED, REFUSED), "swapon": (167, 224, REFUSED, REFUSED),
    "swapoff": (168, 225, REFUSED, REFUSED), "reboot": (169, 142, REFUSED, ALLOWED),
    "acct": (163, 89, REFUSED, REFUSED), "settimeofday": (164, 170, REFUSED, REFUSED),
    "clock_settime": (227, 112, REFUSED, REFUSED), "quotactl": (179, 60, REFUSED, REFUSED),
    "sethostname": (170, 161, REFUSED, REFUSED), "syslog": (103, 116, REFUSED, ALLOWED),
    "fanotify_init": (300, 262, REFUSED, REFUSED), "move_pages": (279, 239, REFUSED, REFUSED),
    "migrate_pages": (256, 238, REFUSED, REFUSED), "set_mempolicy": (238, 237, REFUSED, REFUSED),
    "mbind": (237, 235, REFUSED, REFUSED), "kcmp": (312, 272, REFUSED, REFUSED),
    "pidfd_getfd": (438, 438, REFUSED, ALLOWED), "process_madvise": (440, 440, REFUSED, REFUSED),
    "ptrace": (101, 117, ALLOWED, REFUSED), "process_vm_readv": (310, 270, ALLOWED, REFUSED),
}
CLONE = "clone with new namespaces"

# Number, and what Docker and podman publish.
FAMILIES = {
    "AF_NETLINK": (16, ALLOWED, ALLOWED), "AF_PACKET": (17, ALLOWED, ALLOWED), "AF_RXRPC": (33, ALLOWED, ALLOWED),
    "AF_ALG": (38, REFUSED, ALLOWED), "AF_VSOCK": (40, REFUSED, REFUSED), "AF_XDP": (44, ALLOWED, ALLOWED),
}

MASKED = {  # Docker, podman
    "/proc/acpi": (1, 1), "/proc/asound": (1, 0), "/proc/interrupts": (1, 0), "/proc/kcore": (1, 1),
    "/proc/keys": (1, 1), "/proc/latency_stats": (1, 1), "/proc/sched_debug": (1, 1), "/proc/scsi": (1, 1),
    "/proc/timer_list": (1, 1), "/proc/timer_stats": (1, 1), "/sys/devices/virtual/powercap": (1, 1),
    "/sys/firmware": (1, 1), "/sys/fs/selinux": (0, 1), "/sys/dev/block": (0, 1),
}
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"]
OWN, HOSTS = "own", "the host's"
NAMESPACES = {  # Docker, podman
    "cgroup": ("own (v2)", "own (v2)"), "ipc": (OWN, OWN), "mnt": (OWN, OWN), "net": (OWN, OWN), "pid": (OWN, OWN),
    "user": (HOSTS, HOSTS), "uts": (OWN, OWN), "time": (HOSTS, HOSTS),
}

libc = ctypes.CDLL(None, use_errno=True)


def field(name):
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith(name + ":"))


def capabilities():
    effective = int(field("CapEff"), 16)
    rows = {name: "yes" if effective >> number & 1 else "-" for number, name in enumerate(CAPABILITIES)}
    return rows | {"no_new_privs of root": field("NoNewPrivs")}


def calls():
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    rows = {}
    for name, numbers in CALLS.items():
        ctypes.set_errno(0)
        value = libc.syscall(ctypes.c_long(numbers[column]), *[ctypes.c_long(-1)] * 6)
        code = ctypes.get_errno() if value == -1 else 0
        rows[name] = {errno.EPERM: REFUSED, errno.ENOSYS: ABSENT}.get(code, ALLOWED)
    return rows | {CLONE: REFUSED if namespaces_refused() else ALLOWED}


def namespaces_refused():
    # A user namespace, in a child that ends at once.
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    child = libc.syscall(ctypes.c_long(number), ctypes.c_long(0x10000000 | 17), None, None, None, None)
    if child == 0:
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)
    return child == -1


def family(number):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(number, kind, 0).close()
            return ALLOWED
        except OSError as error:
            code = error.errno
    return {errno.EPERM: REFUSED, errno.EAFNOSUPPORT: MISSING}.get(code, ALLOWED)


def paths():
    with open("/proc/self/mountinfo") as lines:
        table = {line.split()[4]: line.split()[5].split(",") for line in lines}
    without = lambda path: "-" if os.path.exists(path) else MISSING
    masked = {path: "masked" if path in table else without(path) for path in MASKED}
    return masked, {path: "read-only" if "ro" in table.get(path, []) else without(path) for path in READ_ONLY}


def namespaces():
    host = dict(word.split("=") for word in os.environ.get("HOST_NAMESPACES", "").split())
    rows = {}
    for name in NAMESPACES:
        try:
            rows[name] = "?" if name not in host else HOSTS if host[name] == os.readlink(f"/proc/self/ns/{name}") else OWN
        except FileNotFoundError:
            rows[name] = MISSING
    return rows


def inside():
    masked, read_only = paths()
    return {
        "capabilities": capabilities(), "calls": calls(), "families": {n: family(f[0]) for n, f in FAMILIES.items()},
        "masked": masked, "read_only": read_only, "namespaces": namespaces(),
    }


def published(column):
    """What Docker (0) or podman (1) say themselves."""
    owned = [DOCKER, PODMAN][column]
    return {
        "capabilities": {name: "yes" if name in owned else "-" for name in CAPABILITIES} | {"no_new_privs of root": "0"},
        "calls": {name: known[2 + column] for name, known in CALLS.items()} | {CLONE: [REFUSED, ALLOWED][column]},
        "families": {name: known[1 + column] for name, known in FAMILIES.items()},
        "masked": {path: "masked" if known[column] else "-" for path, known in MASKED.items()},
        "read_only": {path: "read-only" for path in READ_ONLY},
        "namespaces": {name: known[column] for name, known in NAMESPACES.items()},
    }


TITLES = {
    "capabilities": "Capabilities of root", "calls": "System calls", "families": "Sockets", "masked": "Masked paths",
    "read_only": "Read-only paths", "namespaces": "Namespaces",
}


def table(here, podman=None, version=None):
    def measured(path):
        with open(path) as file:
            return json.load(file)

    columns = [measured(here), published(0), measured(podman) if podman else published(1)]
    print("here:   measured")
    print(f"Docker: {DOCKER_SOURCE}")
    print(f"podman: measured, {version}" if podman else f"podman: {PODMAN_SOURCE}")
    for section, title in TITLES.items():
        print(f"\n{title}")
        print(f"  {'':<30} {'here':<20} {'Docker':<20} podman")
        for name in columns[0][section]:
            cells = [column[section][name] for column in columns]
            print(f"  {name:<30} {cells[0]:<20} {cells[1]:<20} {cells[2]}")


if sys.argv[1] == "inside":
    print(json.dumps(inside()))
else:
    table(*sys.argv[2:])
