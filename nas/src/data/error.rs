//! What can go wrong between a file and a batch, with the file or record named.

use std::io;
use std::path::PathBuf;

/// Result with [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the data layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The first four bytes of an IDX file name no supported content.
    #[error("{} is no IDX file of {expected}: its magic number is {found:#010x}", path.display())]
    IdxMagic {
        /// The file.
        path: PathBuf,
        /// The first four bytes, big-endian.
        found: u32,
        /// What the file should hold.
        expected: &'static str,
    },
    /// Images of a shape that is no picture.
    #[error("{}: images of {} x {} pixels with {} channels cannot be used", path.display(), shape[0], shape[1], shape[2])]
    Shape {
        /// The file.
        path: PathBuf,
        /// Height, width, channels.
        shape: [usize; 3],
    },
    /// A header promises more than the file can hold.
    #[error("{}: header promises {claimed} bytes of content, but the file can hold {limit} at most", path.display())]
    ClaimedSize {
        /// The file.
        path: PathBuf,
        /// Bytes that the header's dimensions multiply to.
        claimed: u64,
        /// The most that is possible for a file of this size.
        limit: u64,
    },
    /// A file ends before its content does.
    #[error("{} is cut short: {expected} bytes promised, {found} present", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file goes on after its content.
    #[error("{} goes on after the {expected} bytes that its header promises", path.display())]
    Overlong {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: u64,
    },
    /// Images and labels of a data set differ in number.
    #[error("{} holds {images} images, {} holds {labels} labels", images_path.display(), labels_path.display())]
    Counts {
        /// File of the images.
        images_path: PathBuf,
        /// Images in it.
        images: usize,
        /// File of the labels.
        labels_path: PathBuf,
        /// Labels in it.
        labels: usize,
    },
    /// A label outside the classes.
    #[error("{}: record {record} has label {label}, but there are {classes} classes", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Record in it, from 0.
        record: usize,
        /// Its label.
        label: u64,
        /// Number of classes.
        classes: usize,
    },
    /// A data set without images.
    #[error("{} holds no images", path.display())]
    NoImages {
        /// The file or folder.
        path: PathBuf,
    },
    /// A data set with more records than a 32-bit index counts.
    #[error("{} holds more than {} records", path.display(), u32::MAX)]
    TooManyRecords {
        /// The file or folder.
        path: PathBuf,
    },
    /// A folder that links back to one of its parents.
    #[error("{} links back to a folder that contains it; remove the link", path.display())]
    SymlinkLoop {
        /// The link.
        path: PathBuf,
    },
    /// A member of a tar shard that cannot be used.
    #[error("{}: member {member} {problem}", path.display())]
    TarMember {
        /// The shard.
        path: PathBuf,
        /// Name of the member.
        member: String,
        /// What is wrong with it.
        problem: TarProblem,
    },
    /// A record that is no picture, or a broken one.
    #[error("image {record}: {source}")]
    Decode {
        /// Name of the record.
        record: String,
        /// What the decoder found.
        source: DecodeError,
    },
    /// A record of a packed file whose bytes are not those that were written.
    #[error("{}: record {record} ({name}) is damaged: its hash differs; pack the data again", path.display())]
    Damaged {
        /// The packed file.
        path: PathBuf,
        /// The record, from 0.
        record: usize,
        /// Its name.
        name: String,
    },
    /// A path that does not tell by itself what it holds.
    #[error(
        "cannot tell what {} holds: it is no packed file, tar shard, folder of shards or folder of class folders; \
         describe it in a recipe's data section and give the recipe", path.display()
    )]
    Unrecognised {
        /// The file or folder.
        path: PathBuf,
    },
    /// A packed file whose header or index is damaged or of another version.
    #[error("{} is no usable packed data set: {problem}", path.display())]
    Packed {
        /// The packed file.
        path: PathBuf,
        /// What is wrong with it.
        problem: PackedProblem,
    },
    /// More bad records than the policy tolerates.
    #[error(
        "{bad} of {records} records are bad, more than the {limit} that `max-bad` allows; the last was: {last}"
    )]
    TooManyBad {
        /// Bad records met so far.
        bad: usize,
        /// Records in the set.
        records: usize,
        /// Most that are allowed.
        limit: usize,
        /// The last one's error.
        last: Box<Error>,
    },
    /// A class whose every record is bad, so nothing can take a bad record's place.
    #[error("every record of class {class} is bad, so none can take another's place")]
    NoSubstitute {
        /// The class.
        class: String,
    },
    /// Reading or augmenting a record panicked.
    #[error("image {record}: reading or augmenting it panicked; please report it with this file")]
    Panicked {
        /// Name of the record.
        record: String,
    },
    /// A set that has to lie in memory is larger than allowed.
    #[error("{} needs {needed} MiB of memory, more than `memory-limit-mib` = {limit}; {advice}", path.display())]
    Memory {
        /// The file or folder.
        path: PathBuf,
        /// MiB needed, or a lower bound.
        needed: u64,
        /// MiB allowed.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A class with fewer images than were to be taken from it.
    #[error("class {class} has {images} images: {wanted} cannot be taken from it with {leave} left")]
    ClassTooSmall {
        /// The class.
        class: String,
        /// Images it has.
        images: usize,
        /// Images wanted.
        wanted: usize,
        /// Images that must remain.
        leave: usize,
    },
    /// A training batch larger than the set.
    #[error("a batch of {batch} cannot be taken from {images} images; lower `batch`")]
    BatchTooLarge {
        /// Images in a batch.
        batch: usize,
        /// Images in the set.
        images: usize,
    },
    /// Train, validation and test sets with different classes.
    #[error("{} and {} have different classes ({first_classes} and {second_classes})", first.display(), second.display())]
    Classes {
        /// One source.
        first: PathBuf,
        /// Its number of classes.
        first_classes: usize,
        /// The other source.
        second: PathBuf,
        /// Its number of classes.
        second_classes: usize,
    },
    /// A configuration value that makes no sense.
    #[error("`{key}` is {value}, but must be {expected}")]
    Config {
        /// The key, as in the recipe.
        key: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl Error {
    /// Whether the caller can mend the call or a file that he wrote.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Config { .. } | Error::Unrecognised { .. })
    }
}

/// Why a record is no usable picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Neither JPEG nor PNG, by the first bytes.
    #[error("neither JPEG nor PNG (first bytes {0:02x?})")]
    UnknownFormat(Vec<u8>),
    /// Zero or more pixels than the limit.
    #[error("{width} x {height} pixels, more than the limit of {limit}")]
    TooLarge {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Most pixels allowed.
        limit: usize,
    },
    /// More pixels than so few bytes can describe: a truncated file or a bomb.
    #[error("{width} x {height} pixels cannot come from {bytes} bytes")]
    Bomb {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Size of the file.
        bytes: usize,
    },
    /// A JPEG without its end marker.
    #[error("bad JPEG: cut short, its end marker is missing")]
    NoEnd,
    /// A number of colour channels that is neither gray nor colour.
    #[error("{0} colour channels")]
    Channels(usize),
    /// A PNG palette that ends within an entry.
    #[error("bad PNG: a palette of {0} bytes, which is no multiple of 3")]
    Palette(usize),
    /// The decoder panicked.
    #[error("the decoder panicked; please report it with this file")]
    Panicked,
    /// The JPEG decoder's complaint.
    #[error("bad JPEG: {0}")]
    Jpeg(#[source] zune_jpeg::errors::DecodeErrors),
    /// The PNG decoder's complaint.
    #[error("bad PNG: {0}")]
    Png(#[source] png::DecodingError),
}

/// What is wrong with a member of a tar shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarProblem {
    /// It reaches beyond the end of the shard.
    #[error("reaches beyond the end of the shard")]
    BeyondEnd,
    /// Another member has its name.
    #[error("appears twice")]
    Duplicate,
    /// A class file that holds no integer.
    #[error("holds no class number")]
    BadClass,
    /// Some images of the set have a class file, this one has none.
    #[error("has no .cls member, though others have")]
    NoClassMember,
    /// Neither folder nor class file tells its class.
    #[error("lies in no folder and has no .cls member, so its class is unknown")]
    NoClass,
    /// A sparse file, whose bytes are not contiguous.
    #[error("is a sparse file; write the shard without --sparse")]
    Sparse,
}

/// What is wrong with a packed file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedProblem {
    /// It does not begin with the format's name.
    #[error("it does not begin with the format's magic bytes")]
    Magic,
    /// Written by another version.
    #[error("version {0} is not supported; pack the data again")]
    Version(u32),
    /// The file is shorter or longer than its header says.
    #[error("its size differs from what its header says")]
    Size,
    /// A record of 4 GiB or more, or names of 4 GiB in all.
    #[error("a record or all names together exceed 4 GiB")]
    TooLarge,
    /// The index does not have its hash.
    #[error("its index is damaged")]
    Index,
}
