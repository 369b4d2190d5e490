//! What the program says about itself and its commands.

use std::fmt::Write;

use warden_protocol::descriptor::{CommandDescriptor, FieldDescriptor, Kind, Label, MessageDescriptor};
use warden_protocol::envelope::COMMANDS;

use crate::command::{LONG, Topic, bare_fields};
use crate::{examples, shell};

const USAGE: &str = "usage: warden [--socket PATH] [--trace] [--exit_on_error] [--json] [--help] [--version] [--] \
                     [COMMAND [--FLAG VALUE ...]]";

const OPTIONS: &str = "
Without a command, commands are read from standard input, with a prompt if that is a terminal.

options:
    --socket PATH    where the server listens (/tmp/warden.sock)
    --trace          print each command before its output
    --exit_on_error  end at the first command of standard input that fails, with status 1 or the script's own
    --json           print one JSON object on a line for each response; a string that is not UTF-8 is an
                     object with the key base64; output of run and stream comes as the responses of stream
    --help           print this
    --version        print the version

Exit status: that of the script for run; 1 after an error of the server, 2 after bad usage.

";

const COMMANDS_HEAD: &str = "commands (COMMAND --help explains one, with its flags and an example):\n";

const KEYS: &str = "
TAB completes commands, flags, handles and jobs. Ctrl-C leaves a command, and the job goes on; Ctrl-D ends.
Words are split as in a shell, by quotes and backslashes; nothing is expanded.
";

const SHELL: &str = "command: shell
description: Opens a shell in a container, or runs a command in it, with this terminal as its terminal.
usage: shell HANDLE [options] [COMMAND ...]

[options] can be one of the following:

\t--handle <handle> (string)  # required: The container; it may also be the first word.
\t[--user <user> (string)]  # optional: User in the container; root when absent.
";

/// Explains the program, with all commands in alphabetical order.
pub(crate) fn general() -> String {
    format!("{USAGE}\n{OPTIONS}{}", commands())
}

/// Explains what can be done at the prompt.
pub(crate) fn prompt() -> String {
    let mut text = commands();
    line(&mut text, format_args!("    {:<16} Ends the prompt; so does quit.", "exit"));
    text + KEYS
}

/// Explains one thing.
pub(crate) fn topic(topic: Topic) -> String {
    let mut text = match topic {
        Topic::Command(descriptor) => command(descriptor),
        Topic::Shell => SHELL.to_owned(),
    };
    let name = match topic {
        Topic::Command(descriptor) => descriptor.name,
        Topic::Shell => shell::NAME,
    };
    line(&mut text, format_args!("\nexample:"));
    for example in examples::of(name) {
        line(&mut text, format_args!("\t{example}"));
    }
    text
}

/// Lists all commands in alphabetical order.
fn commands() -> String {
    let mut all: Vec<_> = COMMANDS.iter().map(|command| (command.name, command.request.doc)).collect();
    all.push((shell::NAME, "Opens a shell in a container."));
    all.push(("help", "Prints this, or explains the command that follows."));
    all.sort_unstable();
    let mut text = COMMANDS_HEAD.to_owned();
    for (name, doc) in all {
        line(&mut text, format_args!("    {name:<16} {doc}"));
    }
    text
}

/// Explains a command, its flags and its answer.
fn command(command: &CommandDescriptor) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("command: {}", command.name));
    line(&mut text, format_args!("description: {}", command.request.doc));
    let has_flags = !command.request.fields.is_empty() || command.name == "list";
    line(&mut text, format_args!("usage: {}{}", command.name, if has_flags { " [options]" } else { "" }));
    if has_flags {
        line(&mut text, format_args!("\n[options] can be one of the following:\n"));
        flags(&mut text, command.request, "");
    }
    if command.name == "list" {
        let doc = "Print a table with state, address, memory, jobs that run, and age of each container.";
        line(&mut text, format_args!("\t[{LONG} (bool)]  # optional: {doc}"));
    }
    let words: Vec<_> = bare_fields(command).iter().map(|field| field.to_uppercase()).collect();
    if !words.is_empty() {
        line(
            &mut text,
            format_args!(
                "\nThe first words may stand without their flags: {} {}",
                command.name,
                words.join(" ")
            ),
        );
    }
    answer(&mut text, command);
    text
}

/// Lists what a command prints.
fn answer(text: &mut String, command: &CommandDescriptor) {
    // Run prints its output as stream does, and its answer's fields are never seen.
    let (message, head) = match command.name {
        "run" | "stream" => {
            let stream = COMMANDS.iter().find(|command| command.name == "stream");
            let message = stream.map_or(command.response, |stream| stream.response);
            (message, "It prints the job's output as it comes; with --json, these fields of each piece:")
        }
        _ => (command.response, "It prints these fields:"),
    };
    if !message.fields.is_empty() {
        line(text, format_args!("\n{head}\n"));
        fields(text, message, "");
    }
}

/// Lists the fields of an answer, with the path to it before each.
fn fields(text: &mut String, message: &MessageDescriptor, prefix: &str) {
    for field in message.fields {
        let index = if field.label == Label::Repeated { "[index]" } else { "" };
        let path = format!("{prefix}{}{index}", field.name);
        match field.kind {
            Kind::Message(of) if of.name == "InfoResponse" => {
                line(text, format_args!("\t{path}  # {} As info prints it.", field.doc));
            }
            Kind::Message(nested) => fields(text, nested, &format!("{path}.")),
            kind => line(text, format_args!("\t{path} ({kind})  # {}", field.doc)),
        }
    }
}

/// Lists the flags of a message's fields, with the path to it before each.
fn flags(text: &mut String, message: &MessageDescriptor, prefix: &str) {
    for field in message.fields {
        let index = if field.label == Label::Repeated { "[index]" } else { "" };
        let path = format!("{prefix}{}{index}", field.name);
        if field.label == Label::Repeated {
            line(text, format_args!("\t--{path}  # array: {}", field.doc));
        }
        match field.kind {
            Kind::Message(nested) => flags(text, nested, &format!("{path}.")),
            _ if field.label == Label::Required => {
                line(text, format_args!("\t--{path}{}  # required: {}", operand(field), field.doc));
            }
            _ => line(text, format_args!("\t[--{path}{}]  # optional: {}", operand(field), field.doc)),
        }
    }
}

/// What follows a flag, and its type.
fn operand(field: &FieldDescriptor) -> String {
    match field.kind {
        Kind::Bool | Kind::Flag => format!(" ({})", field.kind),
        Kind::Enum(of) => {
            let names: Vec<_> = of.values.iter().map(|value| value.0).collect();
            format!(" <{}> ({})", field.name, names.join("|"))
        }
        kind => format!(" <{}> ({kind})", field.name),
    }
}

/// Appends a line; a String takes all that is written to it.
fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> &'static CommandDescriptor {
        COMMANDS.iter().find(|command| command.name == name).unwrap()
    }

    #[test]
    fn all_commands_are_listed_with_one_sentence() {
        let text = general();
        for command in COMMANDS {
            let found =
                text.lines().find(|line| line.trim_start().starts_with(&format!("{} ", command.name)));
            assert!(found.unwrap().ends_with('.'), "{}", command.name);
            assert!(found.unwrap().len() <= 130, "{}", command.name);
        }
    }

    #[test]
    fn a_command_is_explained() {
        let expected = "command: stop\n\
            description: Stops all processes in a container; it can no longer run anything then.\n\
            usage: stop [options]\n\n\
            [options] can be one of the following:\n\n\
            \t--handle <handle> (string)  # required: The container.\n\
            \t[--background (bool)]  # optional: Answer at once, without waiting for the end of the processes.\n\
            \t[--kill (bool)]  # optional: Send KILL at once, instead of TERM first and KILL after 10 seconds.\n\n\
            The first words may stand without their flags: stop HANDLE\n\n\
            example:\n\tstop 17r47v9ocsp --kill\n";
        assert_eq!(topic(Topic::Command(find("stop"))), expected);
        assert_eq!(
            topic(Topic::Command(find("ping"))),
            "command: ping\ndescription: Asks whether the server answers.\nusage: ping\n\nexample:\n\tping\n"
        );
    }

    #[test]
    fn the_prompt_and_the_shell_are_explained() {
        let text = prompt();
        assert!(text.starts_with("commands (") && text.ends_with("nothing is expanded.\n"));
        for word in crate::prompt::WORDS {
            assert!(text.contains(word), "{word}");
        }
        assert!(topic(Topic::Shell).contains("usage: shell HANDLE [options] [COMMAND ...]\n"));
        assert!(topic(Topic::Shell).contains("\nexample:\n\tshell "));
    }

    #[test]
    fn every_field_is_explained() {
        for command in COMMANDS {
            let text = topic(Topic::Command(command));
            for field in command.request.fields {
                assert!(text.contains(&format!("--{}", field.name)), "{} {}", command.name, field.name);
            }
            for line in text.lines().filter(|line| line.contains("  # ")) {
                let line = line.trim_end_matches([';', ' ']);
                assert!(line.ends_with('.') || line.ends_with(':'), "{line}");
            }
        }
        let info = topic(Topic::Command(find("info")));
        assert!(info.contains("\tmemory_stat.cache (uint64)  # Page cache, bytes.\n"));
        assert!(info.contains("\tcpu_stat.usage (uint64)  # All of it, nanoseconds.\n"));
        assert!(info.contains("\tjob_ids[index] (uint64)  # Its jobs that have not ended.\n"));
        let link = topic(Topic::Command(find("link")));
        assert!(link.contains("\tinfo  # The container's state at the end of the job. As info prints it.\n"));
        assert!(topic(Topic::Command(find("list"))).contains("\t[--long (bool)]  # optional: "));
    }

    #[test]
    fn arrays_and_messages_are_written_as_paths() {
        let text = topic(Topic::Command(find("create")));
        assert!(text.contains("\t--bind_mounts[index]  # array: "));
        assert!(text.contains("\t--bind_mounts[index].src_path <src_path> (string)  # required: "));
        assert!(text.contains("\t--bind_mounts[index].mode <mode> (RO|RW)  # required: "));
        let text = topic(Topic::Command(find("run")));
        assert!(text.contains("\t[--rlimits.as <as> (uint64)]  # optional: Address space, bytes.\n"));
    }
}
