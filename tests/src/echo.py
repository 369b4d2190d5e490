# What the tests of the network speak with: an echo, and those that ask it.
import select, socket, struct

# Seconds in which nothing may come before whatever is missing has failed.
PATIENCE = 1.5

def kind_of(name):
    return socket.SOCK_STREAM if name == "STREAM" else socket.SOCK_DGRAM

def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET

# Answers whoever comes to one of these kinds and ports, in both families, with the address that it came from.
def serve(places):
    poll, sockets = select.poll(), {}
    for kind, port in places:
        s = socket.socket(socket.AF_INET6, kind_of(kind))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind(("::", port))
        if kind == "STREAM": s.listen(100)
        sockets[s.fileno()] = s
        poll.register(s, select.POLLIN)
    print("ready", flush=True)
    name = lambda peer: peer[0].removeprefix("::ffff:").encode()
    while True:
        for number, _ in poll.poll():
            s = sockets[number]
            try:
                if s.type == socket.SOCK_STREAM:
                    c, peer = s.accept()
                    c.sendall(name(peer))
                    c.close()
                else:
                    data, peer = s.recvfrom(100)
                    s.sendto(name(peer), peer)
            except OSError: pass

# Gives what `read` makes of what comes to each of these sockets; "failed" for None, where there is an error, or nothing.
def answers(sockets, read):
    poll, found = select.poll(), ["failed"] * len(sockets)
    waiting = {s.fileno(): place for place, s in enumerate(sockets) if s}
    for number in waiting: poll.register(number, select.POLLIN)
    while waiting and (events := poll.poll(PATIENCE * 1000)):
        for number, _ in events:
            place = waiting[number]
            try: answer = read(place, sockets[place])
            except OSError: answer = "failed"
            if answer is None: continue
            found[place] = answer
            del waiting[number]
            poll.unregister(number)
    return found

# Asks echoes, all at once, and prints for each the address that it saw, or "failed".
def ask(questions):
    sockets = []
    for kind, address, port in questions:
        s = socket.socket(family_of(address), kind_of(kind))
        s.setblocking(False)
        try:
            try: s.connect((address, port))
            except BlockingIOError: pass
            if kind == "DGRAM": s.send(b"x")
        except OSError: s = None
        sockets.append(s)
    print(*answers(sockets, lambda _, s: s.recv(100).decode()), sep="\n")

# Sends an ICMP message of each of these types to its address, all at once, and prints the type of each answer, or "failed".
# It is long enough for every kind of question.
def ping(questions):
    sockets = []
    body = lambda place: struct.pack("!HH", 77 + place, 1) + bytes(12)
    for place, (address, kind) in enumerate(questions):
        protocol = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
        s = socket.socket(family_of(address), socket.SOCK_RAW, protocol)
        packet = lambda check: struct.pack("!BBH", kind, 0, check) + body(place)
        words = sum(struct.unpack("!10H", packet(0)))
        while words >> 16: words = (words & 0xffff) + (words >> 16)
        try: s.sendto(packet(~words & 0xffff), (address, 0))
        except OSError: s = None
        sockets.append(s)
    def read(place, s):
        address, kind = questions[place]
        data, peer = s.recvfrom(2000)
        data = data if ":" in address else data[(data[0] & 15) * 4:]
        # Other questions, the answers to them, and what says that one cannot be answered come here too.
        if peer[0] == address and data[0] not in (1, 3, kind) and data[4:6] == body(place)[:2]: return str(data[0])
    print(*answers(sockets, read), sep="\n")
