//! What a container consists of: read from lines, so that it is the same as that of a real container.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The description of every container that is made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// The directory that holds one for each container.
    pub(crate) directory: PathBuf,
    /// The shared lower layer.
    pub(crate) lower: PathBuf,
    /// What of the host appears read-only over it: source and destination.
    pub(crate) system: Vec<(PathBuf, PathBuf)>,
    /// The version 1 cgroups that hold the containers' groups.
    pub(crate) cgroups: Vec<Parent>,
    /// The version 2 cgroup that does.
    pub(crate) unified: Option<Parent>,
    /// The host's id of the container's root.
    pub(crate) first_id: u32,
    /// How many ids the container has.
    pub(crate) ids: u32,
}

/// A cgroup that holds those of containers, and what is written in each of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) path: PathBuf,
    /// Files and the lines that they get.
    pub(crate) writes: Vec<(&'static str, &'static str)>,
}

/// What a container may have of devices, as the product's containers: null, zero, full, random, urandom, tty, ptmx,
/// fuse and terminals.
const DEVICES: [(&str, &str); 10] = [
    ("devices.deny", "a"),
    ("devices.allow", "c 1:3 rw"),
    ("devices.allow", "c 1:5 rw"),
    ("devices.allow", "c 1:7 rw"),
    ("devices.allow", "c 1:8 rw"),
    ("devices.allow", "c 1:9 rw"),
    ("devices.allow", "c 5:0 rw"),
    ("devices.allow", "c 5:2 rw"),
    ("devices.allow", "c 10:229 rw"),
    ("devices.allow", "c 136:* rw"),
];

const TASKS: (&str, &str) = ("pids.max", "2048");

impl Parent {
    fn new(path: &str, has: impl Fn(&Path) -> bool) -> Self {
        let path = PathBuf::from(path);
        let wanted = DEVICES.into_iter().chain([TASKS]);
        let writes = wanted.filter(|(file, _)| has(&path.join(file))).collect();
        Self { path, writes }
    }
}

impl Setup {
    /// Reads a description: a word and its values on each line, separated by spaces.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, Path::exists)
    }

    fn parse_with(text: &str, has: impl Fn(&Path) -> bool) -> Result<Self> {
        let mut setup = Self { ids: 65_536, ..Self::default() };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["directory", path] => setup.directory = path.into(),
                ["lower", path] => setup.lower = path.into(),
                ["system", source, destination] => setup.system.push((source.into(), destination.into())),
                ["cgroup1", path] => setup.cgroups.push(Parent::new(path, &has)),
                ["cgroup2", path] => setup.unified = Some(Parent::new(path, &has)),
                ["ids", first, count] => {
                    let number = |word: &str| word.parse().with_context(|| format!("reading '{line}'"));
                    (setup.first_id, setup.ids) = (number(first)?, number(count)?);
                }
                _ => bail!("'{line}' is not understood"),
            }
        }
        if setup.directory.as_os_str().is_empty() || setup.lower.as_os_str().is_empty() || setup.first_id == 0
        {
            bail!("directory, lower and ids must be given");
        }
        Ok(setup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description() {
        let text = "directory /d\nlower /l\nsystem /usr /usr\ncgroup1 /cg/pids/p\ncgroup2 /cg/u\nids 7 9\n";
        let setup = Setup::parse_with(text, |path| path == Path::new("/cg/pids/p/pids.max")).unwrap();
        assert_eq!(setup.directory, Path::new("/d"));
        assert_eq!(setup.system, [("/usr".into(), "/usr".into())]);
        assert_eq!(setup.cgroups[0].writes, [TASKS]);
        assert_eq!(setup.unified.as_ref().unwrap().writes, []);
        assert_eq!((setup.first_id, setup.ids), (7, 9));
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error() {
        assert!(Setup::parse_with("directory /d\n", |_| false).is_err());
        assert!(Setup::parse_with("directory /d\nlower /l\nids x 9", |_| false).is_err());
        assert!(Setup::parse_with("colour red", |_| false).is_err());
    }
}
