//! A bounded reader of the kernel's type information, for one question: where is a member in a structure?
//!
//! The format is that of `include/uapi/linux/btf.h` and Documentation/bpf/btf.rst. Parsing all of it into types
//! takes tens of megabytes; this keeps the raw bytes and one offset per type, and is dropped after
//! start-up.

use std::{fs::File, io::Read, path::Path};

/// The most bytes that are read: vmlinux BTF takes 4 to 10 MB.
const MAX_BYTES: u64 = 64 << 20;
/// Structures nested in one another without a name that are followed.
const MAX_DEPTH: u32 = 8;
const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_TYPE_TAG: u32 = 18;

/// Why type information cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read the kernel's type information {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not BTF, or damaged.
    #[error("the kernel's type information is not valid BTF: {0}")]
    Malformed(&'static str),
    /// A kind of type that came after this was written: what follows cannot be found.
    #[error("the kernel's type information has a type of the unknown kind {0}")]
    UnknownKind(u32),
}

/// Type information of one kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type begins in `bytes`, by id; id 0 is `void`.
    types: Vec<u32>,
    strings: std::ops::Range<usize>,
}

/// The head of a type, `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// How many members follow.
    members: usize,
    /// Whether member offsets carry bit-field sizes.
    flag: bool,
    /// The type that a qualifier or another name stands for; a size for other kinds.
    referred: u32,
    /// Where what follows the head begins.
    body: usize,
}

impl Btf {
    /// Reads and indexes a file such as `/sys/kernel/btf/vmlinux`.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let failed = |source| BtfError::Read { path: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let expected = file.metadata().map_or(0, |m| m.len()).min(MAX_BYTES) as usize;
        let mut bytes = Vec::with_capacity(expected + 1);
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(bytes)
    }

    /// Indexes type information in the byte order of this machine.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let header = |at| u32_at(&bytes, at).ok_or(BtfError::Malformed("the header is cut short"));
        let magic = header(0)? & 0xffff;
        if magic != u32::from(MAGIC) {
            return Err(BtfError::Malformed("it does not begin with 0xeb9f"));
        }
        let base = header(4)? as usize;
        let section = |offset: u32, len: u32| {
            let start = base.checked_add(offset as usize)?;
            let end = start.checked_add(len as usize)?;
            (end <= bytes.len()).then_some(start..end)
        };
        let outside = BtfError::Malformed("a section lies outside of it");
        let (Some(types), Some(strings)) =
            (section(header(8)?, header(12)?), section(header(16)?, header(20)?))
        else {
            return Err(outside);
        };
        let mut index = vec![0];
        let mut at = types.start;
        while at < types.end {
            let head = type_at(&bytes, at).ok_or(BtfError::Malformed("a type is cut short"))?;
            index.push(at as u32);
            at = head.body + body_bytes(head.kind, head.members)?;
        }
        if at != types.end {
            return Err(BtfError::Malformed("the last type is cut short"));
        }
        Ok(Self { bytes, types: index, strings })
    }

    /// The offset of a member in a structure (or union) in bytes, also when it is a member of structures in it
    /// that have no name. `None` where there is no such structure or member, or it is a bit-field that
    /// does not begin at a byte.
    pub fn offset_of(&self, structure: &str, member: &str) -> Option<u32> {
        self.types
            .iter()
            .skip(1)
            .find_map(|&at| {
                let head = type_at(&self.bytes, at as usize)?;
                let named =
                    matches!(head.kind, KIND_STRUCT | KIND_UNION) && self.is_named(head.name, structure);
                named.then(|| self.member_bits(&head, member, 0)).flatten()
            })
            .filter(|bits| bits % 8 == 0)
            .map(|bits| bits / 8)
    }

    fn member_bits(&self, of: &Type, wanted: &str, depth: u32) -> Option<u32> {
        (0..of.members).find_map(|n| {
            let at = of.body + n * TYPE_BYTES;
            let (name, kind) = (u32_at(&self.bytes, at)?, u32_at(&self.bytes, at + 4)?);
            let raw = u32_at(&self.bytes, at + 8)?;
            let bits = if of.flag { raw & 0x00ff_ffff } else { raw };
            if name != 0 {
                return self.is_named(name, wanted).then_some(bits);
            }
            if depth == MAX_DEPTH {
                return None;
            }
            let inner = self.structure(kind)?;
            bits.checked_add(self.member_bits(&inner, wanted, depth + 1)?)
        })
    }

    /// The structure that a type id stands for, through qualifiers and other names.
    fn structure(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let at = *self.types.get(id as usize).filter(|_| id != 0)?;
            let head = type_at(&self.bytes, at as usize)?;
            match head.kind {
                KIND_STRUCT | KIND_UNION => return Some(head),
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = head.referred;
                }
                _ => return None,
            }
        }
        None
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let rest = self.bytes.get(self.strings.clone()).and_then(|all| all.get(offset as usize..));
        rest.and_then(|rest| rest.strip_prefix(name.as_bytes())).and_then(<[u8]>::first) == Some(&0)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

fn type_at(bytes: &[u8], at: usize) -> Option<Type> {
    let info = u32_at(bytes, at + 4)?;
    Some(Type {
        name: u32_at(bytes, at)?,
        kind: (info >> 24) & 0x1f,
        members: (info & 0xffff) as usize,
        flag: info >> 31 != 0,
        referred: u32_at(bytes, at + 8)?,
        body: at + TYPE_BYTES,
    })
}

/// How many bytes follow the head of a type.
fn body_bytes(kind: u32, members: usize) -> Result<usize, BtfError> {
    Ok(match kind {
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        // integer, variable, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // structure, union, section, 64-bit enumeration
        4 | 5 | 15 | 19 => 12 * members,
        // enumeration, function prototype
        6 | 13 => 8 * members,
        other => return Err(BtfError::UnknownKind(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { u32 a; union { struct { u32 b; u32 c; }; u64 d; }; u32 bit:1; u32 bits:7; }`
    fn blob() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0d\0bit\0bits\0".to_vec();
        let types: Vec<u32> = [
            // 1: u32
            vec![0, 1 << 24, 4, 32],
            // 2: struct { b; c; }
            vec![0, 4 << 24 | 2, 8, 9, 1, 0, 11, 1, 32],
            // 3: union { struct 2; d; }
            vec![0, 5 << 24 | 2, 8, 0, 2, 0, 13, 1, 0],
            // 4: const 3
            vec![0, 10 << 24, 3],
            // 5: struct outer, with bit-fields
            vec![
                1,
                1 << 31 | 4 << 24 | 4,
                24,
                7,
                1,
                0,
                0,
                4,
                64,
                15,
                1,
                1 << 24 | 0x80,
                19,
                1,
                7 << 24 | 0x81,
            ],
        ]
        .concat();
        let mut blob = Vec::new();
        blob.extend(MAGIC.to_ne_bytes());
        blob.extend([1, 0]);
        let type_bytes = types.len() as u32 * 4;
        for word in [24, 0, type_bytes, type_bytes, strings.len() as u32] {
            blob.extend(u32::to_ne_bytes(word));
        }
        blob.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        blob.extend(strings);
        blob
    }

    #[test]
    fn finds_members_through_nameless_structures() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.offset_of("outer", "a"), Some(0));
        assert_eq!(btf.offset_of("outer", "b"), Some(8));
        assert_eq!(btf.offset_of("outer", "c"), Some(12));
        assert_eq!(btf.offset_of("outer", "d"), Some(8));
        assert_eq!(btf.offset_of("outer", "bit"), Some(16));
        assert_eq!(btf.offset_of("outer", "bits"), None, "begins within a byte");
        assert_eq!(btf.offset_of("outer", "oute"), None);
        assert_eq!(btf.offset_of("oute", "a"), None);
    }

    #[test]
    fn refuses_what_is_damaged() {
        let whole = blob();
        for len in 0..whole.len() {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len} bytes of {}", whole.len());
        }
        let mut other = whole.clone();
        other[0] ^= 1;
        assert!(matches!(Btf::parse(other), Err(BtfError::Malformed(_))));
        let mut newer = whole;
        newer[24 + 7] = 31;
        assert!(matches!(Btf::parse(newer), Err(BtfError::UnknownKind(31))));
    }

    #[test]
    fn any_bytes_are_an_answer_or_an_error() {
        let whole = blob();
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes) {
                    let _ = btf.offset_of("outer", "c");
                }
            }
        }
    }

    #[test]
    fn reads_the_running_kernel() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let btf = Btf::read(path).unwrap();
        assert_eq!(btf.offset_of("list_head", "next"), Some(0));
        assert_eq!(btf.offset_of("list_head", "prev"), Some(size_of::<usize>() as u32));
        assert!(btf.offset_of("task_struct", "tgid").is_some());
        assert_eq!(btf.offset_of("task_struct", "no_such_member"), None);
    }
}
