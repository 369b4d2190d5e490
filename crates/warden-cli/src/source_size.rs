//! How much there is to copy, as far as this program may see it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The size of a tree of files, which a thread adds up. The thread gives up when the value is dropped.
#[derive(Debug)]
pub(crate) struct SourceSize {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: OnceLock<u64>,
    abandoned: AtomicBool,
}

impl SourceSize {
    /// Starts to add up the sizes of a file or of a directory's files; symbolic links are not followed.
    pub(crate) fn measure(path: PathBuf) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        // Without a thread there is no size to show, and nothing else is lost.
        let _ = thread::Builder::new().name("size".to_owned()).spawn(move || {
            if let Some(bytes) = sum(path, &of_thread.abandoned) {
                let _ = of_thread.bytes.set(bytes);
            }
        });
        Self { shared }
    }

    /// The sum, bytes, once it is known; never if a part cannot be read.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.shared.bytes.get().copied()
    }
}

impl Drop for SourceSize {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

fn sum(path: PathBuf, abandoned: &AtomicBool) -> Option<u64> {
    let mut bytes = 0_u64;
    let mut left = vec![path];
    while let Some(path) = left.pop() {
        if abandoned.load(Ordering::Relaxed) {
            return None;
        }
        let metadata = fs::symlink_metadata(&path).ok()?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).ok()? {
                left.push(entry.ok()?.path());
            }
        } else if metadata.is_file() {
            bytes = bytes.saturating_add(metadata.len());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_of_a_tree_are_added_up() {
        let tree = tempfile::tempdir().unwrap();
        let inner = tree.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(tree.path().join("one"), [0; 100]).unwrap();
        fs::write(inner.join("two"), [0; 23]).unwrap();
        symlink("/", inner.join("link")).unwrap();
        let go_on = AtomicBool::new(false);
        assert_eq!(sum(tree.path().to_owned(), &go_on), Some(123));
        assert_eq!(sum(inner.join("two"), &go_on), Some(23));
        assert_eq!(sum(tree.path().join("absent"), &go_on), None);
        assert_eq!(sum(tree.path().to_owned(), &AtomicBool::new(true)), None);
    }
}
