//! The floor: a small process beside that makes containers by nothing but the system calls that they take.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

/// Room for the floor's one container among the host ids, beyond those of the daemon's containers.
const IDS: &str = "ids 2000000000 65536";

/// The running floor; its containers are in a network namespace of its own.
pub(crate) struct Floor {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl Floor {
    /// Starts one whose containers are made as the one of which a `spec.json` tells.
    pub(crate) fn start(spec: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("warden-floor.").tempdir()?;
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let text = std::fs::read(spec).with_context(|| format!("reading {}", spec.display()))?;
        let description = describe(directory.path(), &serde_json::from_slice(&text)?)?;
        let program = std::env::current_exe()?.with_file_name("floor");
        let mut child = Command::new("unshare")
            .args(["--net", "--"])
            .arg(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut orders = child.stdin.take().context("the floor has no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("the floor has no standard output")?);
        orders.write_all(description.as_bytes())?;
        Ok(Self { child, orders: Some(orders), answers, _directory: directory })
    }

    /// Has it do something, and gives the milliseconds that it took.
    pub(crate) fn measure(&mut self, order: &str) -> Result<f64> {
        let orders = self.orders.as_mut().context("the floor has ended")?;
        orders.write_all(format!("{order}\n").as_bytes())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", nanoseconds)) => Ok(nanoseconds.parse::<f64>()? / 1e6),
            Some((_, reason)) => bail!("{reason}"),
            None => bail!("the floor ended"),
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It ends its container when nobody can order anything any more.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Describes a container from what the daemon wrote of one of its own.
fn describe(directory: &Path, spec: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a path of the spec is not a text");
    let mut lines = vec![format!("directory {}", directory.display()), IDS.to_owned()];
    lines.push(format!("lower {}", text(&spec["root"]["lower"])?));
    for bind in spec["root"]["system"].as_array().into_iter().flatten() {
        lines.push(format!("system {} {}", text(&bind["source"])?, text(&bind["destination"])?));
    }
    for cgroup in spec["cgroups"].as_array().into_iter().flatten() {
        for (kind, word) in [("v1", "cgroup1"), ("v2", "cgroup2")] {
            if let Some(parent) = cgroup[kind].as_str().and_then(|path| Path::new(path).parent()) {
                lines.push(format!("{word} {}", parent.display()));
            }
        }
    }
    lines.push("ready\n".to_owned());
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_description_names_the_same_parts() {
        let spec = json!({
            "root": { "lower": "/l", "system": [{ "source": "/usr", "destination": "/usr" }] },
            "cgroups": [{ "v1": "/cg/pids/p/instance-1" }, { "v2": "/cg/u/p/instance-1" }],
        });
        let expected = "directory /d\nids 2000000000 65536\nlower /l\nsystem /usr /usr\n\
cgroup1 /cg/pids/p\ncgroup2 /cg/u/p\nready\n";
        assert_eq!(describe("/d".as_ref(), &spec).unwrap(), expected);
        assert!(describe("/d".as_ref(), &json!({})).is_err());
    }
}
