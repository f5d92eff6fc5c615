//! Configuration that is spread over several folders, of which one comes before the other.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// A path below the node's root folder.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What a file says; nothing where it is a link to /dev/null.
pub(super) fn text(root: &Path, path: &Path) -> io::Result<String> {
    let on_disk = below(root, path);
    if is_hiding(&on_disk) {
        return Ok(String::new());
    }
    let bytes = fs::read(&on_disk)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether it is a link to /dev/null, which hides files of its name.
fn is_hiding(on_disk: &Path) -> bool {
    fs::read_link(on_disk).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// The files of a folder, by name, over all places: of one name the first place's. Folders and links that lead
/// nowhere are none (`files_add` in `src/basic/conf-files.c`).
pub(super) fn named(
    root: &Path,
    folders: &[PathBuf],
    folder: &str,
    suffix: &str,
) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for place in folders {
        let folder = place.join(folder);
        let entries = match fs::read_dir(below(root, &folder)) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let on_disk = below(root, &folder).join(&name);
            let counts = is_hiding(&on_disk) || fs::metadata(&on_disk).is_ok_and(|meta| meta.is_file());
            if name.ends_with(suffix) && !name.starts_with('.') && counts {
                files.entry(name.clone()).or_insert_with(|| folder.join(name));
            }
        }
    }
    Ok(files)
}
