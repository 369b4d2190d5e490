//! What the program says about itself and its commands.

use std::fmt::Write;
use std::io::{self, Write as _};
use std::process::ExitCode;

use warden_protocol::descriptor::{CommandDescriptor, FieldDescriptor, Kind, Label, MessageDescriptor};
use warden_protocol::envelope::COMMANDS;

use crate::failure::Failure;

/// How the program is called.
pub(crate) const USAGE: &str = "usage: warden [--socket PATH] [--trace] [--exit_on_error] [--json] [--help] \
                                [--version] [--] COMMAND [--FLAG VALUE ...]";

const OPTIONS: &str = "
options:
    --socket PATH    where the server listens (/tmp/warden.sock)
    --trace          print the command before its output
    --exit_on_error  accepted for compatibility: the only command of a call ends it in any case
    --json           print one JSON object on a line for each response; a string that is not UTF-8 is an
                     object with the key base64; output of run and stream comes as the responses of stream
    --help           print this
    --version        print the version

Exit status: that of the script for run; 1 after an error of the server, 2 after bad usage.

commands (COMMAND --help explains one):
";

/// Prints a text that was asked for.
pub(crate) fn show(text: &str) -> Result<ExitCode, Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Explains the program, with all commands in alphabetical order.
pub(crate) fn general() -> String {
    let mut commands: Vec<_> = COMMANDS.iter().collect();
    commands.sort_by_key(|command| command.name);
    let mut text = format!("{USAGE}\n{OPTIONS}");
    for command in commands {
        line(&mut text, format_args!("    {:<16} {}", command.name, command.request.doc));
    }
    line(&mut text, format_args!("    {:<16} Prints this.", "help"));
    text
}

/// Explains a command and its flags.
pub(crate) fn command(command: &CommandDescriptor) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("command: {}", command.name));
    line(&mut text, format_args!("description: {}", command.request.doc));
    if command.request.fields.is_empty() {
        line(&mut text, format_args!("usage: {}", command.name));
        return text;
    }
    line(&mut text, format_args!("usage: {} [options]", command.name));
    line(&mut text, format_args!("\n[options] can be one of the following:\n"));
    flags(&mut text, command.request, "");
    text
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
            \t[--kill (bool)]  # optional: Send KILL at once, instead of TERM first and KILL after 10 seconds.\n";
        assert_eq!(command(find("stop")), expected);
        assert_eq!(
            command(find("ping")),
            "command: ping\ndescription: Asks whether the server answers.\nusage: ping\n"
        );
    }

    #[test]
    fn arrays_and_messages_are_written_as_paths() {
        let text = command(find("create"));
        assert!(text.contains("\t--bind_mounts[index]  # array: "));
        assert!(text.contains("\t--bind_mounts[index].src_path <src_path> (string)  # required: "));
        assert!(text.contains("\t--bind_mounts[index].mode <mode> (RO|RW)  # required: "));
        let text = command(find("run"));
        assert!(text.contains("\t[--rlimits.as <as> (uint64)]  # optional: Address space, bytes.\n"));
    }
}
