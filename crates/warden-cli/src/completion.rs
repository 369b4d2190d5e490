//! What the word before the cursor could become.

use warden_protocol::descriptor::{CommandDescriptor, Kind, Label, MessageDescriptor};
use warden_protocol::envelope::COMMANDS;

use crate::command::{LONG, bare_fields, flag_field};
use crate::words::{Line, Word};
use crate::{prompt, shell};

/// What the word before the cursor could become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Where in the line the word begins.
    pub(crate) start: usize,
    /// What there is of the word, without quotes.
    pub(crate) prefix: String,
    /// What is looked for.
    pub(crate) wanted: Wanted,
}

/// What is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing that this program could know.
    Nothing,
    /// One of some words.
    OneOf(Vec<String>),
    /// A container.
    Handle,
    /// A job of a container.
    Job(Vec<u8>),
}

/// Finds out what could stand at the end of a line.
pub(crate) fn question(line: &str) -> Question {
    let (before, current) = Line::scan(line.as_bytes()).into_words();
    let current = current.unwrap_or(Word { start: line.len(), text: Vec::new() });
    let prefix = String::from_utf8_lossy(&current.text).into_owned();
    let words: Vec<_> = before.iter().map(|word| String::from_utf8_lossy(&word.text)).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    Question { start: current.start, wanted: wanted(&words, &prefix), prefix }
}

fn wanted(words: &[&str], prefix: &str) -> Wanted {
    let Some((&name, words)) = words.split_first() else {
        return Wanted::OneOf(names(&prompt::WORDS));
    };
    match name {
        "help" if words.is_empty() => Wanted::OneOf(names(&[])),
        shell::NAME => shell_word(words, prefix),
        name => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => command_word(command, words, prefix),
            None => Wanted::Nothing,
        },
    }
}

/// All commands and some more words, in alphabetical order.
fn names(more: &[&str]) -> Vec<String> {
    let commands = COMMANDS.iter().map(|command| command.name);
    let mut names: Vec<_> = commands.chain([shell::NAME]).chain(more.iter().copied()).collect();
    names.sort_unstable();
    names.into_iter().map(str::to_owned).collect()
}

fn shell_word(words: &[&str], prefix: &str) -> Wanted {
    match words {
        [.., "--handle"] => Wanted::Handle,
        [.., "--user"] => Wanted::Nothing,
        _ if prefix.starts_with('-') => Wanted::OneOf(["--help", "--user"].map(str::to_owned).to_vec()),
        [] | ["--user", _] => Wanted::Handle,
        _ => Wanted::Nothing,
    }
}

fn command_word(command: &'static CommandDescriptor, words: &[&str], prefix: &str) -> Wanted {
    let mut bare = bare_fields(command).iter();
    let mut handle = None;
    let mut words_left = words.iter();
    while let Some(&word) = words_left.next() {
        let (field, value) = if word.starts_with('-') {
            match flag_field(command, word) {
                Some(field) if !matches!(field.kind, Kind::Bool | Kind::Flag) => match words_left.next() {
                    Some(&value) => (field.name, value),
                    None => return value_of(command, word, handle),
                },
                _ => continue,
            }
        } else {
            let Some(&field) = bare.find(|field| **field != "handle" || handle.is_none()) else { continue };
            (field, word)
        };
        if field == "handle" {
            handle = Some(value);
        }
    }
    let next = bare.find(|field| **field != "handle" || handle.is_none());
    match next {
        Some(field) if !prefix.starts_with('-') => value_of(command, &format!("--{field}"), handle),
        _ => Wanted::OneOf(flags(command, words)),
    }
}

/// What can be the value of a flag.
fn value_of(command: &CommandDescriptor, flag: &str, handle: Option<&str>) -> Wanted {
    let Some(field) = flag_field(command, flag) else { return Wanted::Nothing };
    match (field.name, field.kind, handle) {
        // A new container's handle is the person's choice.
        ("handle", ..) if command.name != "create" => Wanted::Handle,
        ("job_id", _, Some(handle)) => Wanted::Job(handle.as_bytes().to_vec()),
        (_, Kind::Enum(of), _) => {
            Wanted::OneOf(of.values.iter().map(|(name, _)| (*name).to_owned()).collect())
        }
        _ => Wanted::Nothing,
    }
}

/// The flags of a command that have not been given.
fn flags(command: &CommandDescriptor, words: &[&str]) -> Vec<String> {
    let mut flags = Vec::new();
    collect(command.request, "--", words, &mut flags);
    if command.name == "list" {
        flags.push(LONG.to_owned());
    }
    flags.push("--help".to_owned());
    flags.retain(|flag| !words.contains(&flag.as_str()));
    flags
}

fn collect(message: &MessageDescriptor, prefix: &str, words: &[&str], flags: &mut Vec<String>) {
    for field in message.fields {
        let path = format!("{prefix}{}", field.name);
        let paths = match field.label {
            Label::Repeated => indexed(&path, words),
            Label::Required | Label::Optional => vec![path],
        };
        for path in paths {
            match field.kind {
                Kind::Message(nested) => collect(nested, &format!("{path}."), words, flags),
                _ => flags.push(path),
            }
        }
    }
}

/// The path of an array with the last index that was used, and with the next.
fn indexed(path: &str, words: &[&str]) -> Vec<String> {
    let index =
        |word: &&str| word.strip_prefix(path)?.strip_prefix('[')?.split(']').next()?.parse::<u16>().ok();
    let last = words.iter().filter_map(index).max();
    let next = last.map_or(0, |last| u32::from(last) + 1);
    last.map(u32::from).into_iter().chain([next]).map(|index| format!("{path}[{index}]")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Wanted {
        question(line).wanted
    }

    fn words(line: &str) -> Vec<String> {
        match wanted(line) {
            Wanted::OneOf(words) => words,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_first_word_is_a_command() {
        for line in ["", "  ", "li", "'li"] {
            let words = words(line);
            for word in ["copy_in", "exit", "help", "list", "shell", "stream"] {
                assert!(words.contains(&word.to_owned()), "{line:?} {word}");
            }
            assert!(words.is_sorted());
        }
        assert!(words("help ").contains(&"shell".to_owned()));
        assert!(!words("help ").contains(&"exit".to_owned()));
        assert_eq!(wanted("help run "), Wanted::Nothing);
        assert_eq!(wanted("bogus "), Wanted::Nothing);
        assert_eq!(question("  li"), Question { start: 2, prefix: "li".to_owned(), wanted: wanted("li") });
    }

    #[test]
    fn handles_stand_where_a_command_takes_one() {
        for line in [
            "info ",
            "info 17",
            "info 'a b",
            "info --handle ",
            "run --privileged ",
            "stop --kill --handle x",
            "shell ",
            "shell --user vcap ",
            "shell --handle ",
            "stream --job_id 7 ",
            "run --script 'a b' ",
        ] {
            assert_eq!(wanted(line), Wanted::Handle, "{line}");
        }
        for line in [
            "create ",
            "create --handle ",
            "run h ",
            "run h --script ",
            "shell h ",
            "shell --user ",
            "run --rlimits.as ",
            "create --rootfs ",
        ] {
            assert_eq!(wanted(line), Wanted::Nothing, "{line}");
        }
        assert_eq!(question("info 'a b").prefix, "a b");
        assert_eq!(question("info 'a b").start, 5);
        assert_eq!(question("info ").start, 5);
    }

    #[test]
    fn jobs_belong_to_the_container_of_the_line() {
        let jobs = Wanted::Job(b"h".to_vec());
        for line in
            ["link h ", "stream h 1", "link --handle h ", "link --handle h --job_id ", "link h --job_id 3"]
        {
            assert_eq!(wanted(line), jobs, "{line}");
        }
        assert_eq!(wanted("link --job_id "), Wanted::Nothing);
        assert_eq!(words("link h 3 "), ["--handle", "--job_id", "--help"]);
    }

    #[test]
    fn flags_are_offered_once() {
        assert_eq!(words("stop h "), ["--handle", "--background", "--kill", "--help"]);
        assert_eq!(words("stop -"), ["--handle", "--background", "--kill", "--help"]);
        assert_eq!(words("stop --kill --handle h "), ["--handle", "--background", "--help"][1..]);
        assert_eq!(words("list "), ["--long", "--help"]);
        assert_eq!(words("ping "), ["--help"]);
        assert!(words("run --r").contains(&"--rlimits.nofile".to_owned()));
    }

    #[test]
    fn arrays_are_offered_with_the_next_index() {
        let mounts = |line: &str| {
            words(line).into_iter().filter(|flag| flag.starts_with("--bind_mounts")).collect::<Vec<_>>()
        };
        let first = ["--bind_mounts[0].src_path", "--bind_mounts[0].dst_path", "--bind_mounts[0].mode"];
        assert_eq!(mounts("create -"), first);
        let then = mounts("create --bind_mounts[0].src_path /a -");
        assert_eq!(then[..2], first[1..]);
        assert_eq!(then[2], "--bind_mounts[1].src_path");
        assert_eq!(words("create --bind_mounts[0].mode "), ["RO", "RW"]);
        assert_eq!(words("net_out h --protocol T"), ["TCP", "UDP", "ICMP", "ALL"]);
    }
}
