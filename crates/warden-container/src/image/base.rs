//! The generated part of the image `host`: everything of a root file system but the host's programs and libraries.
//!
//! Of the host's /etc only what programs need is copied, and of that only what everybody may read; users, groups and
//! the resolver's order are our own. Nothing of /home, /root, /var or /run is taken.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use warden_init::spec::Bind;

use crate::depot::make_directory;
use crate::error::{Context, Error};

/// Directories, in the order in which they are made, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("usr", 0o755),
    ("etc", 0o755),
    ("etc/default", 0o755),
    ("etc/profile.d", 0o755),
    ("home", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("var/log", 0o755),
    ("var/lib", 0o755),
    ("var/cache", 0o755),
    ("var/spool", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
    ("media", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
];

/// Links, with what they point to.
const LINKS: &[(&str, &str)] = &[("var/run", "/run"), ("var/lock", "/run/lock")];

/// Programs and libraries of the host: links where it has merged them into /usr, else directories to be shown.
const PROGRAMS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs need of the host's /etc; a final `*` stands for any end of a name. Never a directory that holds keys.
const ETC: &[&str] = &[
    "ImageMagick-*",
    "R",
    "X11/rgb.txt",
    "alternatives",
    "bash.bashrc",
    "bashrc",
    "ca-certificates.conf",
    "centos-release",
    "crypto-policies",
    "debian_version",
    "default/locale",
    "dpkg/origins",
    "ethertypes",
    "fonts",
    "gai.conf",
    "groff",
    "host.conf",
    "inputrc",
    "java*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale*",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "manpath.config",
    "mime.types",
    "mke2fs.conf",
    "netconfig",
    "networks",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "python*",
    "redhat-release",
    "rpc",
    "services",
    "sgml",
    "shells",
    "skel",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "system-release",
    "terminfo",
    "timezone",
    "vim",
    "xattr.conf",
    "xml",
];

/// Files of our own. Nobody has a password: there is no shadow file, and `*` matches none.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:*:0:0:root:/root:/bin/bash\n\
         daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         bin:*:2:2:bin:/bin:/usr/sbin/nologin\n\
         sys:*:3:3:sys:/dev:/usr/sbin/nologin\n\
         sync:*:4:65534:sync:/bin:/bin/sync\n\
         games:*:5:60:games:/usr/games:/usr/sbin/nologin\n\
         man:*:6:12:man:/var/cache/man:/usr/sbin/nologin\n\
         lp:*:7:7:lp:/var/spool/lpd:/usr/sbin/nologin\n\
         mail:*:8:8:mail:/var/mail:/usr/sbin/nologin\n\
         news:*:9:9:news:/var/spool/news:/usr/sbin/nologin\n\
         www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\n\
         backup:*:34:34:backup:/var/backups:/usr/sbin/nologin\n\
         nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:*:0:\ndaemon:*:1:\nbin:*:2:\nsys:*:3:\nadm:*:4:\ntty:*:5:\ndisk:*:6:\nlp:*:7:\nmail:*:8:\nnews:*:9:\n\
         man:*:12:\nkmem:*:15:\ndialout:*:20:\ncdrom:*:24:\naudio:*:29:\nwww-data:*:33:\nbackup:*:34:\nshadow:*:42:\n\
         utmp:*:43:\nvideo:*:44:\nstaff:*:50:\ngames:*:60:\nusers:*:100:\nfuse:*:105:\nnogroup:*:65534:\n",
    ),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\n\
         services: files\nethers: files\nrpc: files\n",
    ),
    (
        "etc/profile",
        "if [ \"$(id -u)\" -eq 0 ]; then\n  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         else\n  PATH=/usr/local/bin:/usr/bin:/bin\nfi\nexport PATH\n\
         if [ -n \"$BASH_VERSION\" ] && [ -r /etc/bash.bashrc ]; then\n  . /etc/bash.bashrc\nfi\n",
    ),
    ("etc/fstab", ""),
    ("etc/environment", ""),
];

/// Directories below one another that are copied: deeper ones are none that programs need.
const DEPTH: usize = 12;

/// Builds the directory `target` from the host whose root is `host`; returns what must be shown over it.
pub(super) fn build(host: &Path, target: &Path) -> Result<Vec<Bind>, Error> {
    make_directory(target, 0o755, false)?;
    for (name, mode) in DIRECTORIES {
        make_directory(&target.join(name), *mode, false)?;
    }
    for (name, destination) in LINKS {
        make_link(destination.as_ref(), &target.join(name))?;
    }
    copy_etc(&host.join("etc"), &target.join("etc"))?;
    for (name, content) in FILES {
        write(&target.join(name), content.as_bytes(), 0o644)?;
    }
    show_programs(host, target)
}

/// Links or directories for the host's programs, and what is bound there.
fn show_programs(host: &Path, target: &Path) -> Result<Vec<Bind>, Error> {
    let shown = |name: &str| Bind {
        source: host.join(name).into(),
        destination: format!("/{name}").as_str().into(),
        writable: false,
    };
    let mut system = vec![shown("usr")];
    for name in PROGRAMS {
        let (source, target) = (host.join(name), target.join(name));
        match fs::symlink_metadata(&source) {
            Ok(found) if found.is_symlink() => {
                let destination =
                    fs::read_link(&source).context(|| format!("reading link {}", source.display()))?;
                make_link(&destination, &target)?;
            }
            Ok(found) if found.is_dir() => {
                make_directory(&target, 0o755, false)?;
                system.push(shown(name));
            }
            _ => {}
        }
    }
    Ok(system)
}

/// Copies what programs need of /etc.
fn copy_etc(host: &Path, target: &Path) -> Result<(), Error> {
    for pattern in ETC {
        match pattern.strip_suffix('*') {
            None => copy_named(host, target, pattern)?,
            Some(prefix) => {
                let entries = fs::read_dir(host).context(|| format!("reading {}", host.display()))?;
                for entry in entries.flatten() {
                    let name = entry.file_name();
                    if name.as_bytes().starts_with(prefix.as_bytes()) {
                        copy(&entry.path(), &target.join(name), DEPTH)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Copies one entry, below directories that are made on the way.
fn copy_named(host: &Path, target: &Path, name: &str) -> Result<(), Error> {
    if fs::symlink_metadata(host.join(name)).is_err() {
        return Ok(());
    }
    let above: Vec<_> =
        Path::new(name).ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    for directory in above.into_iter().rev() {
        make_directory(&target.join(directory), 0o755, true)?;
    }
    copy(&host.join(name), &target.join(name), DEPTH)
}

/// Copies what everybody may read: files and directories with plain modes, links as they are; nothing else.
fn copy(source: &Path, target: &Path, depth: usize) -> Result<(), Error> {
    let found = match fs::symlink_metadata(source) {
        // Somebody else changed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.context(|| format!("examining {}", source.display()))?,
    };
    let mode = found.permissions().mode();
    if found.is_symlink() {
        let destination = fs::read_link(source).context(|| format!("reading link {}", source.display()))?;
        make_link(&destination, target)
    } else if found.is_dir() && mode & 0o005 == 0o005 && depth > 0 {
        make_directory(target, 0o755, true)?;
        let entries = fs::read_dir(source).context(|| format!("reading {}", source.display()))?;
        entries
            .flatten()
            .try_for_each(|entry| copy(&entry.path(), &target.join(entry.file_name()), depth - 1))
    } else if found.is_file() && mode & 0o004 != 0 {
        let content = fs::read(source).context(|| format!("reading {}", source.display()))?;
        write(target, &content, 0o644 | mode & 0o111)
    } else {
        Ok(())
    }
}

/// Writes a new file: one that is there already is never written through.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let _ = fs::remove_file(path);
    fs::write(path, content).context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .context(|| format!("setting the mode of {}", path.display()))
}

fn make_link(destination: &Path, path: &Path) -> Result<(), Error> {
    symlink(destination, path).context(|| format!("making link {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with some of everything, and secrets.
    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let path = |name: &str| host.path().join(name);
        for name in
            ["usr/bin", "etc/ssl/certs", "etc/ssl/private", "etc/python3.11", "etc/perl", "lib64", "home/me"]
        {
            fs::create_dir_all(path(name)).unwrap();
        }
        for (name, mode) in [
            ("etc/passwd", 0o644),
            ("etc/shadow", 0o640),
            ("etc/services", 0o644),
            ("etc/ssl/certs/ca.pem", 0o644),
            ("etc/ssl/certs/mine.pem", 0o640),
            ("etc/ssl/private/key.pem", 0o644),
            ("etc/ssl/openssl.cnf", 0o644),
            ("etc/python3.11/sitecustomize.py", 0o4755),
            ("etc/locale.alias", 0o600),
            ("etc/npmrc", 0o644),
        ] {
            fs::write(path(name), format!("host {name}")).unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(path("etc/perl/closed")).unwrap();
        fs::write(path("etc/perl/closed/x"), "").unwrap();
        fs::set_permissions(path("etc/perl/closed"), Permissions::from_mode(0o700)).unwrap();
        symlink("/usr/share/zoneinfo/Etc/UTC", path("etc/localtime")).unwrap();
        symlink(path("home/me"), path("etc/skel")).unwrap();
        symlink("usr/bin", path("bin")).unwrap();
        host
    }

    #[test]
    fn what_programs_need_is_there_and_secrets_are_not() {
        let (host, top) = (host(), tempfile::tempdir().unwrap());
        let target = top.path().join("base");
        let system = build(host.path(), &target).unwrap();
        let shown: Vec<_> =
            system.iter().map(|bind| String::from_utf8(bind.destination.0.clone()).unwrap()).collect();
        assert_eq!(shown, ["/usr", "/lib64"]);
        assert!(system.iter().all(|bind| !bind.writable));
        for name in
            ["etc/services", "etc/ssl/certs/ca.pem", "etc/ssl/openssl.cnf", "etc/python3.11/sitecustomize.py"]
        {
            assert_eq!(fs::read_to_string(target.join(name)).unwrap(), format!("host {name}"));
        }
        for name in [
            "etc/shadow",
            "etc/ssl/certs/mine.pem",
            "etc/ssl/private",
            "etc/locale.alias",
            "etc/npmrc",
            "etc/perl/closed",
            "home/me",
        ] {
            assert!(!target.join(name).exists(), "{name}");
        }
        assert!(!fs::read_to_string(target.join("etc/passwd")).unwrap().contains("host"));
    }

    #[test]
    fn links_stay_links_and_modes_are_plain() {
        let (host, top) = (host(), tempfile::tempdir().unwrap());
        let target = top.path().join("base");
        build(host.path(), &target).unwrap();
        let link = |name: &str| fs::read_link(target.join(name)).unwrap();
        assert_eq!(link("etc/localtime"), Path::new("/usr/share/zoneinfo/Etc/UTC"));
        assert_eq!(link("bin"), Path::new("usr/bin"));
        assert_eq!(link("etc/skel"), host.path().join("home/me"));
        assert_eq!(link("var/run"), Path::new("/run"));
        let mode = |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("etc/python3.11/sitecustomize.py"), 0o755);
        assert_eq!(
            [mode("tmp"), mode("root"), mode("etc"), mode("etc/passwd")],
            [0o1777, 0o700, 0o755, 0o644]
        );
    }

    #[test]
    fn this_machine_makes_an_image() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("base");
        let system = build(Path::new("/"), &target).unwrap();
        assert_eq!(system[0].source, "/usr".into());
        assert!(target.join("etc/ld.so.cache").exists());
        assert!(!target.join("etc/shadow").exists() && !target.join("etc/ssl/private").exists());
    }

    #[test]
    fn an_image_is_never_built_twice_in_one_place() {
        let (host, top) = (host(), tempfile::tempdir().unwrap());
        build(host.path(), &top.path().join("base")).unwrap();
        assert!(build(host.path(), &top.path().join("base")).is_err());
    }
}
