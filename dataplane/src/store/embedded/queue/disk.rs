//! What the queue asks of a file system, and where its files are.
//!
//! [`Disk`] is the calls that fail when a disk is full or breaks, so that tests can make them fail. Reading goes to
//! files directly. Nothing here retries.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub(super) trait Disk: Send + Sync {
    /// A new, empty file for reading and writing.
    fn create(&self, path: &Path) -> io::Result<File>;
    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()>;
    /// What was written to the file, and its length, survive the machine.
    fn sync(&self, file: &File) -> io::Result<()>;
    fn cut(&self, file: &File, length: u64) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(path)
    }

    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
}

/// The files of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The entries.
    Log,
    /// Where the blocks are; made from the log when the segment is finished.
    Index,
    /// What became of entries.
    Verdicts,
    /// What the verdicts amount to, so that few of them are read at the next start.
    Checkpoint,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Log, Self::Index, Self::Verdicts, Self::Checkpoint];

    fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "idx",
            Self::Verdicts => "ver",
            Self::Checkpoint => "chk",
        }
    }
}

/// Names of files in the queue's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout(PathBuf);

impl Layout {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }

    pub(super) fn path(&self, seq: u64, kind: Kind) -> PathBuf {
        self.0.join(format!("{seq:012}.{}", kind.extension()))
    }

    /// Of a file that is to take the place of another.
    pub(super) fn temporary(&self, seq: u64, kind: Kind) -> PathBuf {
        self.0.join(format!("{seq:012}.{}.new", kind.extension()))
    }

    pub(super) fn is_temporary(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "new")
    }

    pub(super) fn parse(path: &Path) -> Option<(u64, Kind)> {
        let seq = path.file_stem()?.to_str()?.parse().ok()?;
        let extension = path.extension()?.to_str()?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.extension() == extension)?;
        Some((seq, kind))
    }

    pub(super) fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    /// Writes a file whole or not at all.
    pub(super) fn replace(
        &self,
        disk: &dyn Disk,
        seq: u64,
        kind: Kind,
        data: &[u8],
    ) -> io::Result<()> {
        let temporary = self.temporary(seq, kind);
        let written = disk.create(&temporary).and_then(|file| {
            disk.write_at(&file, data, 0)?;
            disk.sync(&file)
        });
        if let Err(error) = written {
            remove(&temporary);
            return Err(error);
        }
        disk.rename(&temporary, &self.path(seq, kind))
    }

    /// Removes a segment. The log goes first: without it the other files mean nothing, with it and without them
    /// everything in it would be delivered again.
    pub(super) fn remove_segment(&self, seq: u64) -> io::Result<()> {
        match fs::remove_file(self.path(seq, Kind::Log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        self.sync_dir()?;
        for kind in [Kind::Index, Kind::Verdicts, Kind::Checkpoint] {
            remove(&self.path(seq, kind));
        }
        Ok(())
    }
}

/// Removes a file that is of no use; where it cannot be, the next start does.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of the queue");
    }
}

/// `length` bytes, or an error; fewer are `UnexpectedEof`.
pub(super) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut data = vec![0; length];
    file.read_exact_at(&mut data, offset)?;
    Ok(data.into())
}

/// Reads a file from front to back, some at a time.
pub(super) struct Window<'a> {
    file: &'a File,
    pub(super) length: u64,
    data: Vec<u8>,
    start: u64,
}

const WINDOW_BYTES: usize = 1 << 20;

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            length,
            data: Vec::new(),
            start: 0,
        })
    }

    /// `None`: the file ends before.
    pub(super) fn get(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset
            .checked_add(length as u64)
            .filter(|end| *end <= self.length)
        else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.data.len() as u64 {
            let wanted = length
                .max(WINDOW_BYTES)
                .min((self.length - offset) as usize);
            self.data.resize(wanted, 0);
            self.file.read_exact_at(&mut self.data, offset)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.data.get(from..from + length))
    }
}
