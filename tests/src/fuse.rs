//! A file system in user space that never answers.

/// A script that mounts one at a directory of its container, as root, says so, and stays.
pub fn silent(directory: &str) -> String {
    format!(
        "exec python3 - <<'END'
import ctypes, os, time
os.makedirs('{directory}', exist_ok=True)
fd = os.open('/dev/fuse', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f'fd={{fd}},rootmode=40000,user_id=0,group_id=0,allow_other'.encode()
assert libc.mount(b'silent', b'{directory}', b'fuse', 0, options) == 0, os.strerror(ctypes.get_errno())
print('mounted', flush=True)
time.sleep(1000)
END
"
    )
}
