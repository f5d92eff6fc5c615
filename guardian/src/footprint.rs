//! What is in memory and needed no more.

use std::{fs, ops::Range};

/// Lets go of the pages of the program's text that are mapped. Most of them are of the start: command line,
/// configuration, type information, the loading of programs. What is used again is in the page cache, and is mapped
/// again when it is touched (`filemap_map_pages` in `mm/filemap.c`: sixteen pages in a microsecond or so).
///
/// Where the mappings cannot be read, nothing happens.
pub fn unmap_text() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for range in maps.lines().filter_map(text) {
        // SAFETY: a private mapping of a file that was never writable has the file's pages and no others; it stays
        // mapped, and has the same bytes when it is read again (`madvise(2)`, MADV_DONTNEED).
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// Gives back the heap that is free, from between what is in use too (`malloc_trim(3)`): reading type information leaves
/// tens of megabytes of it behind, a flush of a table a few. It takes a millisecond, in which other threads may have to
/// wait for memory.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that matter; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The addresses of a mapping that is text of a file (`proc_pid_maps(5)`). Read-only data is not: the loader has
/// written to some of it.
fn text(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (addresses, permissions) = (fields.next()?, fields.next()?);
    let is_of_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let (start, end) = addresses.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    (permissions == "r-xp" && is_of_file).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_of_files_is_let_go() {
        let line = "558d2cab0000-558d2cf77000 r-xp 0023a000 fe:00 1234      /usr/bin/route-guardian";
        assert_eq!(text(line), Some(0x558d_2cab_0000..0x558d_2cf7_7000));
        for other in [
            "558d2c876000-558d2cab0000 r--p 00000000 fe:00 1234      /usr/bin/route-guardian",
            "558d4d553000-558d4df81000 rw-p 00000000 00:00 0         [heap]",
            "7ffc3b5f2000-7ffc3b5f4000 r-xp 00000000 00:00 0         [vdso]",
            "7f15f8eb1000-7f15f96b2000 r-xp 00000000 00:00 0 ",
            "nonsense",
            "",
        ] {
            assert_eq!(text(other), None, "{other}");
        }
    }

    /// KiB of text that are mapped.
    fn resident() -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut is_text, mut sum) = (false, 0);
        for line in maps.lines() {
            if let Some(size) = line.strip_prefix("Rss:") {
                let kib: u64 = size.trim_end_matches("kB").trim().parse().unwrap();
                sum += if is_text { kib } else { 0 };
            } else if line.split(' ').next().is_some_and(|first| first.contains('-')) {
                is_text = text(line).is_some();
            }
        }
        sum
    }

    /// The program goes on, and most of the pages are gone.
    #[test]
    fn text_is_let_go_and_comes_back_when_it_is_used() {
        // The first look maps what looking takes.
        resident();
        let before = resident();
        unmap_text();
        let after = resident();
        assert!(after < before, "{before} KiB before, {after} after");
    }
}
