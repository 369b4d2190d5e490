#!/usr/bin/env python3
"""Prints, row by row, what the container in which it runs has been denied, beside Docker's and podman's defaults.

Here: what the kernel says now. Docker: moby/profiles at 6e3ef80 (2026) and moby; podman: containers/common at 08bbb0d and podman 5. Both for a
container started by root without flags, on x86_64. Run it by `make confinement`, as the container's root.
"""
import ctypes
import errno
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)

CAPABILITIES = """chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct
sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore""".split()
PODMAN = set("chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot".split())
DOCKER = PODMAN | {"audit_write", "mknod", "net_raw"}

# Number on x86_64 and aarch64, and what Docker and podman do. None of them does anything with these arguments.
REFUSED, ABSENT, ALLOWED = "refused", "absent", "allowed"
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

MASKED = {  # Docker, podman
    "/proc/acpi": (1, 1), "/proc/asound": (1, 0), "/proc/interrupts": (1, 0), "/proc/kcore": (1, 1),
    "/proc/keys": (1, 1), "/proc/latency_stats": (1, 1), "/proc/sched_debug": (1, 1), "/proc/scsi": (1, 1),
    "/proc/timer_list": (1, 1), "/proc/timer_stats": (1, 1), "/sys/devices/virtual/powercap": (1, 1),
    "/sys/firmware": (1, 1), "/sys/fs/selinux": (0, 1), "/sys/dev/block": (0, 1),
}
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"]
NAMESPACES = {  # Docker, podman
    "cgroup": ("own (v2)", "own (v2)"), "ipc": ("own", "own"), "mnt": ("own", "own"), "net": ("own", "own"),
    "pid": ("own", "own"), "user": ("the host's", "the host's"), "uts": ("own", "own"), "time": ("the host's", "the host's"),
}


def row(name, here, docker, podman):
    print(f"  {name:<30} {here:<22} {docker:<14} {podman}")


def head(title):
    print(f"\n{title}")
    row("", "here", "Docker", "podman")


def field(name):
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith(name + ":"))


def capabilities():
    head("Capabilities of root")
    effective = int(field("CapEff"), 16)
    for number, name in enumerate(CAPABILITIES):
        has = ["-", "yes"]
        row(name, has[effective >> number & 1], has[name in DOCKER], has[name in PODMAN])
    row("no_new_privs of root", field("NoNewPrivs"), "0", "0")


def calls():
    head("System calls (filter: " + {"0": "none", "2": "yes"}[field("Seccomp")] + ")")
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    for name, numbers in CALLS.items():
        ctypes.set_errno(0)
        value = libc.syscall(ctypes.c_long(numbers[column]), *[ctypes.c_long(-1)] * 6)
        code = ctypes.get_errno() if value == -1 else 0
        here = {errno.EPERM: REFUSED, errno.ENOSYS: ABSENT}.get(code, ALLOWED)
        row(name, here, numbers[2], numbers[3])
    row("clone with new namespaces", "refused" if namespaces_refused() else ALLOWED, REFUSED, ALLOWED)


def namespaces_refused():
    # A user namespace, in a child that ends at once.
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    child = libc.syscall(ctypes.c_long(number), ctypes.c_long(0x10000000 | 17), None, None, None, None)
    if child == 0:
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)
    return child == -1


def mounts():
    table = {}
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            words = line.split()
            table[words[4]] = words[5].split(",")
    return table


def paths():
    table = mounts()
    head("Masked paths")
    for path, known in MASKED.items():
        here = "masked" if path in table else "-" if os.path.exists(path) else "not in this kernel"
        row(path, here, *("masked" if one else "-" for one in known))
    head("Read-only paths")
    for path in READ_ONLY:
        here = "read-only" if "ro" in table.get(path, []) else "-" if os.path.exists(path) else "not in this kernel"
        row(path, here, "read-only", "read-only")


def namespaces():
    head("Namespaces")
    host = dict(word.split("=") for word in os.environ.get("HOST_NAMESPACES", "").split())
    for name, known in NAMESPACES.items():
        try:
            own = os.readlink(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            own = None
        here = "not in this kernel" if own is None else "?" if name not in host else "the host's" if host[name] == own else "own"
        row(name, here, *known)


capabilities()
calls()
paths()
namespaces()
