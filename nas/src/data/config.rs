//! The `[data]` section of a recipe.
//!
//! Unknown keys and unknown names are refused while reading; values out of range by
//! [`DataConfig::check`], [`Pipeline::new`](super::Pipeline::new) and
//! [`Loader::new`](super::Loader::new), which name the key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Data, Dataset, Error, LoaderOptions, Result, View};
use super::{cache, cifar, folder, idx, packed, split, tar};

/// Everything about a run's images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataConfig {
    /// Where the training images come from.
    pub train: Source,
    /// Where the images of the final figures come from.
    pub test: Source,
    /// Where validation images come from, if they are not split from `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<Source>,
    /// Images per class that are split from `train` for validation (0: none).
    #[serde(default)]
    pub val_per_class: usize,
    /// Use only a part of `train`; taken before the validation images are split off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Subset>,
    /// Use only a part of `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_subset: Option<Subset>,
    /// Whether decoded images are kept in memory.
    #[serde(default)]
    pub cache: Cache,
    /// Most MiB that one source may hold in memory (decoded cache, `.tar.gz` content).
    #[serde(default = "default_memory_limit")]
    pub memory_limit_mib: u64,
    /// What happens when an image cannot be read.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Largest share of bad images that `skip` and `substitute` tolerate.
    #[serde(default = "default_max_bad")]
    pub max_bad: f64,
    /// Threads that read, decode and augment.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Batches made ahead of the one in use.
    #[serde(default = "default_prefetch")]
    pub prefetch: usize,
    /// How pixels become floats, in training and evaluation alike.
    pub normalise: Normalise,
    /// What is done to training images.
    pub augment: Transform,
    /// What is done to validation and test images.
    pub eval: Transform,
}

fn default_memory_limit() -> u64 {
    DataConfig::MEMORY_LIMIT_MIB
}

fn default_max_bad() -> f64 {
    0.001
}

fn default_workers() -> usize {
    DataConfig::WORKERS
}

fn default_prefetch() -> usize {
    3
}

/// A data set on disk. Relative paths start at the folder that [`Source::open`] is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// The format of MNIST, `.gz` or plain; see [`idx`].
    Idx {
        /// File of the images.
        images: PathBuf,
        /// File of the labels.
        labels: PathBuf,
        /// Names of the classes in order; `"0"`, `"1"`, … if left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        classes: Vec<String>,
    },
    /// One sub-folder per class; see [`folder`].
    Folder {
        /// The folder of the class folders.
        path: PathBuf,
    },
    /// Tar shards, `.gz` or plain; see [`tar`].
    Tar {
        /// A shard, or a folder of shards (`.tar`, `.tar.gz`, `.tgz`, in order of name).
        path: PathBuf,
        /// Names of the classes in order, for shards with `.cls` members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        classes: Vec<String>,
    },
    /// The binary version of CIFAR-10 or CIFAR-100; see [`cifar`].
    Cifar {
        /// The unpacked folder; its files tell which of the two it is.
        path: PathBuf,
        /// Training or test images.
        part: CifarPart,
    },
    /// A packed file; see [`packed`].
    Packed {
        /// The file.
        path: PathBuf,
    },
}

/// A part of CIFAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CifarPart {
    /// 50,000 images.
    Train,
    /// 10,000 images.
    Test,
}

impl Source {
    /// What a path alone names: a packed file (by its first bytes), a tar shard or a folder of them (by
    /// name), else a folder of class folders.
    ///
    /// # Errors
    /// Unreadable, or a file of another kind.
    pub fn detect(path: &Path) -> Result<Self> {
        let folder = path.is_dir();
        let shards = if folder { tar::holds_shards(path)? } else { tar::is_shard(path) };
        let path = path.to_owned();
        if shards {
            Ok(Self::Tar { path, classes: Vec::new() })
        } else if folder {
            Ok(Self::Folder { path })
        } else if packed::is_packed(&path)? {
            Ok(Self::Packed { path })
        } else {
            Err(Error::Unrecognised { path })
        }
    }

    /// Opens the data set; relative paths start at `base`. `.tar.gz` shards may take up to
    /// `memory_limit_mib` of memory.
    ///
    /// # Errors
    /// Missing, unreadable, damaged or empty.
    pub fn open(&self, base: &Path, memory_limit_mib: u64) -> Result<Arc<dyn Dataset>> {
        Ok(match self {
            Self::Idx { images, labels, classes } => {
                Arc::new(idx::Idx::open(&base.join(images), &base.join(labels), classes)?)
            }
            Self::Folder { path } => Arc::new(folder::Folder::open(&base.join(path))?),
            Self::Tar { path, classes } => {
                Arc::new(tar::Tar::open(&base.join(path), classes, memory_limit_mib)?)
            }
            Self::Cifar { path, part } => Arc::new(cifar::Cifar::open(&base.join(path), *part)?),
            Self::Packed { path } => Arc::new(packed::Packed::open(&base.join(path))?),
        })
    }
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subset {
    /// The first n records.
    First(usize),
    /// n records of every class, chosen by the hash of their ids.
    PerClass(usize),
}

/// Whether decoded images are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Read and decode each time.
    #[default]
    None,
    /// Decode everything once, on opening; for sets whose pixels fit in memory.
    Memory,
}

/// What happens when an image cannot be read or decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBad {
    /// The run ends and names the image.
    #[default]
    Error,
    /// The batch is one image shorter.
    Skip,
    /// The next good image of the same class takes its place in training; evaluation skips it,
    /// so that no image counts twice.
    Substitute,
}

/// Geometry and colour of one image, in this order: crop, flip, jitter, normalise, erase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Transform {
    /// How an image of any size becomes a square.
    pub crop: Crop,
    /// Probability of a horizontal flip.
    #[serde(default)]
    pub flip: f32,
    /// Random changes of colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// A random rectangle that is set to zero after normalisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erase: Option<Erase>,
}

/// How an image of any size becomes `size` x `size` pixels. Resampling is bilinear with the support
/// widened when shrinking, as Pillow and torchvision do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Crop {
    /// A box of random area and aspect ratio (Szegedy et al. 2015; torchvision's
    /// `RandomResizedCrop`): ten tries, then the largest centred box within the ratios.
    RandomResized {
        /// Side of the result.
        size: usize,
        /// Least and largest share of the area; `[0.08, 1.0]` if left out.
        #[serde(default = "default_scale")]
        scale: [f32; 2],
        /// Least and largest width / height, drawn log-uniformly; `[0.75, 1.333…]` if left out.
        #[serde(default = "default_ratio")]
        ratio: [f32; 2],
    },
    /// The shorter side is resized to `size`, the image padded with black and a square cut out at
    /// random.
    PadAndCrop {
        /// Side of the result.
        size: usize,
        /// Pixels added at each side.
        padding: usize,
    },
    /// The shorter side is resized to `resize`, then the centre cut out (ImageNet: 256 and 224).
    /// No randomness: this is for evaluation.
    Centre {
        /// Length of the shorter side before the cut.
        resize: usize,
        /// Side of the result.
        size: usize,
    },
}

fn default_scale() -> [f32; 2] {
    [0.08, 1.0]
}

fn default_ratio() -> [f32; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

/// Each factor is uniform in `[max(0, 1 - x), 1 + x]`; the three act in random order, as in
/// torchvision's `ColorJitter`, on 8-bit pixels with Pillow's rounding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Jitter {
    /// Towards black.
    #[serde(default)]
    pub brightness: f32,
    /// Towards the image's mean gray.
    #[serde(default)]
    pub contrast: f32,
    /// Towards each pixel's gray; nothing for gray images.
    #[serde(default)]
    pub saturation: f32,
}

/// A random rectangle of zeros (after normalisation: the mean colour).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Erase {
    /// A square around a uniformly random pixel, cut off at the borders (DeVries & Taylor 2017).
    Cutout {
        /// Side of the square.
        size: usize,
    },
    /// A rectangle of random area and ratio that lies inside (Zhong et al. 2017; torchvision's
    /// `RandomErasing`): ten tries, then none.
    Random {
        /// Probability that anything is erased; 0.5 if left out.
        #[serde(default = "default_erase_probability")]
        probability: f32,
        /// Least and largest share of the area; `[0.02, 0.33]` if left out.
        #[serde(default = "default_erase_scale")]
        scale: [f32; 2],
        /// Least and largest height / width, drawn log-uniformly; `[0.3, 3.3]` if left out.
        #[serde(default = "default_erase_ratio")]
        ratio: [f32; 2],
    },
}

fn default_erase_probability() -> f32 {
    0.5
}

fn default_erase_scale() -> [f32; 2] {
    [0.02, 0.33]
}

fn default_erase_ratio() -> [f32; 2] {
    [0.3, 3.3]
}

/// How a pixel becomes a float. The number of channels follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Normalise {
    /// `(pixel / 255 - mean) / std`, with one entry for gray or three for red, green, blue.
    /// Images are converted to that many channels.
    MeanStd {
        /// Mean per channel, in 0..1.
        mean: Vec<f32>,
        /// Standard deviation per channel, in 0..1.
        std: Vec<f32>,
    },
    /// Blue, green, red in 0..255 as they are: the input of SPOS's released code (`docs/papers.md`).
    #[serde(rename = "bgr-255")]
    Bgr255 {},
}

impl DataConfig {
    /// `memory-limit-mib` where a recipe has none.
    pub const MEMORY_LIMIT_MIB: u64 = 4096;
    /// `workers` where a recipe has none.
    pub const WORKERS: usize = 2;

    /// Makes every path absolute, so that the configuration holds from any folder.
    ///
    /// # Errors
    /// The working directory cannot be told.
    pub fn make_absolute(&mut self, base: &Path) -> Result<()> {
        for source in [Some(&mut self.train), Some(&mut self.test), self.val.as_mut()].into_iter().flatten() {
            let paths = match source {
                Source::Idx { images, labels, .. } => vec![images, labels],
                Source::Folder { path }
                | Source::Tar { path, .. }
                | Source::Cifar { path, .. }
                | Source::Packed { path } => vec![path],
            };
            for path in paths {
                *path = std::path::absolute(base.join(&*path)).map_err(super::io_error("resolve", path))?;
            }
        }
        Ok(())
    }

    /// Checks what [`Self::open`] relies on, without touching a file.
    ///
    /// # Errors
    /// The key that is out of range.
    pub fn check(&self) -> Result<()> {
        if self.val.is_some() && self.val_per_class > 0 {
            return Err(Error::Config {
                key: "val-per-class",
                value: self.val_per_class.to_string(),
                expected: "left out where `val` is given",
            });
        }
        super::Pipeline::new(&self.augment, &self.normalise)?;
        super::Pipeline::new(&self.eval, &self.normalise)?;
        self.loader(1).check()
    }

    /// Opens the sources (relative paths start at `base`) and splits them with the run's `seed`.
    ///
    /// # Errors
    /// A value out of range, a source that does not open, a class too small for its split, sources
    /// with different classes, a cache that exceeds the memory limit.
    pub fn open(&self, base: &Path, seed: u64) -> Result<Data> {
        self.check()?;
        let open = |source: &Source, subset| -> Result<View> {
            let all = View::all(source.open(base, self.memory_limit_mib)?);
            let view = split::subset(all, subset, seed)?;
            if self.cache == Cache::None || view.dataset.is_decoded() {
                return Ok(view);
            }
            let cached = cache::Memory::new(&view, self.workers, self.memory_limit_mib)?;
            Ok(View { dataset: Arc::new(cached), indices: view.indices })
        };
        let whole = open(&self.train, self.subset)?;
        let test = open(&self.test, self.test_subset)?;
        let (train, val) = match &self.val {
            Some(source) => (whole, open(source, None)?),
            None => split::hold_out(&whole, self.val_per_class, seed)?,
        };
        for other in [&val, &test] {
            same_classes(&train, other)?;
        }
        Ok(Data { train, val, test })
    }

    /// What the loader needs to know, for batches of `batch` images.
    pub fn loader(&self, batch: usize) -> LoaderOptions {
        LoaderOptions {
            batch,
            workers: self.workers,
            prefetch: self.prefetch,
            on_bad: self.on_bad,
            max_bad: self.max_bad,
        }
    }
}

fn same_classes(a: &View, b: &View) -> Result<()> {
    let (x, y) = (a.dataset.classes(), b.dataset.classes());
    if x == y {
        return Ok(());
    }
    let path = |view: &View| view.dataset.describe().paths.into_iter().next().unwrap_or_default();
    Err(Error::Classes { first: path(a), first_classes: x.len(), second: path(b), second_classes: y.len() })
}
