//! What is known of a process that should be dead and is not: for the operator, who has to find out what holds it.

use std::fs;

/// Tells a process's number, name, state, and what it waits for in the kernel, as far as that can be read.
pub(crate) fn describe(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let waits = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let stack = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
    tell(pid, &stat, &waits, &stack)
}

fn tell(pid: i32, stat: &str, waits: &str, stack: &str) -> String {
    // The name stands in parentheses and may itself contain some.
    let parsed = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    let Some((name, state)) = parsed.and_then(|(name, rest)| Some((name, rest.trim().chars().next()?)))
    else {
        return format!("process {pid}, of which nothing can be read");
    };
    let innermost = stack.lines().next().and_then(|line| line.split_whitespace().last());
    let waits = match (waits.trim(), innermost.and_then(|call| call.split('+').next())) {
        ("" | "0", None | Some("")) => String::new(),
        ("" | "0", Some(call)) | (call, _) => format!(", waits in {call}"),
    };
    format!("process {pid} ({name}), state {state} ({}){waits}", words(state))
}

fn words(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "waiting without being disturbed",
        'T' => "stopped",
        't' => "traced",
        'Z' => "ended, not reaped",
        'X' => "dead",
        'I' => "idle",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_name_state_and_what_it_waits_for_are_told() {
        let stat = "7 (a) b (c)) D 1 7 7 0";
        let expected = "process 7 (a) b (c)), state D (waiting without being disturbed), waits in ";
        assert_eq!(tell(7, stat, "nfs_wait", ""), format!("{expected}nfs_wait"));
        let stack = "[<0>] __refrigerator+0x51/0x120\n[<0>] get_signal+0x6";
        assert_eq!(tell(7, stat, "0", stack), format!("{expected}__refrigerator"));
        assert_eq!(tell(7, "7 (x) S 1", "0", ""), "process 7 (x), state S (sleeping)");
        assert_eq!(tell(7, "", "", ""), "process 7, of which nothing can be read");
    }

    #[test]
    fn a_living_process_is_described() {
        let pid = std::process::id().cast_signed();
        let text = describe(pid);
        assert!(text.starts_with(&format!("process {pid} (")) && text.contains("), state "), "{text}");
    }
}
