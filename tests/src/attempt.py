# What an attempt at an escape is written with: each step is named, and the first that fails says how.
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def result(value):
    if value == -1:
        raise OSError(ctypes.get_errno(), '')
    return value

def call(number, *arguments):
    return result(libc.syscall(ctypes.c_long(number), *arguments))

def step(name, action):
    try:
        return action()
    except OSError as error:
        print(f'{name}: {errno.errorcode[error.errno]}')
        sys.exit()

def escaped():
    print('ESCAPED')
    sys.exit()

