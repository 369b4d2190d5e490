use super::*;
use warden_protocol::messages::*;

fn words(line: &[&str]) -> Vec<Vec<u8>> {
    line.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn request(line: &[&str]) -> Request {
    match read(&words(line)) {
        Ok(Parsed::Call(Call::Request(request))) => *request,
        other => panic!("{line:?} is {other:?}"),
    }
}

fn error(line: &[&str]) -> String {
    read(&words(line)).map(|parsed| panic!("{line:?} is {parsed:?}")).unwrap_err()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

#[test]
fn flags_set_fields() {
    assert_eq!(request(&["ping"]), Request::Ping(PingRequest {}));
    assert_eq!(
        request(&["stop", "--handle", "h", "--kill"]),
        StopRequest { handle: bytes("h"), kill: Some(true), ..StopRequest::default() }.into()
    );
    assert_eq!(
        request(&["link", "--job_id", "0x10", "--handle", "--handle"]),
        LinkRequest { handle: bytes("--handle"), job_id: Some(16) }.into()
    );
    let line = ["net_out", "--handle", "", "--protocol", "ICMP", "--icmp_type", "-1", "--log"];
    let expected = NetOutRequest {
        handle: bytes(""),
        protocol: Some(Protocol::Icmp.into()),
        icmp_type: Some(-1),
        log: Some(true),
        ..NetOutRequest::default()
    };
    assert_eq!(request(&line), expected.into());
}

#[test]
fn bare_words_are_handle_and_more() {
    let run = |privileged| RunRequest {
        handle: bytes("h"),
        script: bytes("ps xf"),
        privileged,
        ..RunRequest::default()
    };
    assert_eq!(request(&["run", "h", "ps xf"]), run(None).into());
    assert_eq!(request(&["run", "h", "--script", "ps xf"]), run(None).into());
    assert_eq!(request(&["run", "--handle", "h", "ps xf"]), run(None).into());
    assert_eq!(request(&["run", "--privileged", "h", "ps xf"]), run(Some(true)).into());
    assert_eq!(request(&["run", "h", "--privileged", "ps xf"]), run(Some(true)).into());
    assert_eq!(request(&["run", "--script", "ps xf", "h", "--privileged"]), run(Some(true)).into());
    let link = LinkRequest { handle: bytes("h"), job_id: Some(7) };
    assert_eq!(request(&["link", "h", "7"]), link.clone().into());
    assert_eq!(request(&["link", "--job_id", "7", "h"]), link.into());
    assert_eq!(request(&["create", "h"]), CreateRequest { handle: bytes("h"), ..Default::default() }.into());
    for command in COMMANDS {
        let takes_handle = command.request.field("handle").is_some();
        assert_eq!(bare_fields(command).first(), takes_handle.then_some(&"handle"), "{}", command.name);
    }
}

#[test]
fn a_table_is_asked_for() {
    assert!(matches!(read(&words(&["list", "--long"])), Ok(Parsed::Call(Call::Table))));
    assert_eq!(request(&["list"]), Request::List(ListRequest {}));
}

#[test]
fn flags_are_found_by_their_paths() {
    let find = |command: &str, flag| {
        flag_field(super::find(command.as_bytes()).unwrap(), flag).map(|field| field.name)
    };
    assert_eq!(find("run", "--handle"), Some("handle"));
    assert_eq!(find("run", "--rlimits.as"), Some("as"));
    assert_eq!(find("create", "--bind_mounts[12].mode"), Some("mode"));
    assert_eq!(find("create", "--bind_mounts[0]"), Some("bind_mounts"));
    for flag in ["--", "--bogus", "handle", "--handle.x", "--rlimits.", "--rlimits.x"] {
        assert_eq!(find("run", flag), None, "{flag}");
    }
}

#[test]
fn values_hold_any_bytes() {
    let line = [b"echo".to_vec(), b"--message".to_vec(), b"\xff\xfe\n".to_vec()];
    let Ok(Parsed::Call(Call::Request(request))) = read(&line) else { panic!("no request") };
    assert_eq!(*request, EchoRequest { message: Some(b"\xff\xfe\n".to_vec()) }.into());
}

#[test]
fn flags_reach_into_messages() {
    let limits = ResourceLimits { r#as: Some(4_294_967_296), nofile: Some(8), ..ResourceLimits::default() };
    let expected = SpawnRequest {
        handle: bytes("h"),
        script: bytes("s"),
        rlimits: Some(limits),
        ..SpawnRequest::default()
    };
    let line = "spawn --handle h --script s --rlimits.as 4_294_967_296 --rlimits.nofile 010";
    assert_eq!(request(&line.split(' ').collect::<Vec<_>>()), expected.into());
}

#[test]
fn flags_are_indexed() {
    let line = "create --bind_mounts[0].src_path /a --bind_mounts[0].dst_path /b --bind_mounts[0].mode RO \
                --bind_mounts[1].mode RW --bind_mounts[1].src_path /c --bind_mounts[0].src_path /d \
                --bind_mounts[1].dst_path /e --grace_time 0";
    let mount = |src, dst, mode: Mode| BindMount {
        src_path: bytes(src),
        dst_path: bytes(dst),
        mode: Some(mode.into()),
    };
    let expected = CreateRequest {
        bind_mounts: vec![mount("/d", "/b", Mode::Ro), mount("/c", "/e", Mode::Rw)],
        grace_time: Some(0),
        ..CreateRequest::default()
    };
    assert_eq!(request(&line.split_whitespace().collect::<Vec<_>>()), expected.into());
}

#[test]
fn wrong_words_are_named() {
    let cases: &[(&str, &str)] = &[
        ("bogus", "Command: 'bogus' is non-existent."),
        ("Ping", "Command: 'Ping' is non-existent."),
        ("--ping", "Command: '--ping' is non-existent."),
        ("help bogus", "Command: 'bogus' is non-existent."),
        ("ping --foo", "In flag: '--foo', the field: 'foo' is invalid."),
        ("info --handle.x h", "In flag: '--handle.x', the field: 'handle' is invalid."),
        ("info --handle[0] h", "In flag: '--handle[0]', the field: 'handle[0]' is invalid."),
        ("run --rlimits 5", "In flag: '--rlimits', the field: 'rlimits' is invalid."),
        ("run --rlimits.bogus 5", "In flag: '--rlimits.bogus', the field: 'bogus' is invalid."),
        ("run --rlimits[0].as 5", "In flag: '--rlimits[0].as', the field: 'rlimits[0]' is invalid."),
        (
            "create --bind_mounts.mode RO",
            "In flag: '--bind_mounts.mode', the field: 'bind_mounts' is not indexed.",
        ),
        ("create --bind_mounts x", "In flag: '--bind_mounts', the field: 'bind_mounts' is not indexed."),
        ("create --bind_mounts[0] x", "In flag: '--bind_mounts[0]', the field: 'bind_mounts[0]' is invalid."),
        (
            "create --bind_mounts[1].mode RO",
            "In flag: '--bind_mounts[1].mode', the field: 'bind_mounts' is not indexed correctly.",
        ),
        ("create --bind_mounts[x].mode RO", "Invalid flag: '--bind_mounts[x].mode'."),
        ("create --bind_mounts[0.mode RO", "Invalid flag: '--bind_mounts[0.mode'."),
        ("create --bind_mounts[].mode RO", "Invalid flag: '--bind_mounts[].mode'."),
        (
            "create --bind_mounts[99999999999999999999].mode RO",
            "Invalid flag: '--bind_mounts[99999999999999999999].mode'.",
        ),
        (
            "create --bind_mounts[0].mode XX",
            "The constant: 'XX' is not defined in the module: 'Mode' (RO, RW).",
        ),
        ("create --.x y", "In flag: '--.x', the field: '' is invalid."),
        ("info h i", "Invalid flag: 'i'."),
        ("ping h", "Invalid flag: 'h'."),
        ("list h", "Invalid flag: 'h'."),
        ("list --long h", "In flag: '--long', the field: 'long' is invalid."),
        ("ping --long", "In flag: '--long', the field: 'long' is invalid."),
        ("destroy h --handle i", "In flag: '--handle', the value is given twice."),
        ("run h s --script t", "In flag: '--script', the value is given twice."),
        ("run h s t", "Invalid flag: 't'."),
        ("link h x", "In flag: '--job_id', the value: 'x' is not a number from 0 to 4294967295."),
        ("link h", "Command: 'link', the flag: '--job_id' is required."),
        ("shell", "Command: 'shell', the flag: '--handle' is required."),
        ("info -h", "Invalid flag: '-h'."),
        ("stop --handle h --kill true", "Invalid flag: 'true'."),
        ("info -- --handle h", "Delimiter: '--' specified multiple times."),
        ("info --handle", "In flag: '--handle', the value is missing."),
        (
            "link --handle h --job_id x",
            "In flag: '--job_id', the value: 'x' is not a number from 0 to 4294967295.",
        ),
        (
            "link --handle h --job_id 4294967296",
            "In flag: '--job_id', the value: '4294967296' is not a number from 0 to 4294967295.",
        ),
        (
            "link --handle h --job_id -1",
            "In flag: '--job_id', the value: '-1' is not a number from 0 to 4294967295.",
        ),
        (
            "net_out --icmp_type 2147483648",
            "In flag: '--icmp_type', the value: '2147483648' is not a number from -2147483648 to 2147483647.",
        ),
        (
            "limit_cpu --limit_in_shares 18446744073709551616",
            "In flag: '--limit_in_shares', the value: '18446744073709551616' is not a number from \
             0 to 18446744073709551615.",
        ),
        ("link --handle h", "Command: 'link', the flag: '--job_id' is required."),
        (
            "create --bind_mounts[0].mode RO",
            "Command: 'create', the flag: '--bind_mounts.src_path' is required.",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(error(&line.split(' ').collect::<Vec<_>>()), *expected, "{line}");
    }
    assert_eq!(error(&["info", "--han dle", "h"]), "Invalid flag: '--han dle'.");
    assert_eq!(error(&["a\nb"]), "Command: 'a\\nb' is non-existent.");
    assert_eq!(read(&[b"\xff".to_vec()]).unwrap_err(), "Command: '\\xff' is non-existent.");
}

#[test]
fn help_is_asked_for_in_the_place_of_a_flag() {
    let asked = |line: &[&str]| match read(&words(line)) {
        Ok(Parsed::Help(topic)) => Some(topic.map(|topic| match topic {
            Topic::Command(command) => command.name,
            Topic::Shell => "shell",
        })),
        _ => None,
    };
    assert_eq!(asked(&[]), Some(None));
    assert_eq!(asked(&["help"]), Some(None));
    assert_eq!(asked(&["help", "run"]), Some(Some("run")));
    assert_eq!(asked(&["run", "--help"]), Some(Some("run")));
    assert_eq!(asked(&["run", "--handle", "h", "--help"]), Some(Some("run")));
    assert_eq!(asked(&["run", "h", "--help"]), Some(Some("run")));
    assert_eq!(asked(&["shell", "--help"]), Some(Some("shell")));
    assert_eq!(asked(&["help", "shell"]), Some(Some("shell")));
    assert_eq!(asked(&["list", "--long", "--help"]), Some(Some("list")));
    assert_eq!(asked(&["run", "--bogus", "--help"]), Some(Some("run")));
    assert_eq!(request(&["echo", "--message", "--help"]), EchoRequest { message: bytes("--help") }.into());
}

#[test]
fn every_field_of_every_request_has_a_flag() {
    for command in COMMANDS {
        let mut request = Request::new(command.name).unwrap();
        for (flag, value) in flags(command.request.fields, "") {
            let value = value.as_bytes().to_vec();
            set(request.message_mut(), format!("--{flag}").as_bytes(), &mut [value].iter()).unwrap();
        }
        assert_eq!(Request::decode(&content(&request)).unwrap(), request);
    }
}

fn flags(fields: &[FieldDescriptor], prefix: &str) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    for field in fields {
        let index = if field.label == Label::Repeated { "[0]" } else { "" };
        let path = format!("{prefix}{}{index}", field.name);
        match field.kind {
            Kind::Message(of) => all.extend(flags(of.fields, &format!("{path}."))),
            Kind::Enum(of) => all.push((path, of.values[0].0)),
            _ => all.push((path, "1")),
        }
    }
    all
}

fn content(request: &Request) -> Vec<u8> {
    let frame = request.encode();
    let start = frame.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    frame[start..frame.len() - 2].to_vec()
}
